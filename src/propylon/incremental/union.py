"""Several collections with disjoint keys, seen as one."""

from typing import Any, TypeVar

from propylon.incremental.collection import Collection
from propylon.incremental.commit import Commit
from propylon.incremental.engine import Engine

K = TypeVar("K")
V = TypeVar("V")


class Union(Collection[K, V]):
    """All entries of its parts; should a key be in several of them, the first part counts."""

    __slots__ = ("_parts", "_settled_in_order")

    def __init__(self, engine: Engine, name: str, *parts: Collection[K, V]) -> None:
        super().__init__(engine, name)
        self._parts = parts
        self._settled_in_order = False
        for part in parts:
            part._followers.append(self)
            self._dirty.update(dict.fromkeys(part._values, ()))

    def _settle(self, commit: Commit) -> dict[K, tuple[V | None, V | None]]:
        dirty, self._dirty = self._dirty, {}
        self._settled_in_order = self._in_order
        changes: dict[Any, tuple[V | None, V | None]] = {}
        parts = [part._values for part in self._parts if part._values]
        own, store = self._values, self._store
        for key in dirty:
            value: V | None = None
            for values in parts:
                if (value := values.get(key)) is not None:
                    break
            if value is not None and key not in own:
                own[key] = value
                changes[key] = (None, value)
            else:
                store(key, value, changes)
        return changes

    @property
    def _changes_in_order(self) -> bool:
        return self._settled_in_order
