"""The engine's promises, one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from propylon.incremental import Engine, Index, Look, OrderError, Source
from propylon.incremental.dependencies import FEW
from propylon.incremental.union import Union


class Raising:
    """A value whose comparison fails."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("cannot compare")


def numbers(engine: Engine, **values: int) -> Source[str, int]:
    source: Source[str, int] = engine.source("numbers")
    source.replace(values)
    return source


def test_nothing_is_visible_before_the_commit() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    doubled = engine.derive("doubled", source, lambda key, value, look: value * 2)
    assert (source.get("a"), doubled.get("a"), len(doubled)) == (None, None, 0)
    commit = engine.commit()
    assert (source.get("a"), doubled.get("a"), len(doubled)) == (1, 2, 1)
    assert commit.changes(doubled) == {"a": (None, 2)}
    assert commit.changed


def test_the_last_queued_change_of_a_key_counts() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    engine.commit()
    source.set("a", 5)
    source.remove("a")
    source.set("a", 1)
    commit = engine.commit()
    assert not commit.changed
    assert commit.changes(source) == {}


def test_replace_removes_what_is_not_mentioned_and_overrides_what_was_queued() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=2)
    engine.commit()
    source.set("c", 3)
    source.replace({"b": 2, "d": 4})
    commit = engine.commit()
    assert dict(source.items()) == {"b": 2, "d": 4}
    assert commit.changes(source) == {"a": (1, None), "d": (None, 4)}


def test_an_equal_result_stops_there_and_keeps_its_identity() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    parity = engine.derive("parity", source, lambda key, value, look: [value % 2])
    reader = engine.derive("reader", parity, lambda key, value, look: list(value))
    engine.commit()
    before = parity.get("a")
    source.set("a", 3)
    commit = engine.commit()
    assert commit.recomputed == {"parity": 1}
    assert commit.changes(parity) == {}
    assert parity.get("a") is before
    assert reader.get("a") == [1]


def test_none_is_absence() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=2)
    even = engine.derive("even", source, lambda key, value, look: value if value % 2 == 0 else None)
    engine.commit()
    assert dict(even.items()) == {"b": 2}
    source.set("b", 3)
    source.set("a", 4)
    assert engine.commit().changes(even) == {"a": (None, 4), "b": (2, None)}


def test_items_are_in_key_order_whatever_the_order_of_arrival() -> None:
    engine = Engine()
    source = numbers(engine)
    for key in "cab":
        source.set(key, 1)
        engine.commit()
    assert [key for key, _ in source.items()] == ["a", "b", "c"]
    assert list(source) == ["a", "b", "c"]


def test_get_depends_on_one_key_present_or_absent() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    names: Source[str, str] = engine.source("names")
    named = engine.derive("named", names, lambda key, value, look: look.get(source, value) or 0)
    names.replace({"x": "a", "y": "missing"})
    engine.commit()
    source.set("b", 7)
    assert engine.commit().recomputed == {}
    source.set("missing", 9)
    assert engine.commit().recomputed == {"named": 1}
    assert named.get("y") == 9


def test_dependencies_are_replaced_on_every_recompute() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=2)
    names: Source[str, str] = engine.source("names")
    named = engine.derive("named", names, lambda key, value, look: look.get(source, value))
    names.set("x", "a")
    engine.commit()
    names.set("x", "b")
    engine.commit()
    source.set("a", 5)
    assert engine.commit().recomputed == {}
    source.set("b", 6)
    assert engine.commit().changes(named) == {"x": (2, 6)}
    names.remove("x")
    engine.commit()
    source.set("b", 7)
    assert engine.commit().recomputed == {}


@pytest.mark.parametrize("many", [1, 2, FEW, FEW + 1, 3 * FEW])
def test_any_number_of_nodes_may_read_a_key_and_each_may_stop(many: int) -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=2)
    names: Source[int, str] = engine.source("names")
    engine.derive("named", names, lambda key, value, look: [look.get(source, name) for name in value for _ in range(2)])
    names.replace(dict.fromkeys(range(many), "a"))
    engine.commit()
    for gone in range(many):
        source.set("a", 10 + gone)
        assert engine.commit().recomputed == {"named": many - gone}
        if gone % 2:
            names.set(gone, "b")
        else:
            names.remove(gone)
        engine.commit()
    source.set("a", 9)
    assert engine.commit().recomputed == {}
    source.set("b", 9)
    assert engine.commit().total_recomputed == many // 2


