"""Collections: keyed values that change only in a commit. Sources are fed from outside, indexes follow a collection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from propylon.incremental.commit import Cause, Change, Commit, Failure
from propylon.incremental.dependencies import Readers

if TYPE_CHECKING:
    from propylon.incremental.engine import Engine

K = TypeVar("K")
V = TypeVar("V")
I = TypeVar("I")  # noqa: E741 - the key of an index

FEW, MANY = 16, 64
"""A bucket is patched by bisection if at most FEW of its members change, or one in MANY; else two runs are merged."""


class Collection(Generic[K, V]):
    """Keyed values, readable between commits with `get` and `items`, and by derivations through `Look`.

    Keys are hashable and sortable among themselves; values are compared with `==` and are never None.
    """

    __slots__ = (
        "_dirty",
        "_engine",
        "_followers",
        "_in_order",
        "_order",
        "_readers",
        "_snapshot",
        "_values",
        "_whole_readers",
        "name",
    )

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._values: dict[K, V] = {}
        self._snapshot: Mapping[K, V] | None = None
        self._dirty: dict[K, tuple[Cause, ...]] = {}
        self._in_order = False
        """Whether the keys in `_dirty` are in order for certain, as they are where one collection's changes made them
        so: sorting tens of thousands that are sorted is not for nothing."""
        self._followers: list[Collection[Any, Any]] = []
        self._readers = Readers(self, "get")
        self._whole_readers = Readers(self, "all")
        self._order = engine._adopt(self)

    def get(self, key: K) -> V | None:
        """Return the committed value of `key`, or None."""
        return self._values.get(key)

    def items(self) -> Iterable[tuple[K, V]]:
        """Return the committed (key, value) pairs in key order."""
        return self.snapshot().items()

    def snapshot(self) -> Mapping[K, V]:
        """Return the committed content in key order, as a mapping that never changes."""
        if self._snapshot is None:
            self._snapshot = MappingProxyType({key: self._values[key] for key in in_order(self._values)})
        return self._snapshot

    @property
    def _changes_in_order(self) -> bool:
        """Whether `_settle` tells of changes in the order of their keys."""
        return True

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return True  # an empty collection is still a collection: `collection or default` must not surprise

    def __iter__(self) -> Iterator[K]:
        return iter(self.snapshot())

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self._values)}>"

    def index(self, name: str, fn: Callable[[K, V], Iterable[I]]) -> Index[I, K, V]:
        """Create an index: `fn(key, value)` tells in which buckets an entry belongs; repeated buckets count once.

        Raises ValueError if the engine has a collection of this name.
        """
        return Index(self._engine, name, self, fn)

    def _settle(self, commit: Commit) -> dict[K, Change[V]]:
        """Work off what is dirty and return what changed. Called once in a commit, in creation order."""
        raise NotImplementedError

    def _store(self, key: K, new: V | None, changes: dict[K, Change[V]]) -> bool:
        """Take over a value unless it equals the old one (which stays, so that identity is stable too)."""
        old = self._values.get(key)
        if old is None:
            if new is None:
                return False
            self._values[key] = new
            changes[key] = (None, new)
            return True
        if old is new or (new is not None and old == new):
            return False
        if new is None:
            del self._values[key]
        else:
            self._values[key] = new
        changes[key] = (old, new)
        return True

    def _spread(self, changes: Mapping[K, Change[V]]) -> None:
        """Mark everything that follows or read what changed."""
        self._snapshot = None
        for follower in self._followers:
            if self._engine.trace:
                for key in changes:
                    follower._mark(key, self, key, "input")
                continue
            if follower._dirty:
                follower._in_order = False
                follower._dirty.update(dict.fromkeys(changes, ()))
            else:
                follower._in_order = self._changes_in_order
                follower._dirty = dict.fromkeys(changes, ())
            self._engine._due.add(follower._order)
        if read := self._readers._cells:
            for key in changes:
                if key in read:
                    self._mark_readers(self._readers, key)
        if self._whole_readers.any:
            self._mark_readers(self._whole_readers, None)

    def _mark_readers(self, readers: Readers, key: Any) -> None:
        for cell in readers.of(key):
            cell.owner._mark(cell.key, self, key, readers.grain)

    def _mark(self, key: Any, cause: Collection[Any, Any], cause_key: Any, grain: str) -> None:
        if self._engine.trace:
            self._dirty[key] = (*self._dirty.get(key, ()), Cause(cause.name, cause_key, grain))
        else:
            self._dirty[key] = ()
        self._in_order = False
        self._engine._due.add(self._order)

    def _take_dirty(self) -> dict[K, tuple[Cause, ...]]:
        """Return what is dirty, in the order of its keys, and note that nothing is any more."""
        dirty, self._dirty = self._dirty, {}
        if self._in_order or len(dirty) < 2:
            return dirty
        return {key: dirty[key] for key in in_order(dirty)}

    def _follow(self, over: Collection[Any, Any]) -> None:
        """Have every change of `over`, and all it holds now, mark the same key here."""
        over._followers.append(self)
        self._dirty = dict.fromkeys(over._values, ())


class Source(Collection[K, V]):
    """A collection fed from outside. Changes are queued until the next commit; the last one to a key counts."""

    __slots__ = ("_queued",)

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._queued: dict[K, V | None] = {}

    def set(self, key: K, value: V | None) -> None:
        """Queue a value; None removes the key. Raises RuntimeError in the middle of a commit."""
        self._engine._forbid_in_commit("a source changed")
        self._engine._due.add(self._order)
        self._queued[key] = value

    def remove(self, key: K) -> None:
        """Queue a removal; removing what is not there changes nothing."""
        self.set(key, None)

    def replace(self, values: Mapping[K, V]) -> None:
        """Queue that the source holds `values` and nothing else."""
        self._engine._forbid_in_commit("a source changed")
        self._engine._due.add(self._order)
        self._queued = {**dict.fromkeys(self._values), **values}

    @property
    def queued(self) -> int:
        """How many keys wait for the next commit (equal values included)."""
        return len(self._queued)

    def _settle(self, commit: Commit) -> dict[K, Change[V]]:
        queued, self._queued = self._queued, {}
        changes: dict[K, Change[V]] = {}
        for key in in_order(queued):
            try:
                self._store(key, queued[key], changes)
            except Exception as error:  # noqa: BLE001 - an __eq__ that raises; the batch goes on
                commit.failures.append(Failure(self.name, key, error))
        return changes


class Index(Collection[I, tuple[K, ...]], Generic[I, K, V]):
    """Buckets of another collection's keys; as a collection, a bucket's value is its sorted member keys."""

    __slots__ = ("_buckets_of", "_count_readers", "_fn", "_member_readers", "over")

    def __init__(self, engine: Engine, name: str, over: Collection[K, V], fn: Callable[[K, V], Iterable[I]]) -> None:
        super().__init__(engine, name)
        self.over = over
        self._fn = fn
        self._buckets_of: dict[K, frozenset[I] | tuple[I, ...]] = {}
        self._member_readers = Readers(self, "members")
        self._count_readers = Readers(self, "count")
        self._follow(over)

    def _settle(self, commit: Commit) -> dict[I, Change[tuple[K, ...]]]:
        dirty: dict[Any, tuple[Cause, ...]] = self._dirty
        if not dirty:
            return {}
        self._dirty = {}
        commit.indexed[self.name] = len(dirty)
        joined: dict[I, list[K]] = {}
        left: dict[I, list[K]] = {}
        self._classify(dirty, joined, left, commit)
        members, sizes = self._member_readers._cells, self._count_readers._cells
        changes: dict[I, Change[tuple[K, ...]]] = {}
        values = self._values
        for bucket in in_order({**joined, **left} if left else joined):
            before = values.get(bucket)
            if before is None:  # nobody left it
                added = joined[bucket]
                after = (added[0],) if len(added) == 1 else tuple(in_order(added))
                values[bucket] = after
                changes[bucket] = (None, after)
            else:
                after = patched(before, joined.get(bucket, ()), left.get(bucket, ()))
                self._store(bucket, after or None, changes)
            if members:
                self._mark_readers(self._member_readers, bucket)
            if sizes and (before is None or len(before) != len(after)):
                self._mark_readers(self._count_readers, bucket)
        return changes

    def _classify(self, dirty: Iterable[K], joined: dict[I, list[K]], left: dict[I, list[K]], commit: Commit) -> None:
        """Find out which entries join and leave which buckets; who reads a bucket in which one stays is marked."""
        fn, values, buckets_of, is_read = self._fn, self.over._values, self._buckets_of, self._member_readers.any
        old: frozenset[I] | tuple[I, ...] | None
        new: frozenset[I] | tuple[I, ...]
        for key in dirty:
            value = values.get(key)
            old = buckets_of.get(key)
            if value is None:
                new = ()
            else:
                try:
                    new = tuple(fn(key, value))
                    if old is None and len(new) < 2:
                        if new:
                            own = [key]
                            members = joined.setdefault(new[0], own)
                            if members is not own:
                                members.append(key)
                            buckets_of[key] = new
                        continue
                    # One bucket is the rule; a frozenset per entry would cost four times a tuple.
                    new = new if len(new) == 1 and hash(new) is not None else frozenset(new)
                except Exception as error:  # noqa: BLE001 - the entry stays in its buckets; the batch goes on
                    commit.failures.append(Failure(self.name, key, error))
                    new = old or ()
            if old is None:
                for bucket in new:
                    if bucket in joined:
                        joined[bucket].append(key)
                    else:
                        joined[bucket] = [key]
            else:
                for bucket in new:
                    if bucket not in old:
                        joined.setdefault(bucket, []).append(key)
                    elif is_read:
                        self._mark_readers(self._member_readers, bucket)
                for bucket in old:
                    if bucket not in new:
                        left.setdefault(bucket, []).append(key)
            if new:
                buckets_of[key] = new
            elif old is not None:
                del buckets_of[key]


def in_order(keys: Iterable[K]) -> list[K]:
    """Return the keys sorted, so that batches are alike in every process; as they come if they cannot be compared."""
    try:
        return sorted(keys)  # type: ignore[type-var]
    except TypeError:
        return list(keys)


def patched(members: tuple[K, ...], joined: Iterable[K], left: Iterable[K]) -> tuple[K, ...]:
    """Return the sorted `members` with some added and some taken out; cheap when these are few among many."""
    added, removed = list(joined), list(left)
    result: list[Any] = list(members)
    try:
        if len(added) + len(removed) > max(FEW, len(members) // MANY):
            gone = set(removed)
            result = [key for key in members if key not in gone] if gone else result
            result += sorted(added)
            result.sort()  # two sorted runs, which it merges
            return tuple(result)
        for key in removed:
            position = bisect_left(result, key)
            if result[position] != key:
                raise TypeError("keys without a total order")
            del result[position]
        for key in added:
            result.insert(bisect_left(result, key), key)
    except (TypeError, IndexError):
        return tuple(in_order(set(members).union(added).difference(removed)))
    return tuple(result)
