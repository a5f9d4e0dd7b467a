"""Collections: keyed values that change only in a commit. Sources are fed from outside, indexes follow a collection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from propylon.incremental.commit import Cause, Change, Commit, Failure
from propylon.incremental.dependencies import Readers
from propylon.incremental.order import in_order, ordered

if TYPE_CHECKING:
    from propylon.incremental.engine import Engine

K = TypeVar("K")
V = TypeVar("V")
I = TypeVar("I")  # noqa: E741 - the key of an index

FEW, MANY = 16, 64
"""A bucket is patched by bisection if at most FEW of its members change, or one in MANY; else two runs are merged."""


class News(NamedTuple):
    """What a batch, or a part of one, changed in a collection that is followed."""

    collection: Collection[Any, Any]
    changes: dict[Any, Change[Any]]
    only_new: bool


class Collection(Generic[K, V]):
    """Keyed values, readable between commits with `get` and `items`, and by derivations through `Look`.

    Keys are hashable and sortable among themselves; values are compared with `==` and are never None.
    """

    __slots__ = (
        "_dirty",
        "_engine",
        "_followers",
        "_news",
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
        self._news: list[News] = []
        """What changed in collections that this one follows, since it was worked off last."""
        self._dirty: dict[K, tuple[Cause, ...]] = {}
        """What else is to be looked at: keys of nodes whose reads changed; with a trace everything, with its causes."""
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
            self._snapshot = MappingProxyType(dict(ordered(self._values)))
        return self._snapshot

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

    def _spread(self, changes: dict[K, Change[V]], only_new: bool) -> None:
        """Mark everything that follows or read what changed; `only_new` if all of it is known to be new keys."""
        self._snapshot = None
        engine, news = self._engine, News(self, changes, only_new)
        is_traced, due = engine.trace, engine._due
        for follower in self._followers:
            if is_traced:
                for key in changes:
                    follower._mark(key, self, key, "input")
            else:
                follower._news.append(news)
                due.add(follower._order)
        if read := self._readers:
            for key in changes:
                if key in read:
                    self._mark_readers(read, key)
        if self._whole_readers:
            self._mark_readers(self._whole_readers, None)

    def _mark_readers(self, readers: Readers, key: Any) -> None:
        engine = self._engine
        is_traced, due = engine.trace, engine._due
        for cell in readers.of(key):
            owner = cell.owner
            if is_traced:
                owner._mark(cell.key, self, key, readers.grain)
            else:
                owner._dirty[cell.key] = ()
                due.add(owner._order)

    def _mark(self, key: Any, cause: Collection[Any, Any], cause_key: Any, grain: str) -> None:
        """Mark a key and note why."""
        self._dirty[key] = (*self._dirty.get(key, ()), Cause(cause.name, cause_key, grain))
        self._engine._due.add(self._order)

    def _take(self, over: Collection[Any, Any]) -> tuple[Iterable[tuple[Any, Change[Any]]], int, bool]:
        """Return what is to be worked off, as (key, (before, value in `over` by now)), how much that is, and note that
        nothing is any more.

        The last is whether a key without anything before was not there when this was last called. It is so if there
        was one batch of changes and nothing else, or several of new keys only, as at a start. Otherwise what stands
        before means nothing.
        """
        news, dirty = self._news, self._dirty
        if not dirty and len(news) == 1:
            self._news = []
            return news[0].changes.items(), len(news[0].changes), True
        work: dict[Any, Change[Any]] = {}
        if news:
            self._news = []
            if not dirty and all(told.only_new for told in news):
                every = [told.changes for told in news]
                return chain.from_iterable(map(dict.items, every)), sum(map(len, every)), True
            for told in news:
                work.update(told.changes)
        if dirty:
            self._dirty = {}
            values = over._values
            for key in dirty if len(dirty) == 1 else in_order(dirty):  # marks come in any order
                work[key] = (None, values.get(key))
        return work.items(), len(work), False

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
        self._buckets_of: dict[K, tuple[I, ...]] = {}
        """Of those entries that are in any, each bucket once."""
        self._member_readers = Readers(self, "members")
        self._count_readers = Readers(self, "count")
        self._follow(over)

    def _settle(self, commit: Commit) -> dict[I, Change[tuple[K, ...]]]:
        work, count, is_known = self._take(self.over)
        if not count:
            return {}
        commit.indexed[self.name] = count
        joined: dict[I, tuple[K, ...] | list[K]] = {}
        left: dict[I, list[K]] = {}
        self._classify(work, is_known, joined, left, commit)
        for bucket in left:
            joined.setdefault(bucket, ())
        changes: dict[I, Change[tuple[K, ...]]] = {}
        values = self._values
        for bucket, added in joined.items():
            alone = added if isinstance(added, tuple) else tuple(in_order(added))
            before = values.setdefault(bucket, alone)
            if before is alone:  # there was none
                changes[bucket] = (None, alone)
            else:
                self._store(bucket, patched(before, added, left.get(bucket, ())) or None, changes)
        if members := self._member_readers:
            for bucket in changes:
                if bucket in members:
                    self._mark_readers(members, bucket)
        if sizes := self._count_readers:
            for bucket, (old, new) in changes.items():
                if bucket in sizes and len(old or ()) != len(new or ()):
                    self._mark_readers(sizes, bucket)
        return changes

    def _classify(
        self,
        work: Iterable[tuple[K, Change[V]]],
        is_known: bool,
        joined: dict[I, tuple[K, ...] | list[K]],
        left: dict[I, list[K]],
        commit: Commit,
    ) -> None:
        """Find out which entries join and leave which buckets; who reads a bucket in which one stays is marked.

        A bucket that one entry joins has a tuple in `joined`, as its members are most often; others have a list.
        """
        fn, buckets_of = self._fn, self._buckets_of
        for key, (before, value) in work:
            old = None if is_known and before is None else buckets_of.get(key)
            try:
                new: tuple[I, ...] = () if value is None else tuple(fn(key, value))
                if len(new) > 1:
                    new = tuple(dict.fromkeys(new))  # no set, which has another order in every process
                joins: Iterable[I] = new
                if old is not None:
                    joins = self._move(key, old, new, left)
                if joins:
                    own = (key,)
                    for bucket in joins:
                        members = joined.setdefault(bucket, own)
                        if members is not own:
                            if isinstance(members, list):
                                members.append(key)
                            else:
                                joined[bucket] = [*members, key]
            except Exception as error:  # noqa: BLE001 - the entry stays in its buckets; the batch goes on
                commit.failures.append(Failure(self.name, key, error))
                if old is not None:
                    self._move(key, old, old, left)
                continue
            if new:
                buckets_of[key] = new
            elif old is not None:
                del buckets_of[key]

    def _move(self, key: K, old: tuple[I, ...], new: tuple[I, ...], left: dict[I, list[K]]) -> tuple[I, ...]:
        """Take an entry out of the buckets it left, mark who reads those it stays in, and return which it joins."""
        stays: Iterable[I] = old
        joins: tuple[I, ...] = ()
        if new != old:
            before, after = frozenset(old), frozenset(new)
            joins = tuple([bucket for bucket in new if bucket not in before])
            stays = before & after
            for bucket in old:
                if bucket not in after:
                    left.setdefault(bucket, []).append(key)
        if readers := self._member_readers:
            for bucket in stays:
                self._mark_readers(readers, bucket)
        return joins


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
