"""What one batch did: the changes of every collection, the failures, the counters and, on demand, the trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from propylon.incremental.order import ordered

if TYPE_CHECKING:
    from propylon.incremental.collection import Collection

K = TypeVar("K")
V = TypeVar("V")

Change = tuple[V | None, V | None]
"""(old, new); None means absent."""

Result = Literal["changed", "equal", "removed", "failed"]


class Failure(NamedTuple):
    """A function that raised. Its node keeps the value it had, and is computed again when something it read changes."""

    collection: str
    key: Any
    exception: Exception


class Cause(NamedTuple):
    """A changed input: `grain` tells how it was read (input, get, members, count, all)."""

    collection: str
    key: Any
    grain: str

    def __str__(self) -> str:
        what = self.collection if self.grain == "all" else f"{self.collection}[{self.key}]"
        return what if self.grain in {"input", "get"} else f"{what} ({self.grain})"


class Recomputed(NamedTuple):
    """One node computed in a batch, the inputs that made it so, and whether anything came of it."""

    collection: str
    key: Any
    because: tuple[Cause, ...]
    result: Result


class Commit:
    """The outcome of one batch.

    `failures` are the functions that raised in this batch; `recomputed` and `indexed` count, by collection name, the
    nodes computed and the index entries looked at; `trace` is empty unless `Engine.trace` was on.
    """

    __slots__ = ("_grown", "_merged", "_parts", "failures", "indexed", "recomputed", "trace")

    def __init__(self) -> None:
        self._parts: dict[Collection[Any, Any], list[dict[Any, Change[Any]]]] = {}
        """What each part of the batch changed, as it came. Nobody changes these dicts: who follows reads them too."""
        self._grown: set[Collection[Any, Any]] = set()
        """Where every change is a key that was not there before; of parts of a batch only."""
        self._merged: dict[Collection[Any, Any], dict[Any, Change[Any]]] = {}
        """What was asked for, in order: putting all together would touch hundreds of thousands of objects anew."""
        self.failures: list[Failure] = []
        self.recomputed: dict[str, int] = {}
        self.indexed: dict[str, int] = {}
        self.trace: list[Recomputed] = []

    def changes(self, collection: Collection[K, V]) -> Mapping[K, Change[V]]:
        """Return key -> (old, new) for what changed in `collection`, in key order; empty if nothing did."""
        merged = self._merged.get(collection)
        if merged is None:
            parts = self._parts.get(collection)
            if parts is None:
                return {}
            merged = parts[0]
            if len(parts) > 1:
                merged = {}
                for part in parts:
                    if collection in self._grown:
                        merged.update(part)  # none is in two parts: it would have gone in between
                    else:
                        _join(merged, part)
            merged = self._merged[collection] = ordered(merged)
        return merged

    @property
    def changed(self) -> bool:
        """Whether any collection changed."""
        return bool(self._parts)

    @property
    def collections(self) -> tuple[Collection[Any, Any], ...]:
        """The collections that changed, in the order they were created."""
        return tuple(self._parts)

    @property
    def total_recomputed(self) -> int:
        """How many nodes were computed."""
        return sum(self.recomputed.values())

    def _continue(self, later: Commit) -> None:
        """Add what a later part of the same batch did; `_finish` is to follow the last one."""
        for collection, parts in later._parts.items():
            mine = self._parts.setdefault(collection, [])
            if collection in later._grown and (not mine or collection in self._grown):
                self._grown.add(collection)
            else:
                self._grown.discard(collection)
            mine += parts
            self._merged.pop(collection, None)
        self.failures += later.failures
        self.trace += later.trace
        for counts, more in ((self.recomputed, later.recomputed), (self.indexed, later.indexed)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count

    def _finish(self) -> None:
        for collection, parts in tuple(self._parts.items()):
            if len(parts) > 1 and collection not in self._grown and not self.changes(collection):
                del self._parts[collection]  # all is as it was
                del self._merged[collection]

    def explain(self) -> str:
        """Tell the batch as text: one line per changed source key and per recomputed node."""
        if not self.trace:
            counts = ", ".join(f"{name}: {count}" for name, count in self.recomputed.items())
            return f"recomputed {counts}" if counts else "nothing recomputed"
        lines = []
        for step in self.trace:
            because = ", ".join(map(str, step.because)) or "first computation"
            lines.append(f"{step.collection}[{step.key}] {step.result} because of {because}")
        lines.extend(f"{name}[{key}] raised {type(error).__name__}: {error}" for name, key, error in self.failures)
        return "\n".join(lines)


class Observation(Generic[K, V]):
    """Changes of one collection gathered over any number of commits, for a consumer with a pace of its own."""

    __slots__ = ("_gathered", "collection")

    def __init__(self, collection: Collection[K, V]) -> None:
        self.collection = collection
        self._gathered: dict[K, Change[V]] = {key: (None, value) for key, value in collection.items()}

    def _gather(self, changes: Mapping[K, Change[V]]) -> None:
        _join(self._gathered, changes)

    def take(self) -> dict[K, Change[V]]:
        """Return key -> (old, new) since the last call; the first call starts from an empty collection."""
        gathered, self._gathered = self._gathered, {}
        return gathered


def _join(gathered: dict[K, Change[V]], changes: Mapping[K, Change[V]]) -> None:
    """Add later changes to earlier ones, of which the state before the first counts; what is as it was is no change."""
    for key, (old, new) in changes.items():
        if key in gathered:
            old = gathered[key][0]  # noqa: PLW2901
        if old is new or (old is not None and old == new):
            gathered.pop(key, None)
        else:
            gathered[key] = (old, new)
