"""Random programs of collections and random changes: the incremental outcome equals one computed from scratch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

from propylon.incremental import Collection, Engine, Index, Look, Observation, Source
from propylon.incremental.union import Union

KEYS = range(8)

State = dict[str, dict[int, int]]


class Program:
    """Collections built by a seed: the same seed gives the same program, whatever happened before.

    The sources and the first `ahead` others, if any, can be computed before a commit.
    """

    def __init__(self, seed: int, ahead: int = 0) -> None:
        random = Random(seed)
        self.engine = Engine()
        early = ExitStack()
        if ahead:
            early.enter_context(self.engine.ahead())
        self.sources: dict[str, Source[int, int]] = {}
        for name in ("first", "second"):
            self.sources[name] = self.engine.source(name)
        # Collections of int -> int, so that any may stand where another does.
        self.plain: list[Collection[int, int]] = list(self.sources.values())
        self.indexes: list[Index[int, int, int]] = []
        for number in range(random.randrange(3, 9)):
            if number == ahead:
                early.close()
            over = random.choice(self.plain)
            modulus = random.randrange(2, 5)
            kind = random.choice(("derive", "derive", "flat", "index", "grouped", "union"))
            name = f"{kind} {number}"
            if kind == "index":
                self.indexes.append(over.index(name, lambda key, value, m=modulus: range(value % m)))  # type: ignore[misc]
            elif kind == "derive":
                self.plain.append(self.engine.derive(name, over, self.function(random)))
            elif kind == "flat":
                self.plain.append(self.engine.flat_derive(name, over, self.flat_function(random)))
            elif kind == "union":
                self.plain.append(Union(self.engine, name, over, random.choice(self.plain)))  # keys overlap on purpose
            elif self.indexes:
                read = self.reads(random)
                index = random.choice(self.indexes)
                self.plain.append(self.engine.derive(name, index, lambda i, keys, look, r=read: sum(keys) + r(i, look)))  # type: ignore[misc]

    def reads(self, random: Random) -> Callable[[int, Look], int]:
        """Return a function that looks around in up to two ways, the second depending on what the first found."""
        chosen = [self.read(random) for _ in range(random.randrange(3))]

        def read(key: int, look: Look) -> int:
            found = key
            for one in chosen:
                found = found * 3 + one(found % 8, look)
            return found % 1000

        return read

    def read(self, random: Random) -> Callable[[int, Look], int]:
        collection = random.choice(self.plain)
        if not self.indexes or random.random() < 0.4:
            if random.random() < 0.2:
                return lambda key, look: sum(k * v for k, v in look.all(collection).items())
            return lambda key, look: look.get(collection, key) or 0
        index = random.choice(self.indexes)
        ways: list[Callable[[int, Look], int]] = [
            lambda key, look: sum(k + v for k, v in look.by(index, key % 3)),
            lambda key, look: sum(place * k for place, k in enumerate(look.keys(index, key % 3))),
            lambda key, look: look.count(index, key % 3),
            lambda key, look: look.any(index, (key % 3, key % 2)),
            lambda key, look: len(look.get(index, key % 3) or ()),
        ]
        return random.choice(ways)

    def function(self, random: Random) -> Callable[[int, int, Look], int | None]:
        read = self.reads(random)
        modulus = random.randrange(2, 7)  # small: results often stay equal, and some are absent
        return lambda key, value, look: (value + read(key, look)) % modulus or None

    def flat_function(self, random: Random) -> Callable[[int, int, Look], dict[int, int]]:
        read = self.reads(random)
        spread = random.randrange(3, 9)  # inputs clash on purpose
        return lambda key, value, look: {(key + i) % spread: value + read(key, look) % 5 for i in range(value % 4)}

    def feed(self, state: State) -> None:
        for name, values in state.items():
            self.sources[name].replace(values)

    def content(self) -> dict[str, dict[Any, Any]]:
        return {collection.name: dict(collection.items()) for collection in self.engine.collections}


def change(random: Random, program: Program, state: State) -> None:
    """Change sources and the expected state alike, in one of the ways there are."""
    name = random.choice(list(state))
    source, values = program.sources[name], state[name]
    kind = random.random()
    if kind < 0.05:
        values.clear()
        values.update({key: random.randrange(10) for key in KEYS if random.random() < 0.5})
        source.replace(dict(values))
    elif kind < 0.3:
        key = random.choice(KEYS)
        source.remove(key)
        values.pop(key, None)
    else:
        key = random.choice(KEYS)
        value = values.get(key, 0) if kind > 0.9 else random.randrange(10)  # sometimes what it is already
        source.set(key, value)
        values[key] = value


@pytest.mark.parametrize("ahead", [0, 2, 5])
@pytest.mark.parametrize("seed", range(70))
def test_incremental_equals_from_scratch(seed: int, ahead: int) -> None:
    random = Random(seed)
    program = Program(seed, ahead)
    state: State = {name: {} for name in program.sources}
    mirrors: dict[str, dict[Any, Any]] = {collection.name: {} for collection in program.engine.collections}
    observations: list[Observation[Any, Any]] = [program.engine.observe(c) for c in program.engine.collections]
    for _ in range(25):
        before = program.content()
        for _ in range(random.randrange(4)):
            change(random, program, state)
            if ahead and random.random() < 0.4:
                program.engine.advance()
            if ahead and random.random() < 0.4:
                program.engine.step()
        commit = program.engine.commit()
        assert commit.failures == []
        scratch = Program(seed)
        scratch.feed(state)
        scratch.engine.commit()
        assert program.content() == scratch.content()
        for collection in program.engine.collections:
            after = dict(collection.items())
            old = before[collection.name]
            expected = {k: (old.get(k), after.get(k)) for k in {*old, *after} if old.get(k) != after.get(k)}
            assert commit.changes(collection) == expected
            assert list(commit.changes(collection)) == sorted(expected)
        if random.random() < 0.5:
            for observation in observations:
                mirror = mirrors[observation.collection.name]
                for key, (was, now) in observation.take().items():
                    assert mirror.pop(key, None) == was
                    if now is not None:
                        mirror[key] = now
                assert mirror == dict(observation.collection.items())
    assert program.engine.commit().total_recomputed == 0
