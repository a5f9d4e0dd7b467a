"""The one way a derivation reads other collections, so that every read is recorded at the grain it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from propylon.incremental.collection import Collection, Index
from propylon.incremental.dependencies import Dependency, Readers

if TYPE_CHECKING:
    from propylon.incremental.derived import Node

K = TypeVar("K")
V = TypeVar("V")
I = TypeVar("I")  # noqa: E741 - the key of an index


class OrderError(RuntimeError):
    """A derivation looked at a collection created after it, at itself, or at another engine's collection."""


class Look:
    """Reads collections on behalf of the node being computed. Valid only during the call it was passed to."""

    __slots__ = ("_dependencies", "_node")

    def __init__(self) -> None:
        self._node: Node[Any, Any, Any, Any] | None = None
        self._dependencies: list[Dependency] = []

    def get(self, collection: Collection[K, V], key: K) -> V | None:
        """Return the value of `key` or None; depends on that key only."""
        node = self._node  # `_record`, here and in `by` without a call: these two are most of all reads
        if node is None or collection._order >= node._order or collection._engine is not node._engine:
            self._refuse(collection)
        value = collection._values.get(key)
        self._dependencies.append((collection._readers, key))
        return value

    def by(self, index: Index[I, K, V], i: I) -> tuple[tuple[K, V], ...]:
        """Return the (key, value) pairs in bucket `i`, sorted by key; depends on who is in it and on their values."""
        node = self._node
        if node is None or index._order >= node._order or index._engine is not node._engine:
            self._refuse(index)
        members = index._values.get(i)
        self._dependencies.append((index._member_readers, i))
        if members is None:
            return ()
        values = index.over._values
        if len(members) == 1:
            (key,) = members
            return ((key, values[key]),)
        return tuple([(key, values[key]) for key in members])

    def keys(self, index: Index[I, K, V], i: I) -> tuple[K, ...]:
        """Return the sorted keys in bucket `i`; depends on who is in it, not on their values."""
        return self.get(index, i) or ()

    def count(self, index: Index[I, K, V], i: I) -> int:
        """Return how many keys are in bucket `i`; depends on that number only."""
        count = len(index._values.get(i, ()))
        self._record(index, index._count_readers, i)
        return count

    def any(self, index: Index[I, K, V], buckets: Iterable[I]) -> bool:
        """Tell whether one of these buckets has keys in it; depends on their numbers, up to the first that has some."""
        node = self._node
        if node is None or index._order >= node._order or index._engine is not node._engine:
            self._refuse(index)
        values, readers, dependencies = index._values, index._count_readers, self._dependencies
        for i in buckets:
            found = i in values
            dependencies.append((readers, i))
            if found:
                return True
        return False

    def all(self, collection: Collection[K, V]) -> Mapping[K, V]:
        """Return the whole collection in key order, as a mapping that never changes; depends on everything in it."""
        self._record(collection, collection._whole_readers, None)
        return collection.snapshot()

    def _record(self, collection: Collection[Any, Any], readers: Readers, key: Any) -> None:
        node = self._node
        if node is None or collection._order >= node._order or collection._engine is not node._engine:
            self._refuse(collection)
        self._dependencies.append((readers, key))

    def _refuse(self, collection: Collection[Any, Any]) -> NoReturn:
        node = self._node
        if node is None:
            raise OrderError(f"{collection.name!r} was looked at outside of a derivation's call")
        if collection._engine is not node._engine:
            raise OrderError(f"{node.name!r} looked at {collection.name!r}, which belongs to another engine")
        raise OrderError(f"{node.name!r} looked at {collection.name!r}, which was not created before it")
