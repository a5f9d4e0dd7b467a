"""Validation: what the API server would refuse, and what it would silently drop, with field paths and remedies.

Structural constraints come from the structs; rules across fields (the CRDs' CEL rules) are functions named after what
they demand. Everything wrong is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from propylon.api.defaults import apply_defaults, without_nulls_of
from propylon.api.introspect import StructSpec, struct_spec
from propylon.api.kinds import KindInfo, by_kind
from propylon.api.meta import ObjectMeta, group_of
from propylon.api.schema import Channel
from propylon.api.validation.clean import IsClean, compiled, compiled_document
from propylon.api.validation.finding import Finding
from propylon.api.validation.metadata import check_metadata, quick_checks
from propylon.api.validation.registry import RULES, rules_at
from propylon.api.validation.structure import Walk

__all__ = ["RULES", "Finding", "status_is_fine", "validate"]

_METADATA = struct_spec(ObjectMeta)
_CHECKED_BY_HAND = ("name", "namespace", "labels", "annotations")


def validate(
    document: Mapping[str, Any],
    *,
    channel: Channel = "experimental",
    old: Mapping[str, Any] | None = None,
    complete: bool = False,
) -> tuple[Finding, ...]:
    """Everything wrong with a raw document, in the order of its fields; `complete` says that defaults are filled in.

    `old` is the stored object when this is an update, for fields that must not change. Objects of kinds nobody
    interprets are checked for apiVersion, kind and metadata only.
    """
    api_version, kind = document.get("apiVersion"), document.get("kind")
    filled: Mapping[str, Any] | None = None
    if type(api_version) is str and type(kind) is str and (is_clean := _quick_look(api_version, kind, channel)):
        filled = _complete(document, channel, complete)
        if is_clean(filled) and (old is None or kind not in _IMMUTABLE):
            return ()
    walk = Walk(channel)
    for field, value in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            remedy = f"Add {field}, as a string."
            walk.add("required_field_missing", field, value, f"a document needs {field}", remedy)
    info = by_kind(group_of(api_version), kind) if isinstance(api_version, str) and isinstance(kind, str) else None
    metadata = document.get("metadata")
    check_metadata(metadata, info, walk.add)
    if isinstance(metadata, Mapping):
        rest = {key: item for key, item in metadata.items() if key not in _CHECKED_BY_HAND}
        if rest:
            walk.visit(_METADATA, without_nulls_of(_METADATA, rest), "metadata")
    if info is None or not isinstance(api_version, str):
        return tuple(walk.findings)
    version = api_version.rpartition("/")[2]
    served = info.served_in(channel)
    if version not in served:
        newest = f"Use {info.api_version_of(served[0])}." if served else "It exists in the experimental channel only."
        walk.add("version_not_served", "apiVersion", api_version, f"{kind} is not served at this version", newest)
    spec = struct_spec(info.schema(version), channel)
    if filled is None:
        filled = _complete(document, channel, complete)
    walk.hide = info.kind == "Secret" and info.group == ""
    # Metadata has been checked with better words than its struct has; an empty one stands in for it.
    _check_body(walk, spec, {**filled, "metadata": {}})
    if old is not None:
        _check_unchanged(walk, info, document, old)
    return tuple(walk.findings)


def _complete(document: Mapping[str, Any], channel: Channel, complete: bool) -> dict[str, Any]:
    if not complete:
        return apply_defaults(document, channel=channel)
    return document if type(document) is dict else dict(document)


def status_is_fine(document: Mapping[str, Any], *, channel: Channel = "experimental") -> bool:
    """Whether there is nothing wrong with the status of a document whose defaults are filled in.

    A quick look at the status alone, for writers of nothing else; after a "no", `validate` says what is wrong, if
    anything is.
    """
    is_clean = _quick_look_at_status(document["apiVersion"], document["kind"], channel)
    if is_clean is None:
        return by_kind(group_of(document["apiVersion"]), document["kind"]) is None
    return "status" in document and is_clean(document["status"])


@lru_cache(maxsize=1024)
def _quick_look(api_version: str, kind: str, channel: Channel) -> IsClean | None:
    """What tells that there is nothing wrong with a complete document; None if it takes a walk."""
    info = by_kind(group_of(api_version), kind)
    version = api_version.rpartition("/")[2]
    if info is None or version not in info.served_in(channel):
        return None
    return compiled_document(struct_spec(info.schema(version), channel), channel, quick_checks(info))


@lru_cache(maxsize=1024)
def _quick_look_at_status(api_version: str, kind: str, channel: Channel) -> IsClean | None:
    info = by_kind(group_of(api_version), kind)
    version = api_version.rpartition("/")[2]
    if info is None or version not in info.served_in(channel):
        return None
    spec = struct_spec(info.schema(version), channel)
    field = spec.fields.get("status")
    if field is None or rules_at(spec.struct, "status", channel):
        return None
    return compiled(field.type, channel)


def _check_body(walk: Walk, spec: StructSpec, document: dict[str, Any]) -> None:
    below = {}
    for part in ("spec", "metadata"):
        field = spec.fields.get(part)
        if field is not None and isinstance(field.type, StructSpec):
            below.update(dict.fromkeys(field.type.fields, part))
    body: dict[str, Any] = {}
    for key, item in document.items():
        if key not in spec.fields and key in below:
            message, remedy = f"{key} belongs below {below[key]}; here it is ignored", f"Move it to {below[key]}.{key}."
            walk.add("misplaced_field", key, item, message, remedy, "warning")
        else:
            body[key] = item
    walk.visit(spec, body, "")


def _check_unchanged(walk: Walk, info: KindInfo, document: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    path = _IMMUTABLE.get(info.type.__name__)
    if path is None:
        return
    before, after = _at(old, path), _at(document, path)
    if before is not None and after is not None and before != after:
        remedy = f"Change it back to {msgspec.json.encode(before).decode()}, or create another {info.kind}."
        walk.add("field_must_not_change", ".".join(path), after, "this field cannot be changed", remedy)


_IMMUTABLE = {"GatewayClass": ("spec", "controllerName")}
"""By kind, a field that keeps the value it has."""


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
