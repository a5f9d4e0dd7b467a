"""The store without a cluster: Kubernetes' semantics over one SQLite file.

One process writes to a data directory at a time; any number may read. A write that returned is durable. When the disk
is full or read-only the write fails with StoreUnavailable, nothing of it is kept, and writing works again as soon as
the disk does.
"""

from __future__ import annotations

import builtins
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from propylon.api.defaults import apply_defaults
from propylon.api.meta import ObjectRef, group_of
from propylon.api.validation import status_is_fine
from propylon.store import semantics
from propylon.store.admission import DEFAULT_NAMESPACE, check, complete, placed, with_complete_status
from propylon.store.database import Database, Transaction
from propylon.store.errors import Conflict, Forbidden, NotFound, StoreError, StoreUnavailable
from propylon.store.kindinfo import has_status, list_keys
from propylon.store.merge import merge
from propylon.store.overrides import override_notice, overrides_nothing
from propylon.store.protocol import (
    Applied,
    AppliedDocument,
    Changes,
    Document,
    Event,
    GroupKind,
    Listing,
    Outcome,
    Propagation,
    ref_of_document,
)
from propylon.store.watching import LocalWatch, watch_events
from propylon.store.writer import Writer

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, Any]).decode

Check = Callable[[Mapping[str, Any], Mapping[str, Any] | None], None]
"""Looks at a complete document that is to replace a stored one (or None); raises Invalid."""


class Admitted(dict[str, Any]):
    """A document that a store's `admitted` completed and found good."""


def utc_now() -> str:
    """The time as objects carry it: RFC 3339, UTC, whole seconds."""
    return _utc(int(time.time()))


