"""The CEL rules of structural schemas (`x-kubernetes-validations`): which can be used, and what they refuse. Pure.

A rule is asked about the value at its place (`self`) and, where it names `oldSelf`, only if there was a value at that
place before: by name within objects and maps, by key within keyed lists, not at all within others.
Source: the validation rules of apiextensions.k8s.io/v1.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from propylon.server.expressions import Expression, ExpressionError, compiled, escaped

Cause = tuple[str, str, str]
RULES = "x-kubernetes-validations"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_BLOCKING = frozenset(
    {
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
    }
)
NOT_CHECKED: Cause = (
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
    "<nil>",
)
_NOTHING = object()


def check_rules(schema: Any, path: str) -> tuple[list[Cause], list[str]]:
    """The rules of a schema that are malformed, as causes, and those that are not evaluated here, as warnings."""
    causes: list[Cause] = []
    warnings: list[str] = []
    for where, rule in _all_rules(schema, path):
        for field, text, optional in _expressions(rule):
            try:
                compiled(text, optional_old=optional)
            except ExpressionError as error:
                if error.malformed:
                    message = f"Invalid value: {json.dumps(text)}: compilation failed: {error}"
                    causes.append(("FieldValueInvalid", message, f"{where}.{field}"))
                else:
                    warnings.append(f"{where}.{field} is not evaluated: {error}")
    return causes, warnings


def has_rules(schema: Any) -> bool:
    """Whether there is any rule in the schema."""
    return next(_all_rules(schema, ""), None) is not None


def _all_rules(schema: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(schema, Mapping):
        return
    rules = schema.get(RULES)
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, Mapping) and isinstance(rule.get("rule"), str):
            yield f"{path}.{RULES}[{index}]", rule
    properties = schema.get("properties")
    for name, below in properties.items() if isinstance(properties, Mapping) else ():
        yield from _all_rules(below, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        yield from _all_rules(schema.get(name), f"{path}.{name}")


def _expressions(rule: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    optional = rule.get("optionalOldSelf") is True
    yield "rule", rule["rule"], optional
    if isinstance(rule.get("messageExpression"), str):
        yield "messageExpression", rule["messageExpression"], optional


def rule_causes(schema: Mapping[str, Any], document: Any, old: Any, earlier: list[Cause]) -> list[Cause]:
    """What the rules refuse; `old` is the object as it was (None for a new one), `earlier` what the schema refused."""
    checker = _checker(_Hashable(schema))
    if checker is None:
        return []
    if any(reason in _BLOCKING for reason, _, _ in earlier):
        return [NOT_CHECKED]
    causes: list[Cause] = []
    checker.check(document, _NOTHING if old is None else old, "", causes)
    return causes


class _Hashable:
    """A schema as a key of the cache: the same object is the same schema."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and other.schema is self.schema


@lru_cache(maxsize=256)
def _checker(holder: _Hashable) -> _Checker | None:
    return _Checker(holder.schema) if has_rules(holder.schema) else None