def by_parity(engine: Engine) -> tuple[Source[str, int], Index[int, str, int], Source[str, str]]:
    source = numbers(engine, a=1, b=2, c=3)
    readers: Source[str, str] = engine.source("readers")
    readers.set("r", "")
    return source, source.index("by parity", lambda key, value: [value % 2]), readers


@pytest.mark.parametrize(
    ("read", "outcome", "on_value", "on_swap", "on_join"),
    [
        (lambda look, index: look.by(index, 1), (("a", 1), ("c", 3)), 1, 1, 1),
        (lambda look, index: look.keys(index, 1), ("a", "c"), 0, 1, 1),
        (lambda look, index: look.get(index, 1), ("a", "c"), 0, 1, 1),
        (lambda look, index: look.count(index, 1), 2, 0, 0, 1),
    ],
    ids=["by", "keys", "get", "count"],
)
def test_an_index_is_read_at_the_grain_that_is_asked_for(
    read: Any, outcome: Any, on_value: int, on_swap: int, on_join: int
) -> None:
    engine = Engine()
    source, index, readers = by_parity(engine)
    seen = engine.derive("seen", readers, lambda key, value, look: read(look, index))
    engine.commit()
    assert seen.get("r") == outcome
    source.set("b", 4)  # another bucket
    assert engine.commit().recomputed.get("seen", 0) == 0
    source.set("a", 5)  # same members, another value
    assert engine.commit().recomputed.get("seen", 0) == on_value
    source.set("a", 2)
    source.set("b", 1)  # one leaves, one comes
    assert engine.commit().recomputed.get("seen", 0) == on_swap
    source.set("d", 7)
    assert engine.commit().recomputed.get("seen", 0) == on_join


def test_an_index_is_a_collection_of_sorted_member_keys() -> None:
    engine = Engine()
    source, index, _ = by_parity(engine)
    sizes = engine.derive("sizes", index, lambda i, members, look: len(members))
    engine.commit()
    assert dict(index.items()) == {0: ("b",), 1: ("a", "c")}
    source.set("aa", 1)
    commit = engine.commit()
    assert commit.changes(index) == {1: (("a", "c"), ("a", "aa", "c"))}
    assert commit.changes(sizes) == {1: (2, 3)}
    source.remove("b")
    assert engine.commit().changes(index) == {0: (("b",), None)}
    assert sizes.get(0) is None


def test_repeated_buckets_count_once_and_an_entry_may_be_in_several() -> None:
    engine = Engine()
    words: Source[str, str] = engine.source("words")
    letters = words.index("words by letter", lambda key, value: value)
    words.replace({"x": "aab", "y": "b", "z": ""})
    engine.commit()
    assert dict(letters.items()) == {"a": ("x",), "b": ("x", "y")}


def test_large_and_small_changes_of_a_bucket_agree() -> None:
    engine = Engine()
    source = numbers(engine)
    index = source.index("all in one", lambda key, value: ["one"])
    source.replace({f"{i:04}": i for i in range(500)})
    engine.commit()
    assert index.get("one") == tuple(f"{i:04}" for i in range(500))
    source.remove("0250")
    source.set("0250a", 1)
    engine.commit()
    members = index.get("one")
    assert members is not None
    assert members == tuple(sorted(members))
    assert "0250a" in members
    assert "0250" not in members


def test_an_index_of_an_index() -> None:
    engine = Engine()
    source, index, _ = by_parity(engine)
    by_size = index.index("buckets by size", lambda i, members: [len(members)])
    engine.commit()
    assert dict(by_size.items()) == {1: (0,), 2: (1,)}
    source.set("d", 4)
    assert engine.commit().changes(by_size) == {1: ((0,), None), 2: ((1,), (0, 1))}


