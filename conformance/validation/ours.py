"""What `propylon.api` says about an object, in the terms of the API server's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from propylon import api
from propylon.api.introspect import ItemsSpec, MapSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.schema import Channel

Part = Literal["spec", "status"]
DROPPED = ("unknown_field", "misplaced_field", "field_of_experimental_channel")
"""Codes of warnings about fields that the API server drops."""


class Answer(NamedTuple):
    """Accepted or not; then the part that was written as it is stored, and the fields that were dropped."""

    accepted: bool
    stored: Any = None
    dropped: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def our_answer(document: Mapping[str, Any], channel: Channel, part: Part) -> Answer:
    """The verdict on creating the object (`part` "spec"), or on writing its status."""
    written = document if part == "status" else {key: item for key, item in document.items() if key != "status"}
    findings = api.validate(written, channel=channel)
    reasons = tuple(f"{finding.code} {finding.field}" for finding in findings if finding.severity == "error")
    if reasons:
        return Answer(False, reasons=reasons)
    dropped = tuple(sorted(finding.field for finding in findings if finding.code in DROPPED))
    return Answer(True, _stored(api.apply_defaults(written, channel=channel), channel)[part], dropped)


def _stored(document: dict[str, Any], channel: Channel) -> dict[str, Any]:
    info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
    assert info is not None
    spec = struct_spec(info.schema(document["apiVersion"].rpartition("/")[2]), channel)
    pruned: dict[str, Any] = {"spec": None, "status": None, **_pruned(spec, document)}
    return pruned


def _pruned(spec: TypeSpec, value: Any) -> Any:
    match spec:
        case StructSpec() if isinstance(value, Mapping):
            return {key: _pruned(spec.fields[key].type, item) for key, item in value.items() if key in spec.fields}
        case ItemsSpec() if isinstance(value, list | tuple):
            return [_pruned(spec.items, item) for item in value]
        case MapSpec() if isinstance(value, Mapping):
            return {key: _pruned(spec.values, item) for key, item in value.items()}
    return value


def differences(ours: Answer, theirs: Answer) -> list[str]:
    """What two answers disagree about, in words; empty if nothing."""
    if ours.accepted != theirs.accepted:
        words = ("refused", "accepted")
        return [f"we: {words[ours.accepted]} {ours.reasons}, API server: {words[theirs.accepted]} {theirs.reasons}"]
    told = []
    if ours.stored != theirs.stored:
        told.append(f"stored: we {ours.stored!r}, API server {theirs.stored!r}")
    if ours.dropped != theirs.dropped:
        told.append(f"dropped: we {ours.dropped}, API server {theirs.dropped}")
    return told
