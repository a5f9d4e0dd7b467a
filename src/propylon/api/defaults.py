"""Defaulting of raw documents, as the API server does it: derived from the structs, so that there is no second list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any

import msgspec

from propylon.api.core import ServicePort
from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.kinds import by_kind
from propylon.api.meta import group_of
from propylon.api.schema import Channel


def apply_defaults(document: Mapping[str, Any], *, channel: Channel = "experimental") -> dict[str, Any]:
    """A new document with every default of its kind and version filled in, at every depth where the parent exists.

    It shares with the given one whatever lacks nothing, so neither may be changed in place below its first level.
    Nulls of fields that have a default are replaced by it, other nulls dropped. Everything unknown is kept, and
    documents of kinds nobody interprets come back unchanged. Wrong types are left alone: validation names them.
    """
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return dict(document)
    fill = _document_filler(api_version, kind, channel)
    filled: dict[str, Any] = document if fill is None else fill(document)  # type: ignore[assignment]
    return dict(document) if filled is document else filled


def complete_status(document: Mapping[str, Any], *, channel: Channel = "experimental") -> Any:
    """The status of a document that has one (not null) with every default filled in, as `apply_defaults` has it."""
    fill = _status_filler(document["apiVersion"], document["kind"], channel)
    return document["status"] if fill is None else fill(document["status"])


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
"""Gives back the value itself where it lacks nothing: most have been filled in before."""


@cache
def _filler(spec: TypeSpec) -> _Fill | None:
    """The function that fills in a value of a type; None for one that has nothing to fill in."""
    match spec:
        case StructSpec():
            return _struct_filler(spec)
        case ItemsSpec():
            fill = _filler(spec.items)
            return _as_list if fill is None else _items_filler(fill)
        case MapSpec():
            return _map_filler(_filler(spec.values))
    return None


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _items_filler(fill: _Fill) -> _Fill:
    def fill_items(value: Any) -> Any:
        if not isinstance(value, list):
            return [fill(item) for item in value] if isinstance(value, tuple) else value
        filled = value
        for index, item in enumerate(value):
            whole = fill(item)
            if whole is not item:
                if filled is value:
                    filled = list(value)
                filled[index] = whole
        return filled

    return fill_items


def _map_filler(fill: _Fill | None) -> _Fill:
    def fill_map(value: Any) -> Any:
        if type(value) is dict and fill is None and None not in value.values():
            return value
        if not isinstance(value, Mapping):
            return value
        entries = ((key, item) for key, item in value.items() if item is not None)
        return {key: item if fill is None else fill(item) for key, item in entries}

    return fill_map


def _struct_filler(spec: StructSpec) -> _Fill:
    known = frozenset(spec.fields)
    fills = {key: fill for key, field in spec.fields.items() if (fill := _filler(field.type)) is not None}
    defaults = tuple((key, *_made(default_of(field))) for key, field in spec.fields.items() if field.has_default)
    special = _SPECIAL.get(spec.struct)

    def fill_struct(value: Any) -> Any:
        if type(value) is not dict:
            if not isinstance(value, Mapping):
                return value
            value = dict(value)
        filled = value
        for key, item in value.items():
            if item is None:
                if key in known:
                    if filled is value:
                        filled = dict(value)
                    del filled[key]
            elif (fill := fills.get(key)) is not None and (fill is not _as_list or type(item) is not list):
                whole = fill(item)
                if whole is not item:
                    if filled is value:
                        filled = dict(value)
                    filled[key] = whole
        for key, default, make in defaults:
            if key not in filled:
                if filled is value:
                    filled = dict(value)
                filled[key] = default if make is None else make()
        return filled if special is None else special(filled)

    return fill_struct


@lru_cache(maxsize=1024)
def _document_filler(api_version: str, kind: str, channel: Channel) -> _Fill | None:
    """None for kinds nobody interprets."""
    spec = _document_spec(api_version, kind, channel)
    if spec is None:
        return None
    fields = {key: field for key, field in spec.fields.items() if key not in ("apiVersion", "kind", "metadata")}
    return _struct_filler(StructSpec(spec.struct, fields, spec.constraint))


@lru_cache(maxsize=1024)
def _status_filler(api_version: str, kind: str, channel: Channel) -> _Fill | None:
    spec = _document_spec(api_version, kind, channel)
    return None if spec is None or "status" not in spec.fields else _filler(spec.fields["status"].type)


def _document_spec(api_version: str, kind: str, channel: Channel) -> StructSpec | None:
    info = by_kind(group_of(api_version), kind)
    return None if info is None else struct_spec(info.schema(api_version.rpartition("/")[2]), channel)


def default_of(field: FieldSpec) -> Any:
    """A field's default as it is written in a document."""
    default = msgspec.to_builtins(_sparse(field.default))
    fill = _filler(field.type)
    return default if fill is None else fill(default)


def _made(default: Any) -> tuple[Any, Callable[[], Any] | None]:
    """A default, and what makes another of its kind: one value can be shared, what has parts gets made for each."""
    if not isinstance(default, dict | list):
        return default, None
    return None, partial(msgspec.json.decode, msgspec.json.encode(default))


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


def _target_port_is_port(port: dict[str, Any]) -> dict[str, Any]:
    target = port.get("targetPort")
    if "port" in port and not isinstance(target, bool) and target in (None, "", 0):
        return {**port, "targetPort": port["port"]}
    return port


_SPECIAL: dict[type, Callable[[dict[str, Any]], dict[str, Any]]] = {ServicePort: _target_port_is_port}
