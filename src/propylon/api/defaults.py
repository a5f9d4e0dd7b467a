"""Defaulting of raw documents, as the API server does it: derived from the structs, so that there is no second list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    spec = struct_spec(info.schema(api_version.rpartition("/")[2]), channel)
    return _fill_struct(spec, document, top=True)


def _fill(spec: TypeSpec, value: Any) -> Any:
    match spec:
        case StructSpec() if isinstance(value, Mapping):
            return _fill_struct(spec, value)
        case ItemsSpec() if isinstance(value, list | tuple):
            return [_fill(spec.items, item) for item in value]
        case MapSpec() if isinstance(value, Mapping):
            return {key: _fill(spec.values, item) for key, item in value.items()}
    return value


def _fill_struct(spec: StructSpec, value: Mapping[str, Any], *, top: bool = False) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for key, item in value.items():
        field = spec.fields.get(key)
        if item is None and field is not None:
            continue
        untouched = field is None or (top and key in ("apiVersion", "kind", "metadata"))
        filled[key] = item if untouched or field is None else _fill(field.type, item)
    for key, field in spec.fields.items():
        if key not in filled and field.has_default and not (top and key in ("apiVersion", "kind")):
            filled[key] = default_of(field)
    special = _SPECIAL.get(spec.struct)
    if special is not None:
        special(filled)
    return filled


def default_of(field: FieldSpec) -> Any:
    """A field's default as it is written in a document."""
    return _fill(field.type, msgspec.to_builtins(_sparse(field.default)))


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