def test_all_depends_on_everything_and_does_not_change_afterwards() -> None:
    engine = Engine()
    source = numbers(engine, b=1, a=2)
    readers: Source[str, str] = engine.source("readers")
    readers.set("r", "")
    kept: list[Any] = []

    def read(key: str, value: str, look: Look) -> tuple[str, ...]:
        kept.append(look.all(source))
        return tuple(kept[-1])

    seen = engine.derive("seen", readers, read)
    engine.commit()
    source.set("0", 1)
    engine.commit()
    assert seen.get("r") == ("0", "a", "b")
    assert dict(kept[0]) == {"a": 2, "b": 1}


def test_flat_derive_merges_and_takes_back() -> None:
    engine = Engine()
    words: Source[str, str] = engine.source("words")
    letters = engine.flat_derive("letters", words, lambda key, value, look: {(key, c): value.count(c) for c in value})
    words.replace({"x": "aab", "y": "b"})
    engine.commit()
    assert dict(letters.items()) == {("x", "a"): 2, ("x", "b"): 1, ("y", "b"): 1}
    words.set("x", "ab")
    assert engine.commit().changes(letters) == {("x", "a"): (2, 1)}
    words.remove("x")
    assert engine.commit().changes(letters) == {("x", "a"): (1, None), ("x", "b"): (1, None)}


@pytest.mark.parametrize("order", ["xyz", "zyx", "yxz"])
def test_the_smallest_input_key_wins_a_clash(order: str) -> None:
    engine = Engine()
    words: Source[str, str] = engine.source("words")
    flat = engine.flat_derive("flat", words, lambda key, value, look: {"shared": value, key: value})
    for key in order:
        words.set(key, f"from {key}")
        engine.commit()
    assert flat.get("shared") == "from x"
    assert flat.clashes == {"shared": ("x", "y", "z")}
    words.set("y", "loser changed")
    assert engine.commit().changes(flat) == {"y": ("from y", "loser changed")}
    words.remove("x")
    assert engine.commit().changes(flat)["shared"] == ("from x", "loser changed")


def test_an_output_that_moves_between_inputs_does_not_change() -> None:
    engine = Engine()
    words: Source[str, str] = engine.source("words")
    flat = engine.flat_derive("flat", words, lambda key, value, look: {value: 1})
    words.set("b", "k")
    engine.commit()
    words.remove("b")
    words.set("a", "k")
    assert engine.commit().changes(flat) == {}


def test_a_failure_keeps_the_previous_value_and_the_rest_of_the_batch() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=1)
    divisors: Source[str, int] = engine.source("divisors")
    divisors.set("d", 2)
    quotient = engine.derive(
        "quotient", source, lambda key, value, look: 10 // (value * (look.get(divisors, "d") or 0))
    )
    engine.commit()
    source.set("a", 0)
    source.set("b", 5)
    commit = engine.commit()
    assert [(name, key, type(error)) for name, key, error in commit.failures] == [("quotient", "a", ZeroDivisionError)]
    assert dict(quotient.items()) == {"a": 5, "b": 1}
    assert list(engine.failing) == [("quotient", "a")]
    assert engine.commit().failures == []  # nothing it read changed
    divisors.set("d", 1)
    assert len(engine.commit().failures) == 1  # what it read before it raised makes it run again
    source.set("a", 1)
    assert engine.commit().changes(quotient) == {"a": (5, 10)}
    assert engine.failing == {}


