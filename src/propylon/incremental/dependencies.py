"""Who read what: the reverse edges along which a change travels.

A `Cell` is one node of the computation (one input key of one derived collection). A `Readers` register belongs to a
collection and says, for one grain of reading (a key, a bucket's members, its size, everything), which cells read which
key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propylon.incremental.collection import Collection
    from propylon.incremental.derived import Node


FEW = 16
"""Up to so many dependencies are kept as they were read, some twice maybe, and so many readers of a key in a list: to
find a thing among them costs less than a set."""


class Cell:
    """One node that read something: the key it is computed for, what its last computation read, some of it twice maybe.

    Made without arguments and filled by whoever makes it, which takes a third of the time of a constructor.
    """

    __slots__ = ("dependencies", "key", "owner")

    owner: Node[Any, Any, Any, Any]
    key: Any
    dependencies: list[Dependency]

    def depend_on(self, new: list[Dependency]) -> None:
        """Replace what this cell depends on; keeps the list."""
        old = self.dependencies
        if len(new) > FEW:
            new = [*dict.fromkeys(new)]
        if new == old:
            return
        self.dependencies = new
        for readers, key in set(old).difference(new):
            readers.remove(key, self)
        for readers, key in set(new).difference(old):
            readers.add(key, self)


class Readers(dict[Any, "Cell | list[Cell] | set[Cell]"]):
    """The cells that read a collection at one grain, by key; compared and hashed as the object it is.

    Most keys have one reader, which stands there alone, or up to FEW in a list: a set for each of 10,000 keys would
    cost more than the values.
    """

    __slots__ = ("collection", "grain")

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, collection: Collection[Any, Any], grain: str) -> None:
        super().__init__()
        self.collection = collection
        self.grain = grain

    def add(self, key: Any, cell: Cell) -> None:
        """Record that `cell` read `key`."""
        present = self.setdefault(key, cell)
        if present is not cell:
            self.share(key, present, cell)

    def share(self, key: Any, present: Cell | list[Cell] | set[Cell], cell: Cell) -> None:
        """Record that `cell` read `key`, as did who is `present` there."""
        if isinstance(present, set):
            present.add(cell)
        elif not isinstance(present, list):
            self[key] = [present, cell]
        elif present[-1] is not cell:  # a node's reads are recorded together: if it is there, it was the last
            present.append(cell)
            if len(present) > FEW:
                self[key] = set(present)

    def remove(self, key: Any, cell: Cell) -> None:
        """Forget that `cell` read `key`."""
        present = self.get(key)
        if present is cell:
            del self[key]
        elif isinstance(present, list | set) and cell in present:
            present.remove(cell)
            if len(present) == 1:
                self[key] = present.pop()

    def of(self, key: Any) -> Iterable[Cell]:
        """Return the cells that read `key`; marking them does not change the register."""
        present = self.get(key)
        if present is None:
            return ()
        return (present,) if isinstance(present, Cell) else present


Dependency = tuple[Readers, Any]
