"""How a rule that spans several fields is written down, and where it applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from propylon.api.schema import Channel


class Violation(NamedTuple):
    """Where a rule is broken, below the checked value (".name", "[2].tls", "" for itself), and what is there."""

    path: str
    found: Any


class Place(NamedTuple):
    """A struct (`field` is None), or one field of it by JSON name, wherever the struct occurs."""

    struct: type
    field: str | None = None


Check = Callable[[Any], Iterable[Violation]]


class Rule(NamedTuple):
    """A check of well-typed, defaulted raw values; `channel` is given when only one channel has the rule."""

    check: Check
    places: tuple[Place, ...]
    message: str
    remedy: str
    channel: Channel | None = None
    name: str = ""
    kept: Callable[[Any], bool] | None = None
    """A quick look: True if the value surely keeps the rule, and every other rule with the same look."""

    @property
    def code(self) -> str:
        """The rule's name: what it demands, in snake case."""
        return self.name or self.check.__name__


def duplicates(keys: Iterable[Any]) -> Iterable[int]:
    """Positions whose key, which is not None, occurred before. Keys must be hashable."""
    seen: set[Any] = set()
    for index, key in enumerate(keys):
        if key is None:
            continue
        if key in seen:
            yield index
        seen.add(key)


def is_alone(items: Any) -> bool:
    """A quick look for rules that compare items with each other."""
    return len(items) < 2


def written_with_a_point(value: Any, *names: str) -> Iterable[Violation]:
    """Integers written like 80.0: fine for a type, but a CEL rule that reads one fails, and so does the object."""
    for name in names:
        if isinstance(value.get(name), float):
            yield Violation(f".{name}", value[name])


def union_rules(
    struct: type, discriminator: str, members: dict[str, str], channel: Channel | None = None
) -> tuple[Rule, ...]:
    """For each value of a discriminator, its field must be set, and must not be set for any other value."""
    rules: list[Rule] = []
    names = frozenset(members.values())
    nothing: frozenset[str] = frozenset()

    def kept(item: Any) -> bool:
        member = members.get(item.get(discriminator))
        return bool(names & item.keys() == (nothing if member is None else {member}))

    for value, member in members.items():
        name = _snake(member)

        def missing(item: Any, value: str = value, member: str = member) -> Iterable[Violation]:
            if item.get(discriminator) == value and member not in item:
                yield Violation(f".{member}", None)

        def misplaced(item: Any, value: str = value, member: str = member) -> Iterable[Violation]:
            if member in item and item.get(discriminator) != value:
                yield Violation(f".{member}", item[member])

        rules.append(
            Rule(
                missing,
                (Place(struct),),
                f"{member} is missing although {discriminator} is {value}",
                f"Add {member}, or choose another {discriminator}.",
                channel,
                f"{name}_must_be_set_for_its_{discriminator}",
                kept,
            )
        )
        rules.append(
            Rule(
                misplaced,
                (Place(struct),),
                f"{member} is set although {discriminator} is not {value}",
                f"Set {discriminator} to {value}, or remove {member}.",
                channel,
                f"{name}_must_be_absent_for_other_{discriminator}s",
                kept,
            )
        )
    return tuple(rules)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
