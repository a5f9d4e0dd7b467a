"""The engine: owns the collections of one computation and runs its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from propylon.incremental.collection import Collection, Source
from propylon.incremental.commit import Commit, Observation
from propylon.incremental.derived import Derived, FlatDerived
from propylon.incremental.look import Look

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
R = TypeVar("R")

OTHERS = 1 << 20
"""Added to the order of collections that are not computed ahead, so that these come after all that are."""


class Engine:
    """A graph of collections, recomputed in batches. Not thread-safe; nothing in it waits.

    The order of creation is the order of computation: a derivation may look at what was created before it.
    """

    def __init__(self) -> None:
        self.trace = False
        """Whether commits record every recomputed node with its causes. Costs time and memory."""
        self.batches = 0
        """How many commits changed anything; what was read from collections holds while it stays the same."""
        self._collections: dict[int, Collection[Any, Any]] = {}
        """By order, in the order of creation."""
        self._is_ahead = False
        self._begun: Commit | None = None
        """What `advance` did since the last commit."""
        self._due: set[int] = set()
        """The orders of the collections that have something to work off: in most batches a few of a hundred."""
        self._names: set[str] = set()
        self._observations: list[Observation[Any, Any]] = []
        self._failing: dict[tuple[str, Any], Exception] = {}
        self._committing = False

    def source(self, name: str) -> Source[Any, Any]:
        """Create a collection fed from outside. Annotate the result with its key and value types.

        Raises ValueError if the name is taken.
        """
        return Source(self, name)

    def derive(self, name: str, over: Collection[K, V], fn: Callable[[K, V, Look], R | None]) -> Derived[K, V, R]:
        """Create a collection of `fn(key, value, look)` per key of `over`; None leaves the key absent.

        `fn` is pure: it reads its arguments and other collections through `look`, nothing else.
        Raises ValueError if the name is taken.
        """
        return Derived(self, name, over, fn)

    def flat_derive(
        self, name: str, over: Collection[K, V], fn: Callable[[K, V, Look], Mapping[K2, V2]]
    ) -> FlatDerived[K, V, K2, V2]:
        """Create a collection that merges the mappings `fn(key, value, look)`; on a clash the smallest input key wins.

        Raises ValueError if the name is taken.
        """
        return FlatDerived(self, name, over, fn)

    def observe(self, collection: Collection[K, V]) -> Observation[K, V]:
        """Gather the changes of `collection` over commits, beginning with all it holds now."""
        observation = Observation(collection)
        self._observations.append(observation)
        return observation

    def unobserve(self, observation: Observation[Any, Any]) -> None:
        """Stop gathering for `observation`."""
        self._observations = [other for other in self._observations if other is not observation]

    @property
    def collections(self) -> tuple[Collection[Any, Any], ...]:
        """Every collection, in the order of creation."""
        return tuple(self._collections.values())

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Have the collections created meanwhile computed by `advance` too, and before all others in a commit.

        They can look at one another only. A derivation that looks at another collection raises OrderError.
        """
        before, self._is_ahead = self._is_ahead, True
        try:
            yield
        finally:
            self._is_ahead = before

    @property
    def has_work(self) -> bool:
        """Whether a commit would have anything to look at."""
        return bool(self._due) or self._begun is not None

    @property
    def failing(self) -> Mapping[tuple[str, Any], Exception]:
        """The nodes whose last computation raised, by (collection name, key), and what they raised."""
        return dict(self._failing)

    def commit(self) -> Commit:
        """Run one batch: take in what is queued, recompute what it touches, each node once; stop where nothing changes.

        Raises RuntimeError when called by a derivation. Exceptions of user functions do not escape: `Commit.failures`.
        """
        commit = self._run(2 * OTHERS, is_part=self._begun is not None)
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun._continue(commit)
            begun._finish()
            commit = begun
        if commit.changed:
            self.batches += 1
            for observation in self._observations:
                if observation.collection in commit._parts:
                    observation._gather(commit.changes(observation.collection))
        return commit

    def advance(self) -> Commit:
        """Begin a batch: take in what is queued and compute what was created under `ahead`; the commit does the rest.

        Can be repeated with more in the queue, so that who works with these collections need not wait for all. What
        it returns is what this call changed; the commit tells of all calls since the one before, and until then
        observations see nothing. Raises RuntimeError when called by a derivation.
        """
        commit = self._run(OTHERS, is_part=True)
        self._begin(commit)
        return commit

    def step(self, before: Collection[Any, Any] | None = None) -> bool:
        """Compute one collection more of a batch, whichever is next, of those that were created before another one;
        False if nothing is left of them.

        For who has other things to do in the middle of a large batch. Raises RuntimeError when called by a derivation.
        """
        if not self._due or (before is not None and min(self._due) >= before._order):
            return False
        self._begin(self._run(min(self._due) + 1, is_part=True))
        return True

    @property
    def begun(self) -> Commit:
        """What `advance` and `step` have changed since the last commit."""
        return self._begun or Commit()

    def _begin(self, commit: Commit) -> None:
        if commit.changed:
            self.batches += 1
        if self._begun is None:
            self._begun = Commit()
        self._begun._continue(commit)

    def _run(self, end: int, is_part: bool) -> Commit:
        """Settle the collections whose order is below `end`; a part of a batch is to be put together with others."""
        self._forbid_in_commit("a commit was asked for")
        self._committing = True
        commit = Commit()
        try:
            due = self._due
            while due:
                order = min(due)  # what is marked meanwhile was created later
                if order >= end:
                    break
                due.discard(order)
                collection = self._collections[order]
                before = len(collection._values) if is_part else 0
                changes = collection._settle(commit)
                if changes:
                    commit._parts[collection] = [changes]
                    only_new = is_part and len(collection._values) == before + len(changes)
                    if only_new:
                        commit._grown.add(collection)
                    collection._spread(changes, only_new)
        finally:
            self._committing = False
        return commit

    def _adopt(self, collection: Collection[Any, Any]) -> int:
        self._forbid_in_commit("a collection was created")
        if collection.name in self._names:
            raise ValueError(f"there is a collection named {collection.name!r} already")
        self._names.add(collection.name)
        order = len(self._collections) + (0 if self._is_ahead else OTHERS)
        self._collections[order] = collection
        self._due.add(order)
        return order

    def _forbid_in_commit(self, what: str) -> None:
        if self._committing:
            raise RuntimeError(f"{what} in the middle of a commit; derivations must be pure")