def test_a_failing_input_that_goes_takes_its_output_along() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    inverse = engine.derive("inverse", source, lambda key, value, look: 1 // value)
    engine.commit()
    source.set("a", 0)
    engine.commit()
    source.remove("a")
    assert engine.commit().changes(inverse) == {"a": (1, None)}
    assert engine.failing == {}


def test_a_comparison_or_an_index_that_raises_is_a_failure_too() -> None:
    engine = Engine()
    source: Source[str, Any] = engine.source("things")
    index = source.index("by kind", lambda key, value: [value["kind"]])
    flat = engine.flat_derive("flat", source, lambda key, value, look: {key: Raising()})
    source.set("a", {"kind": "x"})
    engine.commit()
    source.set("a", {"kindd": "y"})
    commit = engine.commit()
    assert [failure.collection for failure in commit.failures] == ["by kind", "flat"]
    assert index.get("x") == ("a",)
    assert len(flat) == 1
    source.remove("a")
    engine.commit()
    assert len(index) == len(flat) == 0


def test_looking_ahead_is_an_order_error() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    later: list[Any] = []
    engine.derive("early", source, lambda key, value, look: look.get(later[0], key))
    later.append(engine.derive("late", source, lambda key, value, look: value))
    (failure,) = engine.commit().failures
    assert isinstance(failure.exception, OrderError)
    assert "'early' looked at 'late'" in str(failure.exception)


def test_looking_at_another_engine_or_after_the_call_is_an_order_error() -> None:
    engine, other = Engine(), Engine()
    source, foreign = numbers(engine, a=1), numbers(other, a=1)
    kept: list[Look] = []

    def leak(key: str, value: int, look: Look) -> int:
        kept.append(look)
        return look.get(foreign, key) or 0

    engine.derive("leaking", source, leak)
    assert isinstance(engine.commit().failures[0].exception, OrderError)
    with pytest.raises(OrderError):
        kept[0].get(source, "a")


def test_a_look_is_for_its_own_node() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    kept: list[Look] = []
    engine.derive("keeping", source, lambda key, value, look: kept.append(look) or value)
    engine.derive("borrowing", source, lambda key, value, look: kept[0].get(source, key))
    (failure,) = engine.commit().failures
    assert failure.collection == "borrowing"
    assert isinstance(failure.exception, OrderError)


def test_names_are_taken_once() -> None:
    engine = Engine()
    source = numbers(engine)
    with pytest.raises(ValueError, match="numbers"):
        source.index("numbers", lambda key, value: [])


def test_impure_derivations_are_told_so() -> None:
    engine = Engine()
    source = numbers(engine, a=1)
    engine.derive("feeding back", source, lambda key, value, look: source.set("b", 1))
    engine.derive("committing", source, lambda key, value, look: engine.commit())
    errors = [str(failure.exception) for failure in engine.commit().failures]
    assert len(errors) == 2
    assert all("in the middle of a commit" in error for error in errors)


def test_collections_created_later_start_from_what_is_there() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=2)
    engine.commit()
    index = source.index("by parity", lambda key, value: [value % 2])
    doubled = engine.derive("doubled", source, lambda key, value, look: value * 2)
    source.remove("b")
    engine.commit()
    assert dict(index.items()) == {1: ("a",)}
    assert dict(doubled.items()) == {"a": 2}


def test_what_is_computed_ahead_is_told_once_and_the_rest_waits_for_the_commit() -> None:
    engine = Engine()
    with engine.ahead():
        source = numbers(engine, a=1)
        doubled = engine.derive("doubled", source, lambda key, value, look: value * 2)
    rest = engine.derive("rest", doubled, lambda key, value, look: value + 1)
    observation = engine.observe(doubled)
    assert engine.advance().changes(doubled) == {"a": (None, 2)}
    source.set("a", 2)
    source.set("b", 1)
    stage = engine.advance()
    assert stage.changes(doubled) == {"a": (2, 4), "b": (None, 2)}
    assert stage.changes(rest) == {}
    assert dict(rest.items()) == {}
    source.remove("b")
    assert observation.take() == {}
    commit = engine.commit()
    assert commit.changes(doubled) == observation.take() == {"a": (None, 4)}
    assert commit.changes(rest) == {"a": (None, 5)}
    assert commit.recomputed == {"doubled": 3, "rest": 1}
    source.set("a", 3)
    engine.advance()
    source.set("a", 2)
    assert not engine.commit().changed


def test_what_is_computed_ahead_looks_at_nothing_else() -> None:
    engine = Engine()
    late = numbers(engine, a=1)
    with engine.ahead():
        early: Source[str, int] = engine.source("early")
        engine.derive("hasty", early, lambda key, value, look: look.get(late, "a"))
    early.set("a", 1)
    (failure,) = engine.advance().failures
    assert isinstance(failure.exception, OrderError)


def test_an_observation_gathers_over_commits() -> None:
    engine = Engine()
    source = numbers(engine, a=1, b=1)
    engine.commit()
    observation = engine.observe(source)
    assert observation.take() == {"a": (None, 1), "b": (None, 1)}
    for values in ({"a": 2, "b": 2}, {"b": 3, "c": 1}, {"b": 1, "d": 1}):
        source.replace(values)
        engine.commit()
    assert observation.take() == {"a": (1, None), "d": (None, 1)}
    engine.unobserve(observation)
    source.set("z", 1)
    engine.commit()
    assert observation.take() == {}


