"""Collections that are put together when somebody asks: what changes in parts, for those who look at the whole."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from propylon.incremental import Collection, Engine

K = TypeVar("K")
V = TypeVar("V")


class Assembled(Generic[K, V]):
    """What `build(key, part)` makes of every entry of a collection, made on demand and kept until the next batch.

    `build` may read committed collections. Derivations cannot look at it: what they depend on would not be known.
    """

    def __init__(self, engine: Engine, over: Collection[K, Any], build: Callable[[K, Any], V]) -> None:
        self._engine = engine
        self._over = over
        self._build = build
        self._made: dict[K, V] = {}
        self._made_at = -1

    def get(self, key: K) -> V | None:
        """Return the whole of `key`, or None."""
        part = self._over.get(key)
        if part is None:
            return None
        if self._made_at != self._engine.batches:
            self._made, self._made_at = {}, self._engine.batches
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._build(key, part)
        return made

    def items(self) -> Iterable[tuple[K, V]]:
        """Return the (key, whole) pairs in key order."""
        return self.snapshot().items()

    def snapshot(self) -> Mapping[K, V]:
        """Return everything in key order."""
        return {key: whole for key in self._over if (whole := self.get(key)) is not None}

    def __iter__(self) -> Iterator[K]:
        return iter(self._over)

    def __len__(self) -> int:
        return len(self._over)

    def __contains__(self, key: object) -> bool:
        return key in self._over

    def __bool__(self) -> bool:
        return True  # as with collections: empty is still there
