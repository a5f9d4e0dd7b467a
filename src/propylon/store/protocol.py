"""What every store offers, wherever its objects live. Documents go in and come out raw: as the dicts that JSON makes.

An object is named by `ObjectRef(group, kind, namespace, name)`; the version in its apiVersion is how it is written,
not which object it is. resourceVersions are integers here and decimal strings in documents, as on the wire.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from propylon.api.meta import ObjectRef, group_of

Document = dict[str, Any]
"""A raw object, as JSON makes it. Never changed in place once it was handed to or out of a store."""

_decode = msgspec.json.Decoder().decode


class GroupKind(NamedTuple):
    """A kind of objects; `group` is "" for the core group."""

    group: str
    kind: str


class EventType(StrEnum):
    """What happened to an object; BOOKMARK speaks of no object, only of how far the watch has come."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Event(msgspec.Struct, frozen=True):
    """One change. `raw` is the object's JSON at `resource_version` (for DELETED: as it was last), empty for
    BOOKMARK."""

    type: EventType
    resource_version: int
    ref: ObjectRef
    raw: bytes

    @property
    def document(self) -> Document:
        """The object, decoded anew at each call."""
        document: Document = _decode(self.raw)
        return document


class Listing(msgspec.Struct, frozen=True):
    """Objects as they were at one `resource_version`, ordered by group, kind, namespace and name.

    The bytes of an object begin with its apiVersion, then its kind.
    """

    resource_version: int
    refs: tuple[ObjectRef, ...]
    raw: tuple[bytes, ...]

    @property
    def documents(self) -> list[Document]:
        """The objects, decoded anew at each call."""
        return [_decode(raw) for raw in self.raw]

    def __len__(self) -> int:
        return len(self.raw)


class Changes(msgspec.Struct, frozen=True):
    """Events in the order of their resourceVersions; ask again with `resource_version` for those that follow."""

    resource_version: int
    events: tuple[Event, ...]


class AppliedDocument(msgspec.Struct, frozen=True):
    """What a manager applied last to an object, and where it had it from (a file, say; "" if it did not tell)."""

    document: Document
    source: str


class Outcome(StrEnum):
    """What an apply did."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Applied(msgspec.Struct, frozen=True):
    """One document's apply. `error` is set when and only when it was refused; `notices` are for people to read."""

    ref: ObjectRef
    outcome: Outcome
    resource_version: int = 0
    notices: tuple[str, ...] = ()
    error: Exception | None = None


class Propagation(StrEnum):
    """What happens to the objects that name the deleted one as their owner (Kubernetes' deletion propagation
    policies)."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


class Watch(Protocol):
    """A running watch. Batches hold whatever has happened since the last one; the first holds the initial objects, if
    asked."""

    async def next_batch(self) -> tuple[Event, ...]:
        """Wait for changes and return all that are there.

        Raises Gone when the watch fell behind the retained changes."""

    def close(self) -> None:
        """Forget the watch."""


class Store(Protocol):
    """Read, write and watch objects. Reads and writes are synchronous and safe from any thread.

    Every method may raise StoreUnavailable; those that write, ReadOnly.
    """

    @property
    def resource_version(self) -> int:
        """The version of the latest change; 0 in a store that never held anything."""

    def get(self, ref: ObjectRef) -> Document:
        """The object. Raises NotFound."""

    def list(self, kinds: Sequence[GroupKind] = (), namespace: str | None = None) -> Listing:
        """All objects of these kinds (of all kinds without any), of one namespace if given."""

    def create(self, document: Mapping[str, Any]) -> Document:
        """Store a new object and return it as stored. Raises AlreadyExists, Forbidden, Invalid, NotFound (its
        namespace)."""

    def update(self, document: Mapping[str, Any]) -> Document:
        """Replace all of an object but its status. Raises Conflict, Invalid, NotFound."""

    def patch_status(
        self, ref: ObjectRef, change: Callable[[Document], Mapping[str, Any] | None], resource_version: str = ""
    ) -> Document:
        """Replace an object's status by what `change` makes of the whole stored object (None: no status).

        Raises Conflict if `resource_version` is given and not the stored one, NotFound, Invalid.
        """

    def delete(
        self,
        ref: ObjectRef,
        *,
        propagation: Propagation = Propagation.BACKGROUND,
        uid: str = "",
        resource_version: str = "",
    ) -> Document:
        """Delete an object, or mark it as being deleted while finalizers hold it; return its last state.

        Raises NotFound; Conflict when `uid` or `resource_version` is given and differs.
        """

    def apply(
        self, document: Mapping[str, Any], manager: str, *, create_namespace: bool = False, source: str = ""
    ) -> Applied:
        """Make the object hold what `manager` wants of it, and only take away what `manager` put there before.

        `source` is remembered with it. Raises Forbidden, Invalid, NotFound (its namespace, unless `create_namespace`).
        """

    def apply_many(
        self,
        documents: Sequence[Mapping[str, Any]],
        manager: str,
        *,
        create_namespace: bool = False,
        sources: Sequence[str] = (),
        checked: bool = False,
    ) -> builtins.list[Applied]:
        """Apply in one transaction; a refused document is reported and stops no other.

        `sources`, if given, are parallel to the documents. `checked` says that each passed validation by itself.
        """

    def applied_by(self, manager: str) -> dict[ObjectRef, AppliedDocument]:
        """What this manager applied last, by object."""

    def release(self, ref: ObjectRef, manager: str) -> None:
        """Forget that this manager applied the object, which stays as it is."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything written inside becomes durable and visible to watches together, or not at all."""

    def changes_since(self, resource_version: int, kinds: Sequence[GroupKind] = ()) -> Changes:
        """What happened after that version. Raises Gone."""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after every commit, in the writer's thread; returns what ends it. `wake` must be quick and not
        raise."""

    def watch(self, kinds: Sequence[GroupKind] = (), since: int | None = None) -> AsyncIterator[Event]:
        """Events after `since`; without it, first every object as ADDED and a BOOKMARK, then what follows. Raises
        Gone."""


def ref_of_document(document: Mapping[str, Any]) -> ObjectRef:
    """The reference of a raw object whose apiVersion, kind and metadata.name are present."""
    metadata = document["metadata"]
    return ObjectRef(
        group_of(document["apiVersion"]), document["kind"], metadata.get("namespace") or "", metadata.get("name") or ""
    )
