"""Label and field selectors of list, watch and deletecollection requests, as Kubernetes writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from propylon.server.errors import bad_request
from propylon.server.resources import BUILT_IN, takes_strategic_patches

Matcher = Callable[[Mapping[str, Any]], bool]
"""Whether a raw object is selected."""

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<not>!)\s*(?P<absent>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>{_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_IS_VALUE = re.compile(f"^{_VALUE}$")


def parse_label_selector(text: str) -> Matcher | None:
    """What a labelSelector selects; None for everything. Raises ApiError (400)."""
    if not text.strip():
        return None
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None or match.end() == position:
            raise bad_request(f"unable to parse requirement: found {text[position:]!r} in labelSelector {text!r}")
        tests.append(_requirement(match, text))
        position = match.end()
    if text.rstrip().endswith(","):
        raise bad_request(f"unable to parse requirement: found '', expected: identifier after ',' in {text!r}")

    def selected(document: Mapping[str, Any]) -> bool:
        labels = document.get("metadata", {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return selected


def _requirement(match: re.Match[str], text: str) -> Callable[[Mapping[str, str]], bool]:
    if absent := match["absent"]:
        return lambda labels: absent not in labels
    key, value = match["key"], match["value"] or ""
    if match["set"]:
        values = frozenset(item.strip() for item in match["values"].split(","))
        if not all(_IS_VALUE.match(item) and len(item) <= 63 for item in values):
            raise bad_request(f"unable to parse requirement: values of {key!r} in labelSelector {text!r}")
        return (
            (lambda labels: labels.get(key) in values)
            if match["set"] == "in"
            else (lambda labels: labels.get(key) not in values)
        )
    if len(value) > 63:
        raise bad_request(f"unable to parse requirement: value of {key!r} must be no more than 63 characters")
    match match["op"]:
        case "=" | "==":
            return lambda labels: labels.get(key) == value
        case "!=":
            return lambda labels: labels.get(key) != value
        case ">" | "<":
            return _comparison(key, match["op"], value, text)
    return lambda labels: key in labels


def _comparison(key: str, op: str, value: str, text: str) -> Callable[[Mapping[str, str]], bool]:
    if not value.isdigit():
        raise bad_request(f"for 'Gt', 'Lt' operators, the value must be an integer: {text!r}")
    bound = int(value)

    def compare(labels: Mapping[str, str]) -> bool:
        held = labels.get(key, "")
        if not held.removeprefix("-").isdigit():
            return False
        return int(held) > bound if op == ">" else int(held) < bound

    return compare


_EVENT_FIELDS = frozenset(
    {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    }
)
_FIELDS: Mapping[tuple[str, str], frozenset[str]] = {
    ("", "Event"): _EVENT_FIELDS,
    ("events.k8s.io", "Event"): frozenset(
        {field.replace("involvedObject", "regarding") for field in _EVENT_FIELDS if field.startswith("involvedObject.")}
        | {"reason", "type", "reportingController"}
    ),
    ("", "Pod"): frozenset({"spec.nodeName", "spec.serviceAccountName", "status.phase", "status.podIP"}),
    ("", "Namespace"): frozenset({"status.phase"}),
    ("", "Node"): frozenset({"spec.unschedulable"}),
    ("", "Secret"): frozenset({"type"}),
    ("", "Service"): frozenset({"spec.clusterIP", "spec.type"}),
}
_EVERYWHERE = frozenset({"metadata.name", "metadata.namespace"})
_OWN_GROUPS = frozenset(resource.group for resource in BUILT_IN if takes_strategic_patches(resource))


def parse_field_selector(text: str, kind: tuple[str, str], selectable: tuple[str, ...] = ()) -> Matcher | None:
    """What a fieldSelector selects of a (group, kind); None for everything. `selectable` adds fields ("spec.color").

    Raises ApiError (400) for a field by which the kind cannot be selected.
    """
    if not text.strip():
        return None
    allowed = _EVERYWHERE | _FIELDS.get(kind, frozenset()) | frozenset(selectable)
    tests: list[tuple[tuple[str, ...], str, bool]] = []
    for part in _split_terms(text):
        found = re.match(r"^(?P<key>[^=!]+?)(?P<op>==|=|!=)(?P<value>.*)$", part, re.DOTALL)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        key, value = found["key"].strip(), re.sub(r"\\(.)", r"\1", found["value"])
        if key not in allowed:
            raise bad_request(_unknown_field(kind, key))
        tests.append((tuple(key.split(".")), value, found["op"] != "!="))

    def selected(document: Mapping[str, Any]) -> bool:
        return all((_text_at(document, path) == value) is equal for path, value, equal in tests)

    return selected


def _unknown_field(kind: tuple[str, str], key: str) -> str:
    """Kinds with fields of their own, and custom ones, are told otherwise than the rest."""
    if kind in _FIELDS or kind[0] not in _OWN_GROUPS:
        return f"field label not supported: {key}"
    return f'"{key}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _split_terms(text: str) -> list[str]:
    return [part for part in re.split(r"(?<!\\),", text) if part]


def _text_at(document: Any, path: tuple[str, ...]) -> str:
    if path == ("source",):
        path = ("source", "component")
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    if isinstance(document, bool):
        return "true" if document else "false"
    return "" if document is None else str(document)


def both(first: Matcher | None, second: Matcher | None) -> Matcher | None:
    """What both select."""
    if first is None or second is None:
        return first or second
    return lambda document: first(document) and second(document)
