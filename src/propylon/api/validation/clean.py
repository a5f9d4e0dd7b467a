"""The quick answer for most objects: nothing is wrong. What is wrong, and where, is for the walk (`structure`) to say.

Each type is compiled once into a function, and texts that were found good are remembered, so that a valid object costs
a few dictionary look-ups for each of its values. A "no" may be wrong (anything unusual is left to the walk), a "yes"
must not: it means that the walk would find nothing, not even a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.meta import ObjectMeta
from propylon.api.schema import Channel, Constraint
from propylon.api.validation.registry import rules_at
from propylon.api.validation.rules import Check, Rule, is_alone
from propylon.api.validation.scalars import bounds, number_is_fine, text_is_fine

IsClean = Callable[[Any], bool]


_Good = dict[type, set[Any]]
"""Values that were found good, by type, as True == 1."""

_REMEMBERED = 2048
_LONGEST = 256


@cache
def compiled(spec: TypeSpec, channel: Channel) -> IsClean:
    """The check of one type in one channel."""
    match spec:
        case StructSpec():
            return _struct(spec, channel)
        case ItemsSpec():
            return _items(spec, channel)
        case MapSpec():
            return _map(spec, channel)
        case ScalarSpec():
            return _scalar(spec)


def compiled_document(spec: StructSpec, channel: Channel, metadata: Mapping[str, IsClean]) -> IsClean:
    """The check of a whole document. `metadata` has checks of its fields that are asked instead of those of their
    types. Rules look at what is beside metadata only."""
    fields = {**_METADATA.fields, **dict.fromkeys(metadata.keys() - _METADATA.fields.keys(), _ANYTHING)}
    own = StructSpec(_METADATA.struct, fields, _METADATA.constraint)
    instead = {"metadata": _struct(own, channel, metadata, frozenset({"name"}))}
    return _struct(spec, channel, instead, frozenset(instead))


def _struct(
    spec: StructSpec,
    channel: Channel,
    instead: Mapping[str, IsClean] = MappingProxyType({}),
    needed: frozenset[str] = frozenset(),
) -> IsClean:
    fields: dict[str, tuple[bool, _Good, IsClean, IsClean | None]] = {}
    for key, field in spec.fields.items():
        check = instead.get(key) or compiled(field.type, channel)
        rules = _rules(rules_at(spec.struct, key, channel))
        plain = rules is None
        fields[key] = (check is _is_text and plain, _GOOD.get(check, _NONE) if plain else _NONE, check, rules)
    required = needed.union(key for key, field in spec.fields.items() if field.required)
    keeps_rules = _rules(rules_at(spec.struct, None, channel))
    size_is_fine = _size(spec.constraint)

    def is_clean(value: Any) -> bool:
        if type(value) is not dict or not required <= value.keys():
            return False
        for key, item in value.items():
            known = fields.get(key)
            if known is None:
                return False
            is_text, good, check, keeps = known
            # Most values are scalars that were seen before, so no function is called for them.
            type_ = type(item)
            if (is_text and type_ is str) or item in good.get(type_, ()):
                continue
            if not check(item) or (keeps is not None and not keeps(item)):
                return False
        if size_is_fine is not None and not size_is_fine(value):
            return False
        return keeps_rules is None or keeps_rules(value)

    return is_clean


def _rules(rules: tuple[Rule, ...]) -> IsClean | None:
    """Whether a value keeps all rules; those with the same quick look are looked at once."""
    if not rules:
        return None
    groups: dict[IsClean | None, list[Check]] = {}
    for rule in rules:
        groups.setdefault(rule.kept, []).append(rule.check)
    one_by_one = tuple(groups.pop(None, ()))
    looks = tuple((kept, tuple(checks)) for kept, checks in groups.items() if kept is not None)

    if not one_by_one and len(looks) == 1 and looks[0][0] is is_alone:
        compare = looks[0][1]
        return lambda items: len(items) < 2 or not any(True for check in compare for _ in check(items))

    def keeps_rules(value: Any) -> bool:
        for check in one_by_one:
            for _ in check(value):
                return False
        for kept, checks in looks:
            if not kept(value):
                for check in checks:
                    for _ in check(value):
                        return False
        return True

    return keeps_rules


def _size(constraint: Constraint) -> IsClean | None:
    low, high = constraint.min_properties or 0, constraint.max_properties
    if not low and high is None:
        return None
    return lambda value: low <= len(value) and (high is None or len(value) <= high)


def _items(spec: ItemsSpec, channel: Channel) -> IsClean:
    constraint = spec.constraint
    low, high = constraint.min_items or 0, constraint.max_items
    item_is_clean = compiled(spec.items, channel)
    is_text, good = item_is_clean is _is_text, _GOOD.get(item_is_clean, _NONE)
    keys = constraint.list_map_keys if constraint.list_type == "map" else None
    unique = constraint.list_type in ("map", "set")

    def is_clean(value: Any) -> bool:
        if type(value) is not list or len(value) < low or (high is not None and len(value) > high):
            return False
        for item in value:
            type_ = type(item)
            if (is_text and type_ is str) or item in good.get(type_, ()):
                continue
            if not item_is_clean(item):
                return False
        if not unique or len(value) < 2:
            return True
        if keys is None:
            return len(set(value)) == len(value)
        return len({tuple([item.get(key) for key in keys]) for item in value}) == len(value)

    return is_clean


def _map(spec: MapSpec, channel: Channel) -> IsClean:
    value_is_clean = compiled(spec.values, channel)
    size_is_fine = _size(spec.constraint)

    def is_clean(value: Any) -> bool:
        if type(value) is not dict or (size_is_fine is not None and not size_is_fine(value)):
            return False
        return all(type(key) is str and value_is_clean(item) for key, item in value.items())

    return is_clean


def _scalar(spec: ScalarSpec) -> IsClean:
    checks: dict[type, IsClean] = {}
    if "boolean" in spec.kinds:
        checks[bool] = lambda value: True
    if "integer" in spec.kinds or "number" in spec.kinds:
        checks[int] = _integer(spec.constraint)
    good: _Good = {bool: set(), int: set(), str: set()}
    if "string" in spec.kinds:
        checks[str] = lambda value: text_is_fine(spec.constraint, value)

    def is_clean(value: Any) -> bool:
        type_ = type(value)
        check = checks.get(type_)
        if check is None:
            return False
        known = good[type_]
        if value in known:
            return True
        if not check(value):
            return False
        if type_ is not str or len(value) <= _LONGEST:
            if len(known) >= _REMEMBERED:
                known.clear()
            known.add(value)
        return True

    if tuple(checks) == (str,) and spec.constraint == Constraint():
        return _is_text
    _GOOD[is_clean] = good
    return is_clean


def _integer(constraint: Constraint) -> IsClean:
    if constraint.enum is not None:
        return lambda value: number_is_fine(constraint, value)
    low, high = bounds(constraint)
    smallest = -(2**63) if low is None else max(low, -(2**63))
    largest = 2**63 - 1 if high is None else min(high, 2**63 - 1)
    return lambda value: smallest <= value <= largest


def _is_text(value: Any) -> bool:
    return type(value) is str


_ANYTHING = FieldSpec("", "", ScalarSpec(("any",), Constraint()), False, False, None, "", False)
_METADATA = struct_spec(ObjectMeta)
_NONE: _Good = {}
_GOOD: dict[IsClean, _Good] = {}
"""What a check of scalars remembers, for those who call it."""
