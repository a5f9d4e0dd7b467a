"""The one way a derivation reads other collections, so that every read is recorded at the grain it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from propylon.incremental.collection import Collection, Index
from propylon.incremental.dependencies import Dependency, Readers

if TYPE_CHECKING:
    from propylon.incremental.derived import Node

K = TypeVar("K")
V = TypeVar("V")
I = TypeVar("I")  # noqa: E741 - the key of an index


class OrderError(RuntimeError):
    """A derivation looked at a collection created after it, at itself, or at another engine's collection."""


class _Closed(list[Dependency]):
    """What a Look adds to while its node is not being computed: nothing may be."""

    def append(self, dependency: Dependency) -> None:
        readers, _ = dependency
        raise OrderError(f"{readers.collection.name!r} was looked at outside of a derivation's call")


CLOSED = _Closed()


class Look:
    """Reads collections on behalf of the node being computed. Valid only during the call it was passed to."""

    __slots__ = ("_by", "_count", "_get", "_node", "_read")

    def __init__(self, node: Node[Any, Any, Any, Any]) -> None:
        self._node = node
        self._read: list[Dependency] = CLOSED
        """What the call in progress read: a new list for each, which its cell keeps."""
        # Who may look at a collection once may do so always: what is needed for it is kept, by the way of reading.
        self._get: dict[Collection[Any, Any], tuple[Callable[[Any], Any], Readers]] = {}
        self._by: dict[Index[Any, Any, Any], tuple[Callable[[Any], Any], Readers, dict[Any, Any]]] = {}
        self._count: dict[Index[Any, Any, Any], tuple[dict[Any, tuple[Any, ...]], Readers]] = {}

    def get(self, collection: Collection[K, V], key: K) -> V | None:
        """Return the value of `key` or None; depends on that key only."""
        try:
            find, readers = self._get[collection]
        except KeyError:
            self._admit(collection)
            find, readers = self._get[collection] = (collection._values.get, collection._readers)
        value: V | None = find(key)
        self._read.append((readers, key))
        return value

    def by(self, index: Index[I, K, V], i: I) -> tuple[tuple[K, V], ...]:
        """Return the (key, value) pairs in bucket `i`, sorted by key; depends on who is in it and on their values."""
        try:
            find, readers, values = self._by[index]
        except KeyError:
            self._admit(index)
            find, readers, values = self._by[index] = (index._values.get, index._member_readers, index.over._values)
        members = find(i)
        self._read.append((readers, i))
        if members is None:
            return ()
        if len(members) == 1:
            (key,) = members
            return ((key, values[key]),)
        return tuple([(key, values[key]) for key in members])

    def keys(self, index: Index[I, K, V], i: I) -> tuple[K, ...]:
        """Return the sorted keys in bucket `i`; depends on who is in it, not on their values."""
        return self.get(index, i) or ()

    def count(self, index: Index[I, K, V], i: I) -> int:
        """Return how many keys are in bucket `i`; depends on that number only."""
        try:
            values, readers = self._count[index]
        except KeyError:
            values, readers = self._counted(index)
        found = len(values.get(i, ()))
        self._read.append((readers, i))
        return found

    def any(self, index: Index[I, K, V], buckets: Iterable[I]) -> bool:
        """Tell whether one of these buckets has keys in it; depends on their numbers, up to the first that has some."""
        try:
            values, readers = self._count[index]
        except KeyError:
            values, readers = self._counted(index)
        for i in buckets:
            found = i in values
            self._read.append((readers, i))
            if found:
                return True
        return False

    def all(self, collection: Collection[K, V]) -> Mapping[K, V]:
        """Return the whole collection in key order, as a mapping that never changes; depends on everything in it."""
        self._admit(collection)
        self._read.append((collection._whole_readers, None))
        return collection.snapshot()

    def _counted(self, index: Index[Any, Any, Any]) -> tuple[dict[Any, tuple[Any, ...]], Readers]:
        self._admit(index)
        self._count[index] = found = (index._values, index._count_readers)
        return found

    def _admit(self, collection: Collection[Any, Any]) -> None:
        """Raise OrderError unless the node may look at this collection."""
        node = self._node
        if collection._engine is not node._engine:
            raise OrderError(f"{node.name!r} looked at {collection.name!r}, which belongs to another engine")
        if collection._order >= node._order:
            raise OrderError(f"{node.name!r} looked at {collection.name!r}, which was not created before it")