@lru_cache(maxsize=2)
def _utc(second: int) -> str:
    """Formatted once a second: every write asks several times."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class LocalStore:
    """A Store (see `protocol`) in a data directory. `retained_changes` bounds how far back a watch may start."""

    def __init__(
        self,
        directory: Path,
        *,
        read_only: bool = False,
        retained_changes: int = 20_000,
        check: Check = check,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._database = Database(directory, read_only=read_only, retained_changes=retained_changes)
        self._writer = Writer(self._database, now)
        self._check = check
        self._now = now
        self._wakers: dict[object, Callable[[], None]] = {}
        self.read_only = read_only
        if not read_only:
            self._ensure_namespace(DEFAULT_NAMESPACE)

    def close(self) -> None:
        """Close the file and let another process write."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading

    @property
    def resource_version(self) -> int:
        """The version of the latest durable change."""
        return self._database.committed

    def get(self, ref: ObjectRef) -> Document:
        """The object. Raises NotFound."""
        document = self._writer.read(ref)
        if document is None:
            raise NotFound(ref)
        return document

    def list(self, kinds: Sequence[GroupKind] = (), namespace: str | None = None) -> Listing:
        """Objects of these kinds (of all without any), of one namespace if given."""
        return self._database.listing(kinds, namespace)

    def page(self, kind: GroupKind, namespace: str | None, after: tuple[str, str], limit: int) -> tuple[Listing, int]:
        """The next `limit` objects (one at least) of a kind, in one namespace if given, after that namespace and name,
        and how many there are beyond them."""
        return self._database.page(kind, namespace, after, limit)

    def applied_by(self, manager: str) -> dict[ObjectRef, AppliedDocument]:
        """What this manager applied last, by object."""
        return {ref: AppliedDocument(_decode(raw), source) for ref, source, raw in self._database.applied_by(manager)}

    # Writing

    def transaction(self) -> Transaction:
        """Everything written inside becomes durable and visible to watches together, or not at all."""
        return Transaction(self._database, self._writer.settle, self._writer.forget, self._wake)

    def _wake(self) -> None:
        for wake in tuple(self._wakers.values()):
            wake()

    def create(self, document: Mapping[str, Any]) -> Document:
        """Store a new object and return it as stored. Raises AlreadyExists, Forbidden, Invalid, NotFound (its
        namespace)."""
        wanted = self.admitted(document)  # outside the transaction, so that others write meanwhile
        with self.transaction():
            return self._create(ref_of_document(wanted), wanted)

    def admitted(self, document: Mapping[str, Any]) -> Admitted:
        """A document as `create` would store it, with defaults, found good. Raises Conflict, Invalid.

        Needs nothing of what is stored; `create` takes the result without looking at it again.
        """
        if isinstance(document, Admitted):
            return document
        # Status first: a kind's default status is for new objects.
        wanted = complete(_new(document))
        if wanted["metadata"].get("resourceVersion"):
            raise Conflict(ref_of_document(wanted), "resourceVersion must not be set on an object to be created")
        self._check(wanted, None)
        return Admitted(wanted)

    def update(self, document: Mapping[str, Any]) -> Document:
        """Replace all of an object but its status. Raises Conflict, Invalid, NotFound.

        An empty metadata.resourceVersion or uid stands for whatever is stored.
        """
        with self.transaction():
            wanted = complete(document)
            ref = ref_of_document(wanted)
            stored = self.get(ref)
            metadata = wanted["metadata"]
            semantics.check_preconditions(
                stored, uid=metadata.get("uid") or "", resource_version=metadata.get("resourceVersion") or ""
            )
            return self._update(ref, stored, wanted)

    def patch_status(
        self,
        ref: ObjectRef,
        change: Callable[[Document], Mapping[str, Any] | None],
        resource_version: str = "",
        managed_fields: builtins.list[Any] | None = None,
    ) -> Document:
        """Replace an object's status by what `change` makes of the stored object, and metadata.managedFields if given.
        Raises Conflict, Invalid, NotFound."""
        with self.transaction():
            stored = self.get(ref)
            semantics.check_preconditions(stored, uid="", resource_version=resource_version)
            prepared = semantics.prepare_status(stored, change(stored), managed_fields)
            if prepared is stored:
                return stored
            prepared = with_complete_status(prepared)
            if not status_is_fine(prepared):  # what else the object holds was found good when it was written
                self._check(prepared, stored)
            return self._writer.replace(ref, stored, prepared)

    def delete(
        self,
        ref: ObjectRef,
        *,
        propagation: Propagation = Propagation.BACKGROUND,
        uid: str = "",
        resource_version: str = "",
    ) -> Document:
        """Delete, or mark as being deleted while finalizers hold it; returns the last state. Raises NotFound,
        Conflict."""
        with self.transaction():
            stored = self.get(ref)
            semantics.check_preconditions(stored, uid=uid, resource_version=resource_version)
            return self._writer.delete(stored, propagation)

    def apply(
        self, document: Mapping[str, Any], manager: str, *, create_namespace: bool = False, source: str = ""
    ) -> Applied:
        """Three-way merge of the manager's last document, this one, and the object. Raises as `create` does."""
        with self.transaction():
            return self._apply(document, manager, create_namespace, source)

    def apply_many(
        self,
        documents: Sequence[Mapping[str, Any]],
        manager: str,
        *,
        create_namespace: bool = False,
        sources: Sequence[str] = (),
        checked: bool = False,
    ) -> builtins.list[Applied]:
        """Apply in one transaction. Namespaces go first, results come in the order given; a refusal stops no other."""
        if len(documents) == 1:  # which needs no transaction within the transaction to be undone alone
            try:
                with self.transaction():
                    source = sources[0] if sources else ""
                    return [self._apply(documents[0], manager, create_namespace, source, checked)]
            except StoreUnavailable:
                raise
            except StoreError as error:
                return [_refused(documents[0], error)]
        results: dict[int, Applied] = {}
        order = sorted(range(len(documents)), key=lambda index: documents[index].get("kind") != "Namespace")
        with self.transaction():
            for index in order:
                source = sources[index] if sources else ""
                try:
                    with self._database.transaction():
                        results[index] = self._apply(documents[index], manager, create_namespace, source, checked)
                except StoreUnavailable:
                    raise
                except StoreError as error:
                    results[index] = _refused(documents[index], error)
        return [results[index] for index in range(len(documents))]

    def advance(self, count: int, publish: Callable[[builtins.list[int]], None]) -> None:
        """Take `count` resourceVersions for changes of what is shown among the objects and kept elsewhere.

        `publish` is told them before anybody can see that they are taken; nothing may be shown if this raises.
        """
        with self.transaction():
            publish([self._database.next_version() for _ in range(count)])

    def release(self, ref: ObjectRef, manager: str) -> None:
        """Forget that this manager applied the object; the object stays as it is."""
        with self.transaction():
            self._database.forget_applied(ref, manager)

    def _apply(
        self,
        document: Mapping[str, Any],
        manager: str,
        create_namespace: bool,
        source: str,
        checked: bool = False,
    ) -> Applied:
        wanted = _as_applied(document)
        ref = ref_of_document(wanted)
        raw = _encode(wanted)
        held = self._database.document_and_applied(ref, manager)
        if held is None:
            notices = self._prepare_namespace(ref, create_namespace)
            whole = apply_defaults(wanted)
            if not checked:
                self._check(whole, None)
            created = self._create(ref, whole)
            self._database.put_applied(ref, manager, source, raw)
            return Applied(ref, Outcome.CREATED, _version(created), notices)
        stored = _decode(held[0])
        previous = {} if held[2] is None else _decode(held[2])
        keys = list_keys(ref.group, ref.kind)
        # First, as an object that goes with this (its last finalizer was taken out) takes along what was applied.
        if held[2] is None:
            self._database.put_applied(ref, manager, source, raw)
        elif held[1] != source or held[2] != raw:
            self._database.replace_applied(ref, manager, source, raw)
        # Its place is that of both, so defaults are all that it may lack.
        updated = self._update(ref, stored, apply_defaults(merge(previous, wanted, stored, keys)))
        if updated is stored:
            return Applied(ref, Outcome.UNCHANGED, _version(updated))
        # Without defaults first: nothing is missing where the manager wrote all of them.
        if previous and overrides_nothing(previous, stored):
            return Applied(ref, Outcome.CHANGED, _version(updated))
        former = complete(previous) if previous else {}
        if former and overrides_nothing(former, stored):
            return Applied(ref, Outcome.CHANGED, _version(updated))
        said = override_notice(former, complete(wanted), stored, keys)
        return Applied(ref, Outcome.CHANGED, _version(updated), (said,) if said else ())

    def _create(self, ref: ObjectRef, wanted: Document) -> Document:
        self._prepare_namespace(ref, create=False)
        return self._writer.add(ref, semantics.prepare_create(wanted, now=self._now(), uid=str(uuid.uuid4())))

    def _update(self, ref: ObjectRef, stored: Document, wanted: Document) -> Document:
        prepared = semantics.prepare_update(stored, wanted, keep_status=has_status(ref.group, ref.kind))
        if prepared is stored:  # as valid as before
            return stored
        self._check(prepared, stored)
        return self._writer.updated(ref, stored, prepared)

    def _prepare_namespace(self, ref: ObjectRef, create: bool) -> tuple[str, ...]:
        if not ref.namespace:
            return ()
        namespace = ObjectRef("", "Namespace", "", ref.namespace)
        raw = self._database.document(namespace)
        if raw is None:
            if not create:
                raise NotFound(namespace)
            self._ensure_namespace(ref.namespace)
            return (f"namespace {ref.namespace} was created: no manifest defines it",)
        if b"deletionTimestamp" in raw and semantics.is_deleting(_decode(raw)):  # it is not decoded for nothing
            raise Forbidden(ref, f"namespace {ref.namespace} is being deleted")
        return ()

    def _ensure_namespace(self, name: str) -> None:
        ref = ObjectRef("", "Namespace", "", name)
        if self._database.document(ref) is not None:
            return
        with self.transaction():
            self._create(ref, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # Watching

    def changes_since(self, resource_version: int, kinds: Sequence[GroupKind] = ()) -> Changes:
        """What happened after that version. Raises Gone."""
        return self._database.changes_since(resource_version, kinds)

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after every commit, in the writer's thread; returns what ends it."""
        token = object()
        self._wakers[token] = wake
        return lambda: self._wakers.pop(token, None) and None

    def open_watch(self, kinds: Sequence[GroupKind] = (), since: int | None = None) -> LocalWatch:
        """A watch in batches, for one event loop. Without `since` the first batch holds all objects and a BOOKMARK."""
        return LocalWatch(self, kinds, since, poll=self._database.data_version_reader() if self.read_only else None)

    def watch(self, kinds: Sequence[GroupKind] = (), since: int | None = None) -> AsyncIterator[Event]:
        """Events one by one. Raises Gone."""
        return watch_events(self.open_watch(kinds, since))


def _as_applied(document: Mapping[str, Any]) -> Document:
    """What a manager can want of an object, in its place: all but status and what the store alone sets."""
    metadata = dict(document["metadata"])
    for name in semantics.NOT_APPLICABLE:
        metadata.pop(name, None)
    wanted = placed({**document, "metadata": metadata})
    wanted.pop("status", None)
    return wanted


def _refused(document: Mapping[str, Any], error: StoreError) -> Applied:
    return Applied(ref_of_document(placed(document)), Outcome.REFUSED, error=error)


def _new(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a writer may give of a new object, with a generated name where only a prefix of one is given."""
    if "status" in document and has_status(group_of(document["apiVersion"]), document["kind"]):
        document = semantics.without_status(document)
    metadata = document["metadata"]
    if metadata.get("name") or not metadata.get("generateName"):
        return document
    suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
    return {**document, "metadata": {**metadata, "name": metadata["generateName"] + suffix}}


def _version(document: Document) -> int:
    return int(document["metadata"]["resourceVersion"])
