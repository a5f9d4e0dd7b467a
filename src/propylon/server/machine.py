"""What runs on this machine, shown among the stored objects: the Node that it is, and its proxies as Pods.

Such objects are derived from what runs, so that nobody writes them and no database keeps them. Their changes take
resourceVersions of the store, which makes lists and watches as consistent as those of stored objects; a watch from
before the start of the process is told to list again (410).
"""

from __future__ import annotations

import builtins
import datetime as dt
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from propylon.api.meta import ObjectRef
from propylon.server.errors import ApiError
from propylon.store import (
    Changes,
    Document,
    Event,
    EventType,
    Gone,
    GroupKind,
    Listing,
    LocalStore,
    Propagation,
)
from propylon.store.protocol import ref_of_document

POD = GroupKind("", "Pod")
NODE = GroupKind("", "Node")
SHOWN_KINDS = frozenset({POD, NODE})

_PLURALS = {POD: "pods", NODE: "nodes"}
_WHY = {
    POD: "it shows a running proxy; change its Gateway instead",
    NODE: "it shows the machine that propylon runs on",
}


class LogOptions(msgspec.Struct, frozen=True):
    """What is wanted of a container's log (core/v1 PodLogOptions)."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    since: dt.datetime | None = None
    tail: int | None = None
    limit_bytes: int | None = None
    timestamps: bool = False


OwnLog = Callable[[ObjectRef, LogOptions], AsyncIterator[bytes] | None]
"""The log of a pod that this program runs, in pieces; None for a pod that it does not run. Raises ApiError."""

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, Any]).decode


class MachineStore(LocalStore):
    """A local store that also shows what it does not keep. An object that is shown hides a stored one of its name."""

    def __init__(self, directory: Path, *, history: int = 4096, **options: Any) -> None:
        """`history` bounds how many changes of what is shown are remembered for watches; for the other options see
        LocalStore."""
        super().__init__(directory, **options)
        self._shown: dict[ObjectRef, Document] = {}
        self._history: deque[Event] = deque()
        self._history_limit = history
        self._floor = self.resource_version
        self._guard = threading.Lock()

    # -- showing -----------------------------------------------------------------------------------------------------

    def show(self, wanted: Mapping[ObjectRef, Document | None]) -> None:
        """Show these objects from now on as they are here; None stands for one that is gone.

        What is equal to what is shown already changes nothing. Raises StoreUnavailable, and then nothing has changed.
        """
        changes = [change for ref, document in wanted.items() if (change := self._change(ref, document)) is not None]
        if not changes:
            return
        with self._guard:
            before = (dict(self._shown), list(self._history), self._floor)

        def publish(versions: list[int]) -> None:
            with self._guard:
                for version, (type_, ref, document) in zip(versions, changes, strict=True):
                    self._publish(version, type_, ref, document)

        try:
            self.advance(len(changes), publish)
        except BaseException:
            with self._guard:
                self._shown, self._floor = before[0], before[2]
                self._history = deque(before[1])
            raise

    def shown(self, ref: ObjectRef) -> Document | None:
        """The object if it is one of those that are shown and not stored."""
        with self._guard:
            return self._shown.get(ref)

    def shown_refs(self) -> frozenset[ObjectRef]:
        """Everything that is shown and not stored."""
        with self._guard:
            return frozenset(self._shown)

    def _change(self, ref: ObjectRef, document: Document | None) -> tuple[EventType, ObjectRef, Document] | None:
        """What is to be published; None if it is so already."""
        assert GroupKind(ref.group, ref.kind) in SHOWN_KINDS
        held = self.shown(ref)
        if document is None:
            return None if held is None else (EventType.DELETED, ref, held)
        if held is None:
            return EventType.ADDED, ref, document
        return None if _without_version(held) == _without_version(document) else (EventType.MODIFIED, ref, document)

    def _publish(self, version: int, type_: EventType, ref: ObjectRef, document: Document) -> None:
        versioned = {**document, "metadata": {**document["metadata"], "resourceVersion": str(version)}}
        if type_ is EventType.DELETED:
            del self._shown[ref]
        else:
            self._shown[ref] = versioned
        self._history.append(Event(type_, version, ref, _encode(versioned)))
        while len(self._history) > self._history_limit:
            self._floor = self._history.popleft().resource_version

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, ref: ObjectRef) -> Document:
        """The object. Raises NotFound."""
        held = self.shown(ref)
        # A copy, decoded anew, as the store itself hands them out.
        return super().get(ref) if held is None else _decode(_encode(held))

    def list(self, kinds: Sequence[GroupKind] = (), namespace: str | None = None) -> Listing:
        """Objects of these kinds (of all without any), of one namespace if given."""
        # What is shown meanwhile is newer than the listing's version: a watch from there tells it once more.
        listing = super().list(kinds, namespace)
        with self._guard:
            shown = {
                ref: _encode(document)
                for ref, document in self._shown.items()
                if _concerns(ref, kinds) and namespace in (None, ref.namespace)
            }
        if not shown:
            return listing
        merged = sorted({**dict(zip(listing.refs, listing.raw, strict=True)), **shown}.items())
        return Listing(listing.resource_version, tuple(ref for ref, _ in merged), tuple(raw for _, raw in merged))

    def page(self, kind: GroupKind, namespace: str | None, after: tuple[str, str], limit: int) -> tuple[Listing, int]:
        """See LocalStore."""
        if kind not in SHOWN_KINDS:
            return super().page(kind, namespace, after, limit)
        whole = self.list([kind], namespace)
        begin = sum((ref.namespace, ref.name) <= after for ref in whole.refs)
        end = begin + limit
        left = max(0, len(whole) - end)
        return Listing(whole.resource_version, whole.refs[begin:end], whole.raw[begin:end]), left

    def changes_since(self, resource_version: int, kinds: Sequence[GroupKind] = ()) -> Changes:
        """What happened after that version. Raises Gone."""
        changes = super().changes_since(resource_version, kinds)
        newest = changes.resource_version
        with self._guard:
            if resource_version < self._floor and not SHOWN_KINDS.isdisjoint(kinds):
                raise Gone(resource_version, self._floor, newest)
            own = [
                event
                for event in self._history
                if resource_version < event.resource_version <= newest and _concerns(event.ref, kinds)
            ]
        if not own:
            return changes
        return Changes(newest, tuple(sorted((*changes.events, *own), key=lambda event: event.resource_version)))

    # -- writing: what is shown is nobody's to write -----------------------------------------------------------------

    def create(self, document: Mapping[str, Any]) -> Document:
        """See LocalStore. Raises ApiError (403) for the name of an object that is shown."""
        self._refuse(ref_of_document(document))
        return super().create(document)

    def update(self, document: Mapping[str, Any]) -> Document:
        """See LocalStore. Raises ApiError (403) for an object that is shown."""
        self._refuse(ref_of_document(document))
        return super().update(document)

    def patch_status(
        self,
        ref: ObjectRef,
        change: Callable[[Document], Mapping[str, Any] | None],
        resource_version: str = "",
        managed_fields: builtins.list[Any] | None = None,
    ) -> Document:
        """See LocalStore. Raises ApiError (403) for an object that is shown."""
        self._refuse(ref)
        return super().patch_status(ref, change, resource_version, managed_fields)

    def delete(
        self,
        ref: ObjectRef,
        *,
        propagation: Propagation = Propagation.BACKGROUND,
        uid: str = "",
        resource_version: str = "",
    ) -> Document:
        """See LocalStore. Raises ApiError (403) for an object that is shown."""
        self._refuse(ref)
        return super().delete(ref, propagation=propagation, uid=uid, resource_version=resource_version)

    def _refuse(self, ref: ObjectRef) -> None:
        if self.shown(ref) is None:
            return
        kind = GroupKind(ref.group, ref.kind)
        details = {"name": ref.name, "kind": _PLURALS[kind]}
        message = f'{_PLURALS[kind]} "{ref.name}" is forbidden: it is read-only: {_WHY[kind]}'
        raise ApiError(403, "Forbidden", message, details)


def _concerns(ref: ObjectRef, kinds: Sequence[GroupKind]) -> bool:
    return not kinds or (ref.group, ref.kind) in kinds


def _without_version(document: Document) -> Document:
    metadata = {name: value for name, value in document["metadata"].items() if name != "resourceVersion"}
    return {**document, "metadata": metadata}
