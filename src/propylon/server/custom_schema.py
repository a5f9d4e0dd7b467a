"""Structural schemas of CustomResourceDefinitions: pruning, defaulting and validation of objects. Pure.

For CEL rules (`x-kubernetes-validations`) see custom_rules. Source: the structural schemas of apiextensions.k8s.io/v1.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from propylon.api.validation.times import TIME_FORMATS

Cause = tuple[str, str, str]
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EMBEDDED = "x-kubernetes-embedded-resource"
_ALWAYS = ("apiVersion", "kind", "metadata")


def prune_custom(schema: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The object without the fields its schema does not have, and their paths."""
    unknown: list[str] = []
    pruned: dict[str, Any] = _prune(schema, document, "", unknown, top=True)
    return pruned, unknown


def _prune(schema: Any, value: Any, path: str, unknown: list[str], *, top: bool = False) -> Any:
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        below = schema.get("items")
        return [_prune(below, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    embedded = top or schema.get(_EMBEDDED)
    kept: dict[str, Any] = {}
    for name, item in value.items():
        where = f"{path}.{name}" if path else str(name)
        if name in properties and not (embedded and name in _ALWAYS):
            kept[name] = _prune(properties[name], item, where, unknown)
        elif isinstance(additional, Mapping):
            kept[name] = _prune(additional, item, where, unknown)
        elif schema.get(_PRESERVE) or additional is True or (embedded and name in _ALWAYS):
            kept[name] = item
        else:
            unknown.append(where)
    return kept


def default_custom(schema: Any, value: Any) -> Any:
    """The value with defaults filled in where it has objects to hold them; nulls give way to defaults."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        return [default_custom(schema.get("items"), item) for item in value]
    if not isinstance(value, Mapping):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    filled = {}
    for name, item in value.items():
        below = properties.get(name, additional if isinstance(additional, Mapping) else None)
        if item is None and isinstance(below, Mapping) and not below.get("nullable"):
            continue
        filled[name] = default_custom(below, item)
    for name, below in properties.items():
        if name not in filled and isinstance(below, Mapping) and "default" in below:
            filled[name] = default_custom(below, copy.deepcopy(below["default"]))
    return filled


def validate_custom(schema: Mapping[str, Any], document: Mapping[str, Any]) -> list[Cause]:
    """Everything that the schema refuses, as (reason, message, field)."""
    causes: list[Cause] = []
    body = {name: value for name, value in document.items() if name not in _ALWAYS}
    top = {name: value for name, value in schema.items() if name != "required"}
    top["required"] = [name for name in schema.get("required") or () if name not in _ALWAYS]
    properties = schema.get("properties") or {}
    top["properties"] = {name: value for name, value in properties.items() if name not in _ALWAYS}
    _check(top, body, "", causes)
    return causes


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error:
        return None


def _shown(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 120 else text[:117] + "..."


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _check(schema: Any, value: Any, path: str, causes: list[Cause]) -> None:
    if not isinstance(schema, Mapping):
        return
    found = _type_of(value)
    wanted = schema.get("type")
    if found == "null" and schema.get("nullable"):
        return
    if schema.get(_INT_OR_STRING):
        fits = found in ("integer", "string")
        wanted = "integer or string"
    else:
        fits = not wanted or found == wanted or (wanted == "number" and found == "integer")
    if not fits:
        causes.append(
            (
                "FieldValueTypeInvalid",
                f'Invalid value: "{found}": {path.lstrip(".")} in body must be of type {wanted}: "{found}"',
                path.lstrip("."),
            )
        )
        return
    _check_value(schema, value, path, causes)
    _check_combined(schema, value, path, causes)
    if isinstance(value, Mapping):
        _check_object(schema, value, path, causes)
    elif isinstance(value, list):
        _check_list(schema, value, path, causes)


_WORDS = {
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
}


def _refuse(causes: list[Cause], path: str, reason: str, value: Any, message: str) -> None:
    field = path.lstrip(".")
    text = message.format(field=field)
    if reason == "FieldValueDuplicate":
        text = _shown(value)
    elif reason not in ("FieldValueTooLong", "FieldValueTooMany"):
        text = f"{_shown(value)}: {text}"
    causes.append((reason, f"{_WORDS.get(reason, 'Invalid value')}: {text}", field))


def _check_value(schema: Mapping[str, Any], value: Any, path: str, causes: list[Cause]) -> None:
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        shown = ", ".join(_shown(item) for item in allowed)
        _refuse(causes, path, "FieldValueNotSupported", value, f"supported values: {shown}")
    if isinstance(value, str):
        low, high, pattern = schema.get("minLength"), schema.get("maxLength"), schema.get("pattern")
        if isinstance(low, int) and len(value) < low:
            message = f"{{field}} in body should be at least {low} chars long"
            _refuse(causes, path, "FieldValueInvalid", value, message)
        if isinstance(high, int) and len(value) > high:
            _refuse(causes, path, "FieldValueTooLong", value, f"may not be more than {high} bytes")
        compiled = _pattern(pattern) if isinstance(pattern, str) else None
        if compiled is not None and not compiled.search(value):
            escaped = str(pattern).replace("{", "{{").replace("}", "}}")
            _refuse(causes, path, "FieldValueInvalid", value, f"{{field}} in body should match '{escaped}'")
        is_time = TIME_FORMATS.get(str(schema.get("format")))
        if is_time is not None and not is_time(value):
            _refuse(causes, path, "FieldValueInvalid", value, "{field} in body must be of type date-time")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
            message = f"{{field}} in body should be greater than or equal to {low}"
            _refuse(causes, path, "FieldValueInvalid", value, message)
        if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
            message = f"{{field}} in body should be less than or equal to {high}"
            _refuse(causes, path, "FieldValueInvalid", value, message)


def _check_combined(schema: Mapping[str, Any], value: Any, path: str, causes: list[Cause]) -> None:
    def fits(below: Any) -> bool:
        found: list[Cause] = []
        _check(below, value, path, found)
        return not found

    for below in schema.get("allOf") or ():
        _check(below, value, path, causes)
    any_of, one_of, not_ = schema.get("anyOf"), schema.get("oneOf"), schema.get("not")
    if any_of and not any(fits(below) for below in any_of):
        _refuse(causes, path, "FieldValueInvalid", value, '"{field}" must validate at least one schema (anyOf)')
    if one_of and sum(fits(below) for below in one_of) != 1:
        _refuse(causes, path, "FieldValueInvalid", value, '"{field}" must validate one and only one schema (oneOf)')
    if not_ and fits(not_):
        _refuse(causes, path, "FieldValueInvalid", value, '"{field}" must not validate the schema (not)')


def _check_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str, causes: list[Cause]) -> None:
    missing = [name for name in schema.get("required") or () if name not in value]
    causes += [("FieldValueRequired", "Required value", f"{path}.{name}".lstrip(".")) for name in missing]
    low, high = schema.get("minProperties"), schema.get("maxProperties")
    if isinstance(low, int) and len(value) < low:
        message = f"{{field}} in body should have at least {low} properties"
        _refuse(causes, path, "FieldValueInvalid", len(value), message)
    if isinstance(high, int) and len(value) > high:
        _refuse(causes, path, "FieldValueTooMany", len(value), f"{len(value)}: must have at most {high} items")
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        below = properties.get(name, additional if isinstance(additional, Mapping) else None)
        if schema.get(_EMBEDDED) and name in _ALWAYS:
            continue
        _check(below, item, f"{path}.{name}", causes)


def _check_list(schema: Mapping[str, Any], value: list[Any], path: str, causes: list[Cause]) -> None:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if isinstance(low, int) and len(value) < low:
        message = f"{{field}} in body should have at least {low} items"
        _refuse(causes, path, "FieldValueInvalid", len(value), message)
    if isinstance(high, int) and len(value) > high:
        _refuse(causes, path, "FieldValueTooMany", len(value), f"{len(value)}: must have at most {high} items")
    for index, item in enumerate(value):
        _check(schema.get("items"), item, f"{path}[{index}]", causes)
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    if kind not in ("map", "set"):
        return
    seen = set()
    for index, item in enumerate(value):
        identity: Any = item
        if kind == "map":
            identity = {name: item.get(name) for name in keys} if isinstance(item, Mapping) else item
        text = json.dumps(identity, sort_keys=True)
        if text in seen:
            _refuse(causes, f"{path}[{index}]", "FieldValueDuplicate", identity, "")
        seen.add(text)
