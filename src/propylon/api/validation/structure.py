"""Types, required fields and the constraints beside the types, checked at every place of a document at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec
from propylon.api.schema import Channel, Constraint
from propylon.api.validation.core import KNOWN_ELSEWHERE, OPEN_STRUCTS
from propylon.api.validation.finding import Finding, Severity, placeholder_in, shown, type_name
from propylon.api.validation.registry import rules_at
from propylon.api.validation.rules import Rule
from propylon.api.validation.scalars import bounds, is_integer, is_time, looks_unfilled, matches


class Walk:
    """One pass over one document; `findings` fills up as it goes. `hide` keeps values out of findings (for Secrets)."""

    def __init__(self, channel: Channel, *, hide: bool = False) -> None:
        self.channel = channel
        self.hide = hide
        self.findings: list[Finding] = []

    def add(self, code: str, field: str, found: Any, message: str, remedy: str, severity: Severity = "error") -> None:
        """Records a finding; a value that is an unfilled blank is called that instead, whatever rule it breaks."""
        text = "(hidden)" if self.hide and not field.startswith("metadata") else shown(found)
        if found is None:
            text = ""
        blank = placeholder_in(found)
        if blank is not None and severity == "error":
            code, message = "placeholder_not_filled_in", f"{shown(blank)} is a placeholder ({message})"
            remedy = f"Replace {blank} with a real value."
        self.findings.append(Finding(severity, code, field, text, message, remedy))

    def visit(self, spec: TypeSpec, value: Any, path: str) -> bool:
        """Checks a value; False if something in it has the wrong type, so that rules cannot look into it."""
        match spec:
            case StructSpec():
                return self._struct(spec, value, path)
            case ItemsSpec():
                return self._items(spec, value, path)
            case MapSpec():
                return self._map(spec, value, path)
            case ScalarSpec():
                return self._scalar(spec, value, path)

    # --- structs ---

    def _struct(self, spec: StructSpec, value: Any, path: str) -> bool:
        if not isinstance(value, Mapping):
            name = spec.struct.__name__
            self._wrong_type(path, value, f"a mapping ({name})", "Write its fields below it, indented.")
            return False
        well_typed, complete = True, True
        for key, item in value.items():
            field = spec.fields.get(key)
            if field is None:
                self.unknown_field(spec, key, item, path)
                continue
            where = f"{path}.{key}" if path else str(key)
            if self.visit(field.type, item, where):
                self.apply(rules_at(spec.struct, key, self.channel), item, where)
            else:
                well_typed = False
        for key, field in spec.fields.items():
            if field.required and key not in value:
                complete = False
                self._missing(field, f"{path}.{key}" if path else key)
        known = {key: item for key, item in value.items() if key in spec.fields}
        self._properties(spec.constraint, known, path)
        if well_typed and complete:
            self.apply(rules_at(spec.struct, None, self.channel), value, path)
        return well_typed

    def _missing(self, field: FieldSpec, path: str) -> None:
        about = f" ({field.doc})" if field.doc else ""
        self.add("required_field_missing", path, None, "a required field is missing", f"Add {field.name}{about}.")

    def unknown_field(self, spec: StructSpec, key: Any, item: Any, path: str) -> None:
        """Warns about a field that the struct does not have, with the nearest one that it has."""
        if not isinstance(key, str):  # YAML allows it, JSON does not
            self._wrong_key(path, key)
            return
        name = spec.struct.__name__
        if name in OPEN_STRUCTS or key in KNOWN_ELSEWHERE.get(name, ()):
            return
        where = f"{path}.{key}" if path else key
        if self.channel == "standard" and any(f.encode_name == key for f in msgspec.structs.fields(spec.struct)):
            remedy = "Install the experimental channel's CRDs, or remove the field."
            self.add(
                "field_of_experimental_channel",
                where,
                item,
                f"{key} exists in the experimental channel only and is dropped",
                remedy,
                "warning",
            )
            return
        near = difflib.get_close_matches(key.lower(), {k.lower(): k for k in spec.fields}, n=1, cutoff=0.6)
        names = {k.lower(): k for k in spec.fields}
        remedy = f'Did you mean "{names[near[0]]}"?' if near else f"Known here: {', '.join(spec.fields)}."
        self.add("unknown_field", where, item, f'{name} has no field "{key}"; it is ignored', remedy, "warning")

    def _properties(self, constraint: Constraint, value: Mapping[str, Any], path: str) -> None:
        if constraint.min_properties is not None and len(value) < constraint.min_properties:
            self.add("too_few_entries", path, value, f"at least {constraint.min_properties} needed", "Add one.")
        if constraint.max_properties is not None and len(value) > constraint.max_properties:
            limit = constraint.max_properties
            self.add("too_many_entries", path, len(value), f"at most {limit} allowed", f"Keep {limit} of them.")

    # --- lists and maps ---

    def _items(self, spec: ItemsSpec, value: Any, path: str) -> bool:
        if not isinstance(value, list | tuple):
            name = spec.items.struct.__name__ if isinstance(spec.items, StructSpec) else "values"
            remedy = (
                'Put "- " in front of each item.' if isinstance(value, Mapping) else 'Write it as a list item: "- …".'
            )
            self._wrong_type(path, value, f"a list of {name}", remedy)
            return False
        constraint = spec.constraint
        if constraint.min_items is not None and len(value) < constraint.min_items:
            self.add("too_few_items", path, value, f"at least {constraint.min_items} needed", "Add one.")
        if constraint.max_items is not None and len(value) > constraint.max_items:
            limit = constraint.max_items
            self.add("too_many_items", path, len(value), f"at most {limit} items allowed", f"Keep {limit} of them.")
        well_typed = True
        for index, item in enumerate(value):
            well_typed &= self.visit(spec.items, item, f"{path}[{index}]")
        if well_typed:
            self._unique(constraint, value, path)
        return well_typed

    def _unique(self, constraint: Constraint, value: Any, path: str) -> None:
        if constraint.list_type not in ("map", "set"):
            return
        seen: set[Any] = set()
        for index, item in enumerate(value):
            key: Any = item
            if constraint.list_map_keys is not None:
                key = tuple(item.get(name) for name in constraint.list_map_keys)
            if key in seen:
                names = ", ".join(constraint.list_map_keys or ())
                where = f"{path}[{index}]" + (f".{names}" if names and "," not in names else "")
                found = key[0] if isinstance(key, tuple) and len(key) == 1 else key
                message = f"another item has the same {names}" if names else "the value is repeated"
                self.add("duplicate_item", where, found, message, "Remove one of the two.")
            seen.add(key)

    def _map(self, spec: MapSpec, value: Any, path: str) -> bool:
        if not isinstance(value, Mapping):
            self._wrong_type(path, value, "a mapping", "Write it as `key: value` lines below it, indented.")
            return False
        self._properties(spec.constraint, value, path)
        well_typed = True
        for key, item in value.items():
            if not isinstance(key, str):
                self._wrong_key(path, key)
                well_typed = False
            well_typed &= self.visit(spec.values, item, f'{path}["{key}"]')
        return well_typed

    # --- scalars ---

    def _scalar(self, spec: ScalarSpec, value: Any, path: str) -> bool:
        match value:
            case bool():
                kind = "boolean"
            case int() | float():
                kind = "integer" if is_integer(value) else "number"
            case str():
                kind = "string"
            case list() if spec.constraint.format == "date-time":
                return True  # the API server's validation lets any list pass as a formatted string
            case _:
                kind = "other"
        if kind not in spec.kinds and spec.kinds != ("any",):
            self._wrong_type(
                path, value, " or ".join(_article(name) for name in spec.kinds), _scalar_remedy(spec, value)
            )
            return False
        constraint = spec.constraint
        if constraint.enum is not None and value not in constraint.enum:
            self._enum(constraint.enum, value, path)
        elif isinstance(value, str):
            self._text(constraint, value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._number(constraint, value, path)
        return True

    def _enum(self, allowed: tuple[str | int, ...], value: Any, path: str) -> None:
        near = difflib.get_close_matches(str(value), [str(name) for name in allowed], n=1, cutoff=0.6)
        names = {str(name).lower(): str(name) for name in allowed}
        guess = near[0] if near else names.get(str(value).lower())
        remedy = f'Did you mean "{guess}"?' if guess else f"Use one of {', '.join(map(str, allowed))}."
        self.add("unknown_value", path, value, f"expected one of {', '.join(map(str, allowed))}", remedy)

    def _text(self, constraint: Constraint, value: str, path: str) -> None:
        if constraint.min_length is not None and len(value) < constraint.min_length:
            self.add("too_short", path, value, f"at least {constraint.min_length} character(s) needed", "Fill it in.")
        elif constraint.max_length is not None and len(value) > constraint.max_length:
            message = f"at most {constraint.max_length} characters allowed, found {len(value)}"
            self.add("too_long", path, value, message, "Shorten it.")
        elif looks_unfilled(constraint, value):
            # Names have no pattern of their own, so nothing else would notice a blank.
            remedy = f"Replace {value} with a real name."
            self.add("placeholder_not_filled_in", path, value, f"{value} is a placeholder", remedy, "warning")
        elif constraint.pattern is not None and not matches(constraint.pattern, value):
            self.add(
                "invalid_format",
                path,
                value,
                constraint.says or f"must match {constraint.pattern}",
                _pattern_remedy(value, constraint),
            )
        if not is_time(constraint, value):
            self.add(
                "invalid_date_time", path, value, "must be an RFC 3339 time", 'Write it like "2026-01-02T15:04:05Z".'
            )

    def _number(self, constraint: Constraint, value: float, path: str) -> None:
        low, high = bounds(constraint)
        if low is not None and value < low:
            self.add("too_small", path, value, f"at least {low} needed", f"Use a number from {low} on.")
        elif high is not None and value > high:
            self.add("too_large", path, value, f"at most {high} allowed", f"Use a number up to {high}.")

    def _wrong_type(self, path: str, value: Any, expected: str, remedy: str) -> None:
        found = value if isinstance(value, str | int | float | list | Mapping) else None
        self.add("wrong_type", path, found, f"expected {expected}, found {type_name(value)}", remedy)

    def _wrong_key(self, path: str, key: Any) -> None:
        self._wrong_type(f'{path}["{key}"]', key, "a string as key", "Put quotes around the key.")

    # --- rules ---

    def apply(self, rules: tuple[Rule, ...], value: Any, path: str) -> None:
        """Applies rules to a well-typed value. What a rule says about a field replaces what its constraints said."""
        for rule in rules:
            for violation in rule.check(value):
                field = (path + violation.path).removeprefix(".")
                vague = ("invalid_format", "duplicate_item")
                self.findings = [f for f in self.findings if f.field != field or f.code not in vague]
                self.add(rule.code, field, violation.found, rule.message, rule.remedy)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _scalar_remedy(spec: ScalarSpec, value: Any) -> str:
    if "string" in spec.kinds and isinstance(value, bool | int | float):
        return "Put quotes around it."
    if "integer" in spec.kinds and isinstance(value, str):
        return "Remove the quotes." if value.strip().isdigit() else "Write a whole number."
    if "boolean" in spec.kinds:
        return "Write true or false."
    if value is None:
        return "Fill it in, or remove it."
    return f"Write {' or '.join(_article(kind) for kind in spec.kinds)}."


def _pattern_remedy(value: str, constraint: Constraint) -> str:
    pattern = constraint.pattern or ""
    if value != value.strip() and matches(pattern, value.strip()):
        return "Remove the spaces around it."
    if value != value.lower() and matches(pattern, value.lower()):
        return f'Write it in lower case: "{value.lower()}".'
    if "://" in value:
        return "Leave out the scheme: only the name itself belongs here."
    if ":" in value and matches(pattern, value.partition(":")[0]):
        return "Leave out the port: it has a field of its own."
    return "Correct it."
