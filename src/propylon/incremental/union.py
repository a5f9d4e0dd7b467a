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
        news, self._news = self._news, []
        dirty, self._dirty = self._dirty, {}
        if len(news) == 1 and not dirty:
            part, told, _ = news[0]
            if not any(other._values for other in self._parts if other is not part):
                self._mirror(told)
                return told
        for _, told, _ in news:
            dirty.update(dict.fromkeys(told, ()))
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

    def _mirror(self, changes: dict[K, tuple[V | None, V | None]]) -> None:
        # One part has all there is, and had it before, as no other told of anything: its changes are those of all.
        own = self._values
        for key, (_, value) in changes.items():
            if value is None:
                del own[key]
            else:
                own[key] = value
