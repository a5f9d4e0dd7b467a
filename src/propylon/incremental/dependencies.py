"""Who read what: the reverse edges along which a change travels.

A `Cell` is one node of the computation (one input key of one derived collection). A `Readers` register belongs to a
collection and says, for one grain of reading (a key, a bucket's members, its size, everything), which cells read which
key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propylon.incremental.collection import Collection
    from propylon.incremental.derived import Node


FEW = 16
"""Up to so many dependencies are kept as they were read, some twice maybe: to find out costs more than it saves."""


class Cell:
    """One node: the key it is computed for, what its last computation read."""

    __slots__ = ("dependencies", "failed", "key", "owner")

    def __init__(self, owner: Node[Any, Any, Any, Any], key: Any) -> None:
        self.owner = owner
        self.key = key
        self.dependencies: tuple[Dependency, ...] = ()
        self.failed = False

    def depend_on(self, dependencies: Sequence[Dependency]) -> None:
        """Replace what this cell depends on."""
        new = tuple(dependencies if len(dependencies) <= FEW else dict.fromkeys(dependencies))
        if new == self.dependencies:
            return
        old, self.dependencies = self.dependencies, new
        if not old:  # the first computation, and so most of all
            for readers, key in new:
                present = readers._cells.setdefault(key, self)
                if present is not self:
                    if isinstance(present, set):
                        present.add(self)
                    else:
                        readers.add(key, self)
            return
        for readers, key in set(old).difference(new):
            readers.remove(key, self)
        for readers, key in set(new).difference(old):
            readers.add(key, self)


class Readers:
    """The cells that read a collection at one grain, by key."""

    __slots__ = ("_cells", "collection", "grain")

    def __init__(self, collection: Collection[Any, Any], grain: str) -> None:
        self.collection = collection
        self.grain = grain
        # Most keys have one reader; a set for each of 10,000 would cost more than the values.
        self._cells: dict[Any, Cell | set[Cell]] = {}

    def add(self, key: Any, cell: Cell) -> None:
        """Record that `cell` read `key`."""
        present = self._cells.get(key)
        if present is None:
            self._cells[key] = cell
        elif isinstance(present, set):
            present.add(cell)
        elif present is not cell:
            self._cells[key] = {present, cell}

    def remove(self, key: Any, cell: Cell) -> None:
        """Forget that `cell` read `key`."""
        present = self._cells.get(key)
        if present is cell:
            del self._cells[key]
        elif isinstance(present, set):
            present.discard(cell)
            if len(present) == 1:
                self._cells[key] = present.pop()

    def of(self, key: Any) -> Iterable[Cell]:
        """Return the cells that read `key`; marking them does not change the register."""
        present = self._cells.get(key)
        if present is None:
            return ()
        return present if isinstance(present, set) else (present,)

    @property
    def any(self) -> bool:
        """Whether any cell read anything at this grain."""
        return bool(self._cells)


Dependency = tuple[Readers, Any]
