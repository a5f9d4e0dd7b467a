"""Derived collections: the output of a pure function per input key, recomputed only when something it read changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from propylon.incremental.collection import Collection, in_order
from propylon.incremental.commit import Cause, Change, Commit, Failure, Recomputed, Result
from propylon.incremental.dependencies import Cell
from propylon.incremental.look import Look

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

    __slots__ = ("_cells", "_fn", "over")

    def __init__(self, engine: Engine, name: str, over: Collection[K, V], fn: Callable[[K, V, Look], Any]) -> None:
        super().__init__(engine, name)
        self.over = over
        self._fn = fn
        self._cells: dict[K, Cell] = {}
        """Of those nodes that read something, or that failed."""
        self._follow(over)

    def _settle(self, commit: Commit) -> dict[K2, Change[R]]:
        if not self._dirty:
            return {}
        dirty: dict[Any, tuple[Cause, ...]] = self._take_dirty()
        changes: dict[K2, Change[R]] = {}
        recomputed = 0
        values, trace = self.over._values, self._engine.trace
        for key, causes in dirty.items():
            value = values.get(key)
            if value is None:
                self._drop(key)
                result: Result = "removed"
                self._accept(key, None, changes)
            else:
                recomputed += 1
                result = self._recompute(key, value, changes, commit)
            if trace:
                commit.trace.append(Recomputed(self.name, key, causes, result))
        if recomputed:
            commit.recomputed[self.name] = recomputed
        return self._finish(changes)

    def _recompute(self, key: K, value: V, changes: dict[K2, Change[R]], commit: Commit) -> Result:
        cell = self._cells.get(key)
        look = self._engine._look
        look._node, look._dependencies = self, []
        try:
            output = self._fn(key, value, look)
            changed = self._accept(key, output, changes)
        except Exception as error:  # noqa: BLE001 - a function's failure is data; the batch goes on
            commit.failures.append(Failure(self.name, key, error))
            self._engine._failing[self.name, key] = error
            if cell is None:
                cell = self._cells[key] = Cell(self, key)
            cell.failed = True
            return "failed"
        finally:
            look._node = None
            if cell is None and look._dependencies:
                cell = self._cells[key] = Cell(self, key)
            if cell is not None:
                cell.depend_on(look._dependencies)
        if cell is not None and cell.failed:
            cell.failed = False
            self._engine._failing.pop((self.name, key), None)
        return "changed" if changed else "equal"

    def _drop(self, key: K) -> None:
        cell = self._cells.pop(key, None)
        if cell is not None:
            cell.depend_on(())
            if cell.failed:
                self._engine._failing.pop((self.name, key), None)

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
        """No set: what comes in order of inputs mostly is in order of outputs too, and so nearly sorted."""

    @property
    def clashes(self) -> Mapping[K2, tuple[K, ...]]:
        """Output keys that several inputs produce, with these inputs; the first one's value is in the collection."""
        return {key: claimants for key, claimants in self._claims.items() if len(claimants) > 1}

    def _accept(self, key: K, output: Any, changes: dict[K2, Change[R]]) -> bool:
        old = self._parts.get(key)
        if not output and old is None:
            return False
        new: dict[K2, R] = {k: v for k, v in output.items() if v is not None} if output else {}
        if old is None:
            return self._accept_first(key, new)
        differing = [k for k, v in new.items() if k not in old or not (old[k] is v or old[k] == v)]
        gone = [k for k in old if k not in new]
        if not differing and not gone:
            return False
        for k in differing:
            if k not in old:
                claimants = self._claims.get(k)
                self._claims[k] = (key,) if claimants is None else tuple(in_order((*claimants, key)))
        for k in gone:
            remaining = tuple(claimant for claimant in self._claims[k] if claimant != key)
            if remaining:
                self._claims[k] = remaining
            else:
                del self._claims[k]
        if new:
            self._parts[key] = new
        else:
            self._parts.pop(key, None)
        self._touched.update(dict.fromkeys(differing))
        self._touched.update(dict.fromkeys(gone))
        return True

    def _accept_first(self, key: K, new: dict[K2, R]) -> bool:
        """Take over the outputs of an input that had none; at the start, that is every one."""
        if not new:
            return False
        own = (key,)
        for k in new:
            claimants = self._claims.setdefault(k, own)
            if claimants is not own:
                self._claims[k] = tuple(in_order((*claimants, key)))
            self._touched[k] = None
        self._parts[key] = new
        return True

    def _finish(self, changes: dict[K2, Change[R]]) -> dict[K2, Change[R]]:
        # Only now, when every input has spoken, is it known who wins a key: an output may move between inputs.
        if not self._touched:
            return changes
        touched, self._touched = self._touched, {}
        own, claims, parts = self._values, self._claims, self._parts
        for key in in_order(touched):
            claimants = claims.get(key)
            if claimants is None:
                self._store(key, None, changes)
            elif key in own:
                self._store(key, parts[claimants[0]][key], changes)
            else:
                value = own[key] = parts[claimants[0]][key]
                changes[key] = (None, value)
        return changes
