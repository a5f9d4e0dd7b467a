"""Defaulting of raw documents, as the API server does it: derived from the structs, so that there is no second list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from propylon.api.core import ServicePort
from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.kinds import by_kind
from propylon.api.meta import group_of
from propylon.api.schema import Channel


def apply_defaults(document: Mapping[str, Any], *, channel: Channel = "experimental") -> dict[str, Any]:
    """A new document with every default of its kind and version filled in, at every depth where the parent exists.

    Nulls of fields that have a default are replaced by it, other nulls dropped. Everything unknown is kept, and
    documents of kinds nobody interprets come back unchanged. Wrong types are left alone: validation names them.
    """
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return dict(document)
    info = by_kind(group_of(api_version), kind)
    if info is None:
        return dict(document)
    filled: dict[str, Any] = _top_filler(info.schema(api_version.rpartition("/")[2]), channel)(document)
    return filled


def without_nulls_of(spec: TypeSpec, value: Any) -> Any:
    """A copy without nulls of known fields and of mappings' entries, which count as absent; others are kept."""
    match spec:
        case StructSpec() if isinstance(value, Mapping):
            return {
                key: without_nulls_of(spec.fields[key].type, item) if key in spec.fields else item
                for key, item in value.items()
                if item is not None or key not in spec.fields
            }
        case ItemsSpec() if isinstance(value, list | tuple):
            return [without_nulls_of(spec.items, item) for item in value]
        case MapSpec() if isinstance(value, Mapping):
            return {key: without_nulls_of(spec.values, item) for key, item in value.items() if item is not None}
    return value


_Fill = Callable[[Any], Any]


@cache
def _filler(spec: TypeSpec) -> _Fill | None:
    """The function that fills in a value of a type; None for one that has nothing to fill in."""
    match spec:
        case StructSpec():
            return _struct_filler(spec)
        case ItemsSpec():
            fill = _filler(spec.items)

            def fill_items(value: Any) -> Any:
                if not isinstance(value, list | tuple):
                    return value
                return list(value) if fill is None else [fill(item) for item in value]

            return fill_items
        case MapSpec():
            fill = _filler(spec.values)

            def fill_map(value: Any) -> Any:
                if not isinstance(value, Mapping):
                    return value
                entries = ((key, item) for key, item in value.items() if item is not None)
                return {key: item if fill is None else fill(item) for key, item in entries}

            return fill_map
    return None


def _struct_filler(spec: StructSpec) -> _Fill:
    fills = {key: _filler(field.type) for key, field in spec.fields.items()}
    # A default that is one value can be shared; of what has parts every document gets a copy.
    defaults = tuple((key, default_of(field)) for key, field in spec.fields.items() if field.has_default)
    special = _SPECIAL.get(spec.struct)

    def fill_struct(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        filled: dict[str, Any] = {}
        for key, item in value.items():
            if item is not None:
                fill = fills.get(key)
                filled[key] = item if fill is None else fill(item)
            elif key not in fills:
                filled[key] = None
        for key, default in defaults:
            if key not in filled:
                filled[key] = _copied(default) if isinstance(default, dict | list) else default
        if special is not None:
            special(filled)
        return filled

    return fill_struct


@cache
def _top_filler(schema: type, channel: Channel) -> _Fill:
    spec = struct_spec(schema, channel)
    fields = {key: field for key, field in spec.fields.items() if key not in ("apiVersion", "kind", "metadata")}
    return _struct_filler(StructSpec(spec.struct, fields, spec.constraint))


def default_of(field: FieldSpec) -> Any:
    """A field's default as it is written in a document."""
    default = msgspec.to_builtins(_sparse(field.default))
    fill = _filler(field.type)
    return default if fill is None else fill(default)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _sparse(value: Any) -> Any:
    # Absent optional fields of a default struct stay absent.
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _sparse(item)
            for field in msgspec.structs.fields(value)
            if (item := getattr(value, field.name)) is not None and item not in ((), {})
        }
    if isinstance(value, tuple):
        return [_sparse(item) for item in value]
    return value


def _target_port_is_port(port: dict[str, Any]) -> None:
    target = port.get("targetPort")
    if "port" in port and not isinstance(target, bool) and target in (None, "", 0):
        port["targetPort"] = port["port"]


_SPECIAL: dict[type, Callable[[dict[str, Any]], None]] = {ServicePort: _target_port_is_port}