class _Rule:
    """One rule, ready."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.text = said["rule"]
        optional = said.get("optionalOldSelf") is True
        self.expression: Expression | None = _usable(self.text, optional)
        told = said.get("messageExpression")
        self.message_expression = _usable(told, optional) if isinstance(told, str) else None
        self.message = str(said.get("message") or f"failed rule: {self.text.strip()}")
        self.reason = str(said.get("reason") or "FieldValueInvalid")
        self.field_path = str(said.get("fieldPath") or "")
        self.needs_old = not optional and re.search(r"\boldSelf\b", self.text) is not None


def _usable(text: str, optional: bool) -> Expression | None:
    try:
        return compiled(text, optional_old=optional)
    except ExpressionError:
        return None


class _Checker:
    """The rules of one place in a schema and of everything below that has any."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        rules = schema.get(RULES)
        usable = [
            _Rule(rule) for rule in rules or () if isinstance(rule, Mapping) and isinstance(rule.get("rule"), str)
        ]
        self._rules = [rule for rule in usable if rule.expression is not None]
        properties = schema.get("properties")
        self._properties = {
            name: _Checker(below)
            for name, below in (properties.items() if isinstance(properties, Mapping) else ())
            if has_rules(below)
        }
        self._items = self._below("items")
        self._additional = self._below("additionalProperties")

    def _below(self, name: str) -> _Checker | None:
        return _Checker(self._schema[name]) if has_rules(self._schema.get(name)) else None

    def check(self, value: Any, old: Any, path: str, causes: list[Cause]) -> None:
        """Add what is refused of the value at that path; `old` is _NOTHING where there was none."""
        if value is None:
            return
        if self._rules:
            shown = readable(self._schema, value)
            before = None if old is _NOTHING or old is None else readable(self._schema, old)
            for rule in self._rules:
                if rule.needs_old and before is None:
                    continue
                cause = _broken(rule, shown, before, value, path)
                if cause is not None:
                    causes.append(cause)
        if isinstance(value, Mapping):
            held = old if isinstance(old, Mapping) else {}
            for name, item in value.items():
                below = self._properties.get(name)
                if below is not None:
                    below.check(item, held.get(name, _NOTHING), f"{path}.{name}", causes)
                elif self._additional is not None and name not in (self._schema.get("properties") or {}):
                    self._additional.check(item, held.get(name, _NOTHING), f"{path}[{name}]", causes)
        elif isinstance(value, list) and self._items is not None:
            earlier = self._by_key(old)
            for index, item in enumerate(value):
                self._items.check(item, earlier.get(self._key(item), _NOTHING), f"{path}[{index}]", causes)

    def _by_key(self, old: Any) -> dict[str, Any]:
        keyed = self._schema.get("x-kubernetes-list-type") == "map" and isinstance(old, list)
        return {self._key(item): item for item in old} if keyed else {}

    def _key(self, item: Any) -> str:
        if not isinstance(item, Mapping):
            return ""
        names = self._schema.get("x-kubernetes-list-map-keys") or ()
        return json.dumps([item.get(name) for name in names], sort_keys=True)


def _broken(rule: _Rule, value: Any, old: Any, plain: Any, path: str) -> Cause | None:
    assert rule.expression is not None
    result = rule.expression.evaluate(value, old, has_old=old is not None)
    if result.value is True:
        return None
    if result.error:
        message = f"rule could not be evaluated: {result.error}: {rule.text}"
    else:
        message = rule.message
        if rule.message_expression is not None:
            told = rule.message_expression.evaluate(value, old, has_old=old is not None)
            if isinstance(told.value, str) and told.value.strip() and "\n" not in told.value:
                message = told.value
    field = f"{path}{rule.field_path}".lstrip(".")
    shown = "" if isinstance(plain, Mapping | list) or rule.field_path else f"{json.dumps(plain)}: "
    match rule.reason:
        case "FieldValueForbidden":
            return rule.reason, f"Forbidden: {message}", field
        case "FieldValueRequired":
            return rule.reason, f"Required value: {message}", field
        case "FieldValueDuplicate":
            return rule.reason, f"Duplicate value: {shown.removesuffix(': ')}", field
    return "FieldValueInvalid", f"Invalid value: {shown}{message}", field


def readable(schema: Any, value: Any) -> Any:
    """A value as rules see it: names escaped, numbers of the declared type, times and durations as such."""
    if not isinstance(schema, Mapping) or value is None:
        return value
    if isinstance(value, Mapping):
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        additional = schema.get("additionalProperties")
        return {
            escaped(name) if name in known else name: readable(known.get(name, additional), item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [readable(schema.get("items"), item) for item in value]
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (
        isinstance(value, float)
        and value.is_integer()
        and (schema.get("type") == "integer" or schema.get(_INT_OR_STRING))
    ):
        return int(value)
    return _formatted(str(schema.get("format") or ""), value) if isinstance(value, str) else value


def _formatted(form: str, text: str) -> Any:
    try:
        match form:
            case "date-time" | "datetime":
                from google.protobuf.timestamp_pb2 import Timestamp  # noqa: PLC0415 - few kinds have such fields

                moment = Timestamp()
                moment.FromJsonString(text)
                return moment
            case "duration":
                return _duration(text)
            case "byte":
                return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return text
    return text


_UNITS: Mapping[str, int] = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def _duration(text: str) -> Any:
    """A duration as Go writes it ("1h30m"). Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text.lstrip("+-"))
    if "".join(number + unit for number, unit in parts) != text.lstrip("+-") or not parts:
        raise ValueError(text)
    total = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    from google.protobuf.duration_pb2 import Duration  # noqa: PLC0415 - few kinds have such fields

    found = Duration()
    found.FromNanoseconds(-total if text.startswith("-") else total)
    return found
