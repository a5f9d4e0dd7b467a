"""Objects that are added, removed or written differently, and conditions that would be others."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from propylon import api
from propylon.diff.model import ConditionChange, ObjectChange

Documents = Mapping[api.ObjectRef, Mapping[str, Any]]
Statuses = Mapping[api.ObjectRef, Mapping[str, Any]]

_SERVERS = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp"}
)
"""Metadata that the API server writes."""
_SHOWN_FIELDS = 6


def object_changes(before: Documents, after: Documents, *, partial: bool) -> list[ObjectChange]:
    """Compare documents with their defaults filled in. With `partial` one side was completed by an API server, and
    only fields that both sides have are compared.
    """
    found = []
    for ref in sorted({*before, *after}):
        if ref not in after:
            found.append(ObjectChange(str(ref), "removed"))
        elif ref not in before:
            found.append(ObjectChange(str(ref), "added"))
        elif before[ref] != after[ref]:
            fields = tuple(islice(_fields(_plain(before[ref]), _plain(after[ref]), "", partial), _SHOWN_FIELDS))
            if fields:
                found.append(ObjectChange(str(ref), "changed", fields))
    return found


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    filled = api.apply_defaults(
        {k: v for k, v in document.items() if k not in {"status", "apiVersion"}} | _type(document)
    )
    metadata = {k: v for k, v in (filled.get("metadata") or {}).items() if k not in _SERVERS}
    annotations = {
        k: v for k, v in (metadata.get("annotations") or {}).items() if k != api.meta.LAST_APPLIED_ANNOTATION
    }
    metadata["annotations"] = annotations
    if not annotations:
        del metadata["annotations"]
    return {**filled, "metadata": metadata}


def _type(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": document.get("apiVersion", "")}


def _fields(one: Any, other: Any, path: str, partial: bool) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            if partial and not (name in one and name in other):
                continue
            inner = f"{path}.{name}" if path else str(name)
            yield from _fields(one.get(name), other.get(name), inner, partial)
    elif isinstance(one, list) and isinstance(other, list):
        for index in range(max(len(one), len(other))):
            pair = [side[index] if index < len(side) else None for side in (one, other)]
            yield from _fields(pair[0], pair[1], f"{path}[{index}]", partial)
    elif one != other:
        yield path


# --- conditions -------------------------------------------------------------------------------------------------------


def condition_changes(before: Statuses, after: Statuses) -> list[ConditionChange]:
    """Conditions that differ by status or reason; of objects that are added only those that tell of something wrong.

    Objects that are removed lose their status and are not told of.
    """
    found = []
    for ref in sorted(after):
        ours, theirs = _conditions(before.get(ref) or {}), _conditions(after[ref])
        for (part, kind), (now, message) in theirs.items():
            was = ours.get((part, kind), ("", ""))[0]
            if was != now and (ref in before or not _good(kind, now)) and (was or not _good(kind, now)):
                found.append(ConditionChange(str(ref), part, kind, was, now, message))
        if ref in before:
            gone = [(key, was) for key, (was, _) in ours.items() if key not in theirs]
            found += [ConditionChange(str(ref), part, kind, was, "", "") for (part, kind), was in gone]
    return found


def _good(kind: str, text: str) -> bool:
    negative = kind in {"Conflicted", "PartiallyInvalid", "OverlappingTLSConfig", "InsecureFrontendValidationMode"}
    return text.startswith("False" if negative else "True")


def _conditions(status: Mapping[str, Any]) -> dict[tuple[str, str], tuple[str, str]]:
    """(part, type) -> (`True (Accepted)`, message)."""
    found = {}
    for part, holder in _parts(status):
        for condition in holder.get("conditions") or ():
            text = f"{condition['status']} ({condition.get('reason', '')})"
            found[part, condition["type"]] = (text, condition.get("message", ""))
    return found


def _parts(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", status
    for listener in status.get("listeners") or ():
        yield f"listeners[{listener['name']}]", listener
    for name, field in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
        for each in status.get(name) or ():
            ref = each[field]
            where = "/".join(str(ref[k]) for k in ("namespace", "name", "sectionName", "port") if ref.get(k))
            yield f"{name}[{where}]", each
