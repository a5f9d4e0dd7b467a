"""Validation: what the API server would refuse, and what it would silently drop, with field paths and remedies.

Structural constraints come from the structs; rules across fields (the CRDs' CEL rules) are functions named after what
they demand. Everything wrong is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from propylon.api.defaults import apply_defaults, without_nulls_of
from propylon.api.introspect import StructSpec, struct_spec
from propylon.api.kinds import KindInfo, by_kind
from propylon.api.meta import ObjectMeta, group_of
from propylon.api.schema import Channel
from propylon.api.validation.clean import compiled
from propylon.api.validation.finding import Finding
from propylon.api.validation.metadata import check_metadata
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
    walk = Walk(channel)
    api_version, kind = document.get("apiVersion"), document.get("kind")
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
    filled = document if complete else apply_defaults(document, channel=channel)
    # Metadata has been checked with better words than its struct has; an empty one stands in for it.
    body = {**filled, "metadata": {}}
    if walk.findings or not compiled(spec, channel)(body):
        walk.hide = info.kind == "Secret" and info.group == ""
        _check_body(walk, spec, body)
    if old is not None:
        _check_unchanged(walk, info, document, old)
    return tuple(walk.findings)


def status_is_fine(document: Mapping[str, Any], *, channel: Channel = "experimental") -> bool:
    """Whether there is nothing wrong with the status of a document whose defaults are filled in.

    A quick look at the status alone, for writers of nothing else; after a "no", `validate` says what is wrong, if
    anything is.
    """
    api_version, kind = document["apiVersion"], document["kind"]
    info = by_kind(group_of(api_version), kind)
    if info is None:
        return True
    version = api_version.rpartition("/")[2]
    if "status" not in document or version not in info.served_in(channel):
        return False
    spec = struct_spec(info.schema(version), channel)
    field = spec.fields.get("status")
    if field is None or rules_at(spec.struct, "status", channel):
        return False
    return compiled(field.type, channel)(document["status"])


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
    for struct, path in _IMMUTABLE:
        if info.type.__name__ == struct:
            before, after = _at(old, path), _at(document, path)
            if before is not None and after is not None and before != after:
                remedy = f"Change it back to {msgspec.json.encode(before).decode()}, or create another {info.kind}."
                walk.add("field_must_not_change", ".".join(path), after, "this field cannot be changed", remedy)


_IMMUTABLE = (("GatewayClass", ("spec", "controllerName")),)


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
