"""Several collections with disjoint keys, seen as one."""

from typing import Any, TypeVar

from propylon.incremental.collection import Collection
from propylon.incremental.commit import Commit
from propylon.incremental.engine import Engine

K = TypeVar("K")
V = TypeVar("V")


class Union(Collection[K, V]):
    """All entries of its parts; should a key be in several of them, the first part counts."""

    __slots__ = ("_parts",)

    def __init__(self, engine: Engine, name: str, *parts: Collection[K, V]) -> None:
        super().__init__(engine, name)
        self._parts = parts
        for part in parts:
            part._followers.append(self)
            self._dirty.update(dict.fromkeys(part._values, ()))

    def _settle(self, commit: Commit) -> dict[K, tuple[V | None, V | None]]:
        dirty, self._dirty = self._dirty, {}
        changes: dict[Any, tuple[V | None, V | None]] = {}
        parts = [part._values for part in self._parts if part._values]
        store = self._store
        for key in dirty:
            for values in parts:
                if (value := values.get(key)) is not None:
                    store(key, value, changes)
                    break
            else:
                store(key, None, changes)
        return changes
