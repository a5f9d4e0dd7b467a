"""Derived collections: the output of a pure function per input key, recomputed only when something it read changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from propylon.incremental.collection import Collection
from propylon.incremental.commit import Change, Commit, Failure, Recomputed, Result
from propylon.incremental.dependencies import Cell, Dependency
from propylon.incremental.look import CLOSED, Look
from propylon.incremental.order import in_order

if TYPE_CHECKING:
    from propylon.incremental.engine import Engine

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
R = TypeVar("R")


class Node(Collection[K2, R], Generic[K, V, K2, R]):
    """What both kinds of derivation share: one cell per input key, recomputed when marked.

    A function that raises leaves its cell's output as it was; what it read until then is what makes it run again.
    """

    __slots__ = ("_cells", "_fn", "_look", "over")

    def __init__(self, engine: Engine, name: str, over: Collection[K, V], fn: Callable[[K, V, Look], Any]) -> None:
        super().__init__(engine, name)
        self.over = over
        self._fn = fn
        self._look = Look(self)
        self._cells: dict[K, Cell] = {}
        """Of those nodes that read something."""
        self._follow(over)

    def _settle(self, commit: Commit) -> dict[K2, Change[R]]:
        # One loop with everything at hand: a start comes here many times a route. What is rare is a call.
        marked = self._dirty
        work, count, is_known = self._take(self.over)
        if not count:
            return {}
        changes: dict[K2, Change[R]] = {}
        own: dict[Any, Any] = self._values
        fn, look, cells, accept, is_plain = self._fn, self._look, self._cells, self._accept, isinstance(self, Derived)
        failing, trace, removed = self._engine._failing, self._engine.trace, 0
        look._read = read = list[Dependency]()
        try:
            for key, (before, value) in work:
                if value is None:
                    removed += 1
                    self._drop(key, changes)
                    if trace:
                        commit.trace.append(Recomputed(self.name, key, marked.get(key, ()), "removed"))
                    continue
                if read:  # of the node before, which keeps it
                    look._read = read = []
                result: Result
                try:
                    output = fn(key, value, look)
                    if is_plain and output is not None and key not in own:  # as `accept` would, without a call
                        own[key] = output
                        changes[key] = (None, output)
                        result = "changed"
                    else:
                        result = "changed" if accept(key, output, changes) else "equal"
                    if failing:
                        failing.pop((self.name, key), None)
                except Exception as error:  # noqa: BLE001 - a function's failure is data; the batch goes on
                    self._fail(key, error, commit)
                    result = "failed"
                cell = None if is_known and before is None else cells.get(key)
                if cell is not None:
                    cell.depend_on(read or [])
                elif read:
                    cells[key] = cell = Cell()
                    cell.owner, cell.key, cell.dependencies = self, key, read
                    for readers, read_key in read:
                        present = readers.setdefault(read_key, cell)
                        if present is not cell:
                            if isinstance(present, set):  # many readers, so no call for each
                                present.add(cell)
                            else:
                                readers.share(read_key, present, cell)
                if trace:
                    commit.trace.append(Recomputed(self.name, key, marked.get(key, ()), result))
        finally:
            look._read = CLOSED
        if recomputed := count - removed:
            commit.recomputed[self.name] = recomputed
        return self._finish(changes)

    def _fail(self, key: K, error: Exception, commit: Commit) -> None:
        commit.failures.append(Failure(self.name, key, error))
        self._engine._failing[self.name, key] = error

    def _drop(self, key: K, changes: dict[K2, Change[R]]) -> None:
        cell = self._cells.pop(key, None)
        if cell is not None:
            cell.depend_on([])
        self._engine._failing.pop((self.name, key), None)
        self._accept(key, None, changes)

    def _accept(self, key: K, output: Any, changes: dict[K2, Change[R]]) -> bool:
        """Take over the output for an input key (None: it has none) and tell whether it differs from the last one."""
        raise NotImplementedError

    def _finish(self, changes: dict[K2, Change[R]]) -> dict[K2, Change[R]]:
        return changes


class Derived(Node[K, V, K, R]):
    """One output per input key, under the same key; a function that returns None leaves the key absent."""

    __slots__ = ()

    _accept = Collection._store  # type: ignore[assignment]  # an output is a value here: no call in between


class FlatDerived(Node[K, V, K2, R]):
    """Any number of outputs per input key, merged into one collection.

    Inputs are meant to produce disjoint keys. Where they clash, the smallest input key wins, whatever the order of
    arrival; `clashes` tells the losers.
    """

    __slots__ = ("_claims", "_parts", "_touched")

    def __init__(self, engine: Engine, name: str, over: Collection[K, V], fn: Callable[[K, V, Look], Any]) -> None:
        super().__init__(engine, name, over, fn)
        self._parts: dict[K, dict[K2, R]] = {}
        self._claims: dict[K2, tuple[K, ...]] = {}
        self._touched: dict[K2, None] = {}
        """Outputs of which a batch says something, and that were there or have several inputs."""

    @property
    def clashes(self) -> Mapping[K2, tuple[K, ...]]:
        """Output keys that several inputs produce, with these inputs; the first one's value is in the collection."""
        return {key: claimants for key, claimants in self._claims.items() if len(claimants) > 1}

    def _accept(self, key: K, output: Any, changes: dict[K2, Change[R]]) -> bool:
        if not output:
            return key in self._parts and self._replace(key, self._parts[key], {}, changes)
        new: dict[K2, R] = output if type(output) is dict else dict(output)
        old = self._parts.setdefault(key, new)
        if old is not new:
            return self._replace(key, old, _without_none(new), changes)
        # The first outputs of this input, as everything is at a start. What nobody else produces is in the collection
        # at once; the rest is up to `_finish`.
        claims, values, own = self._claims, self._values, (key,)
        has_none = False
        for k, v in new.items():
            if v is None:
                has_none = True
                continue
            claimants = claims.setdefault(k, own)
            if claimants is own and k not in values:
                values[k] = v
                changes[k] = (None, v)
            else:
                self._contest(k, key, changes)
        if has_none:
            new = self._parts[key] = _without_none(new)
            if not new:
                del self._parts[key]
        return bool(new)

    def _contest(self, k: K2, key: K, changes: dict[K2, Change[R]]) -> None:
        """Note that an input has an output that others have, or that was there before: `_finish` will decide."""
        claimants = self._claims.get(k, ())
        if key not in claimants:
            self._claims[k] = tuple(in_order((*claimants, key)))
        if changes.pop(k, None):
            del self._values[k]  # it was taken over at once, in this batch
        self._touched[k] = None

    def _replace(self, key: K, old: dict[K2, R], new: dict[K2, R], changes: dict[K2, Change[R]]) -> bool:
        """Take over other outputs of an input that has had some."""
        differing = [k for k, v in new.items() if k not in old or not (old[k] is v or old[k] == v)]
        gone = [k for k in old if k not in new]
        if not differing and not gone:
            return False
        for k in differing:
            self._contest(k, key, changes)
        for k in gone:
            remaining = tuple(claimant for claimant in self._claims[k] if claimant != key)
            if remaining:
                self._claims[k] = remaining
            else:
                del self._claims[k]
            self._touched[k] = None
        if new:
            self._parts[key] = new
        else:
            del self._parts[key]
        return True

    def _finish(self, changes: dict[K2, Change[R]]) -> dict[K2, Change[R]]:
        # Only now, when every input has spoken, is it known who wins a key: an output may move between inputs.
        if self._touched:
            touched, self._touched = self._touched, {}
            claims, parts = self._claims, self._parts
            for key in touched:
                claimants = claims.get(key)
                self._store(key, None if claimants is None else parts[claimants[0]][key], changes)
        return changes


def _without_none(output: dict[K2, R]) -> dict[K2, R]:
    return {k: v for k, v in output.items() if v is not None}
