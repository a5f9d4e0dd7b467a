"""Brings a desired status into the one that an object has, without touching what others wrote there."""

from collections.abc import Mapping
from typing import Any

from propylon import api
from propylon.status.conditions import REJECTED, Document, Status

MANAGED = frozenset(
    {
        "Accepted",
        "Programmed",
        "ResolvedRefs",
        "Conflicted",
        "OverlappingTLSConfig",
        "InsecureFrontendValidationMode",
        "AddressesAssigned",
        "PartiallyInvalid",
        "SupportedVersion",
        REJECTED,
    }
)
"""Condition types that are ours to set and to take away; any other belongs to somebody else."""

ENTRIES = {"parents": "parentRef", "ancestors": "ancestorRef"}


def merge_status(document: Mapping[str, Any], desired: Status | None, now: str) -> Document | None:
    """Return the new status of an object, or None if nothing is to be written.

    `document` is the live object, `now` an RFC 3339 time. Entries of other controllers, conditions of other types and
    fields that we say nothing about stay as they are. lastTransitionTime moves only when a condition's status flips,
    and a condition that somebody observed at a later generation is left alone (Gateway API, notes on status).
    """
    if desired is None:
        return None
    live: Mapping[str, Any] = document.get("status") or {}
    if _says(live, desired):
        return None
    result: Document = dict(live)
    for field, value in desired.items():
        current = live.get(field)
        if field in ENTRIES:
            result[field] = _entries(current or [], value, ENTRIES[field], desired.controllers, now)
        elif field == "conditions":
            result[field] = conditions(current or [], value, now)
        elif field == "listeners":
            result[field] = _listeners(current or [], value, now)
        else:
            result[field] = value
    unwritten = not live and not any(result.values())
    return None if result == live or unwritten else result


def _says(live: Mapping[str, Any], desired: Status) -> bool:
    """Whether all is there already, and nothing else: the quick answer for most objects when a process starts again."""
    if live.keys() != desired.keys():
        return False
    for field, value in desired.items():
        current = live[field]
        if field == "conditions":
            if not _all_said(current, value):
                return False
        elif field in ENTRIES or field == "listeners":
            if len(current or ()) != len(value):
                return False
            for there, wanted in zip(current, value, strict=True):
                if there.keys() != wanted.keys() or not _all_said(there["conditions"], wanted["conditions"]):
                    return False
                if any(there[name] != wanted[name] for name in wanted if name != "conditions"):
                    return False
        elif current != value:
            return False
    return True


def _all_said(live: list[Document], desired: list[Document]) -> bool:
    """Whether conditions differ in nothing but that the live ones know when they came."""
    return len(live or ()) == len(desired) and all(
        len(there) == len(wanted) + 1 and "lastTransitionTime" in there and wanted.items() <= there.items()
        for there, wanted in zip(live, desired, strict=True)
    )


def conditions(live: list[Document], desired: list[Document], now: str) -> list[Document]:
    """Merge conditions by type, each in the place where it was."""
    wanted = {condition["type"]: condition for condition in desired}
    result: list[Document] = []
    for current in live:
        kind = current.get("type")
        target = wanted.pop(kind, None)
        if target is not None:
            result.append(_condition(current, target, now))
        elif kind not in MANAGED:
            result.append(current)
    result.extend({**condition, "lastTransitionTime": now} for condition in wanted.values())
    return result


def _condition(current: Document, target: Document, now: str) -> Document:
    if (current.get("observedGeneration") or 0) > target["observedGeneration"]:
        return current
    same = current.get("status") == target["status"]
    return {**target, "lastTransitionTime": current.get("lastTransitionTime", now) if same else now}


def _entries(
    live: list[Document], desired: list[Document], name: str, controllers: frozenset[str], now: str
) -> list[Document]:
    """Merge parents or ancestors: an entry belongs to the controller it names."""
    wanted = {(_identity(entry[name]), entry["controllerName"]): entry for entry in desired}
    result: list[Document] = []
    for current in live:
        key = (_identity(current.get(name, {})), current.get("controllerName"))
        target = wanted.pop(key, None)
        if target is not None:
            result.append(
                {**target, "conditions": conditions(current.get("conditions", []), target["conditions"], now)}
            )
        elif key[1] not in controllers:
            result.append(current)
    result.extend({**entry, "conditions": conditions([], entry["conditions"], now)} for entry in wanted.values())
    return result


def _identity(ref: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        ref.get("group", api.GATEWAY_GROUP),
        ref.get("kind", "Gateway"),
        ref.get("namespace"),
        ref.get("name"),
        ref.get("sectionName"),
        ref.get("port"),
    )


def _listeners(live: list[Document], desired: list[Document], now: str) -> list[Document]:
    known = {entry.get("name"): entry for entry in live}
    return [
        {
            **entry,
            "conditions": conditions(known.get(entry["name"], {}).get("conditions", []), entry["conditions"], now),
        }
        for entry in desired
    ]
