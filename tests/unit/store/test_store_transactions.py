"""Transactions within transactions: what each undoes, and what it costs."""

import pytest

from propylon.api.meta import ObjectRef
from propylon.store import AlreadyExists, Event, LocalStore, NotFound, StoreUnavailable


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path) as opened:
        yield opened


def config_map(name, value="1"):
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": value}}


def names(store):
    return [ref.name for ref in store.list([("", "ConfigMap")]).refs]


def told(changes):
    assert all(isinstance(event, Event) for event in changes.events)
    return [(event.type.value, event.ref.name) for event in changes.events]


class RefusedError(Exception):
    """What a part fails with."""


def part(store, *made, fails=False):
    """A transaction of its own that creates objects, and then maybe fails."""
    try:
        with store.transaction():
            for name in made:
                store.create(config_map(name))
            if fails:
                raise RefusedError
    except RefusedError:
        pass


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}, {2}, {0, 2}, {0, 1, 2}, set()])
def test_a_part_that_fails_undoes_itself_alone(store, failing):
    before = store.resource_version
    with store.transaction():
        for number in range(3):
            part(store, f"a{number}", f"b{number}", fails=number in failing)
    kept = [f"{letter}{number}" for number in range(3) if number not in failing for letter in "ab"]
    assert sorted(kept) == names(store)
    changes = store.changes_since(before)
    assert told(changes) == [("ADDED", name) for name in kept]
    assert [event.resource_version for event in changes.events] == [before + 1 + n for n in range(len(kept))]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_first_part_that_fails_at_any_depth_undoes_itself_alone(store, depth):
    def within(left):
        with store.transaction():
            if left:
                within(left - 1)
            part(store, f"bad{left}", fails=True)
            part(store, f"good{left}")

    within(depth)
    assert names(store) == sorted(f"good{left}" for left in range(depth + 1))


def test_a_part_of_a_part_that_fails_undoes_itself_alone(store):
    with store.transaction():
        with pytest.raises(RefusedError), store.transaction():
            part(store, "a", fails=True)
            part(store, "b")
            part(store, "c", fails=True)
            raise RefusedError
        assert names(store) == []
        with store.transaction():
            part(store, "d")
            part(store, "e", fails=True)
    assert names(store) == ["d"]


def test_what_was_written_before_a_part_stays_when_that_fails(store):
    with store.transaction():
        store.create(config_map("first"))
        part(store, "second", fails=True)
        with pytest.raises(AlreadyExists):
            store.create(config_map("first", "2"))
    assert names(store) == ["first"]


def test_a_first_part_that_loses_the_transaction_loses_all(store):
    with pytest.raises(StoreUnavailable), store.transaction():
        with pytest.raises(RefusedError), store.transaction():
            store.create(config_map("lost"))
            store._database._connection.execute("ROLLBACK")  # as SQLITE_FULL does
            raise RefusedError
        with pytest.raises(StoreUnavailable):
            store.create(config_map("stray"))
    assert names(store) == []
    store.create(config_map("after"))
    with pytest.raises(NotFound):
        store.get(ObjectRef("", "ConfigMap", "default", "stray"))


def test_followers_are_woken_once_and_after_the_end(store):
    woken = []
    store.subscribe(lambda: woken.append(store.resource_version))
    before = store.resource_version
    with store.transaction():
        part(store, "a")
        part(store, "b", fails=True)
        part(store, "c")
        assert woken == []
    assert woken == [before + 2]
    with store.transaction():
        part(store, "d", fails=True)
    assert woken == [before + 2]


def test_a_transaction_around_one_write_costs_no_savepoint(store):
    said = []
    store._database._connection.set_trace_callback(said.append)
    with store.transaction(), store.transaction():
        store.create(config_map("a"))
    assert [one for one in said if "SAVEPOINT" in one or "RELEASE" in one] == []
    del said[:]
    with store.transaction():
        store.create(config_map("b"))
        store.create(config_map("c"))
    assert [one.split()[0] for one in said if "SAVEPOINT" in one or "RELEASE" in one] == ["SAVEPOINT", "RELEASE"]