def test_the_trace_tells_causes_and_results() -> None:
    engine = Engine()
    engine.trace = True
    source, index, readers = by_parity(engine)
    engine.derive("odd", readers, lambda key, value, look: [key for key, _ in look.by(index, 1)])
    engine.commit()
    source.set("a", 5)
    commit = engine.commit()
    (step,) = commit.trace
    assert (step.collection, step.key, step.result) == ("odd", "r", "equal")
    assert [str(cause) for cause in step.because] == ["by parity[1] (members)"]
    assert commit.explain() == "odd[r] equal because of by parity[1] (members)"
    readers.remove("r")
    assert engine.commit().trace[0].result == "removed"
    engine.trace = False
    source.set("a", 7)
    assert engine.commit().trace == []


def test_a_small_change_among_many_touches_few_nodes() -> None:
    engine = Engine()
    source = numbers(engine)
    source.replace({f"{i:05}": i for i in range(10_000)})
    index = source.index("by hundred", lambda key, value: [value // 100])
    nodes = engine.derive("nodes", source, lambda key, value, look: value + 1)
    sums = engine.derive("sums", index, lambda i, keys, look: sum(look.get(nodes, key) or 0 for key in keys))
    engine.commit()
    source.set("00250", 251)  # stays in its hundred
    commit = engine.commit()
    assert commit.recomputed == {"nodes": 1, "sums": 1}
    assert commit.indexed == {"by hundred": 1}
    assert commit.changes(sums) == {2: (25050, 25051)}


def test_changes_are_told_in_the_order_of_keys_whatever_they_came_through():
    engine = Engine()
    odd, even = engine.source("odd"), engine.source("even")
    both = Union(engine, "both", odd, even)
    texts = engine.derive("texts", both, lambda key, value, _: f"{key}{value}")
    by_value = texts.index("by value", lambda key, _: (-key,))
    flat = engine.flat_derive("flat", by_value, lambda key, keys, _: {-key: keys, -key + 100: keys})
    seen = engine.derive("seen", flat, lambda key, _keys, look: look.get(both, key))
    for first in (True, False):
        for number in (9, 3, 7, 1):
            odd.set(number, "a" if first else "b")
        for number in (8, 2, 4):
            even.set(number, "a" if first else "b")
        commit = engine.commit()
        for collection in (odd, even, texts, seen, *((by_value, flat) if first else ())):
            changed = list(commit.changes(collection))
            assert changed == sorted(changed)
            assert changed


def test_a_node_that_reads_nothing_fails_and_recovers():
    engine = Engine()
    numbers = engine.source("numbers")
    inverse = engine.derive("inverse", numbers, lambda _key, value, _: 12 // value)
    for value, expected, failing in ((0, None, True), (3, 4, False), (0, 4, True), (2, 6, False)):
        numbers.set("n", value)
        engine.commit()
        assert inverse.get("n") == expected
        assert bool(engine.failing) == failing
    numbers.set("n", 0)
    engine.commit()
    numbers.remove("n")
    engine.commit()
    assert not engine.failing
    assert inverse.get("n") is None


def calls_of(run: Callable[[], Any]) -> int:
    """Return how many calls of Python functions something takes."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    ("create", "most"),
    [
        (lambda source: source.index("index", lambda key, value: (value,)), 1),
        (lambda source: source._engine.derive("node", source, lambda key, value, look: value), 1),
        (lambda source: source._engine.derive("node", source, lambda key, value, look: look.get(source, key)), 2),
        (lambda source: source._engine.flat_derive("node", source, lambda key, value, look: {key: value}), 2),
        (lambda source: Union(source._engine, "union", source), 0),
    ],
    ids=["index", "node", "node that reads", "flat", "union"],
)
def test_a_first_computation_calls_the_function_and_little_else(create: Any, most: int) -> None:
    engine = Engine()
    source = numbers(engine)
    engine.commit()
    create(source)
    engine.commit()
    source.replace({f"{i:04}": i for i in range(1000)})
    calls = calls_of(engine.commit)
    assert calls < 1000 * (1 + most) + 100  # one call each is the source's own
