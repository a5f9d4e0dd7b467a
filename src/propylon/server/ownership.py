"""Who owns which fields of an object, and server-side apply. Pure.

Follows the behaviour of Kubernetes' server-side apply: a manager that applies owns what it wrote; a value that differs
from another manager's is a conflict unless forced; what a manager applied before and no longer does goes, unless
others own it. Plain writes own what they changed and take it from everyone else.

Ownership lives where it is shown, in metadata.managedFields of the stored object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from propylon.server.errors import ApiError
from propylon.server.fields import SELF, Fields, decode_fields, encode_fields, entry_step, leaves, shown
from propylon.server.list_keys import SET
from propylon.store.merge import ListKeys, Path

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_encode_sorted = msgspec.json.Encoder(order="sorted").encode
# As Go's encoder writes them, which reads and writes this annotation elsewhere.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


class Entry(msgspec.Struct, frozen=True):
    """What one manager owns by one kind of operation (Apply or Update) through one subresource."""

    manager: str
    operation: str
    api_version: str
    time: str
    fields: Fields
    subresource: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it one entry."""
        return self.manager, self.operation, self.subresource


Entries = tuple[Entry, ...]


def read_entries(written: Any) -> Entries:
    """metadata.managedFields, as entries; what cannot be read is left out."""
    found = []
    for entry in written if isinstance(written, list) else ():
        if isinstance(entry, Mapping) and entry.get("manager") and entry.get("operation") in ("Apply", "Update"):
            fields = decode_fields(entry.get("fieldsV1"))
            text = {name: str(entry.get(name) or "") for name in ("manager", "apiVersion", "time", "subresource")}
            operation = str(entry["operation"])
            found.append(
                Entry(text["manager"], operation, text["apiVersion"], text["time"], fields, text["subresource"])
            )
    return tuple(found)


def write_entries(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries as metadata.managedFields shows them; those that own nothing are left out."""
    found = []
    for entry in entries:
        if not entry.fields:
            continue
        written: dict[str, Any] = {
            "manager": entry.manager,
            "operation": entry.operation,
            "apiVersion": entry.api_version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode_fields(entry.fields),
        }
        if entry.subresource:
            written["subresource"] = entry.subresource
        found.append(written)
    return found


def stored_entries(document: Mapping[str, Any]) -> Entries:
    """The entries in a stored object."""
    return read_entries(document["metadata"].get("managedFields"))


def with_entries(document: Mapping[str, Any], entries: Entries) -> dict[str, Any]:
    """The object as it is stored with these entries; the store leaves out a list of none."""
    return {**document, "metadata": {**document["metadata"], "managedFields": write_entries(entries)}}


def after_write(
    entries: Entries,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    list_keys: ListKeys,
    *,
    manager: str,
    api_version: str,
    time: str,
    subresource: str = "",
) -> Entries:
    """The entries after a plain write by a manager turned one object into the other."""
    old, new = leaves(before, list_keys), leaves(after, list_keys)
    missing = object()
    changed = frozenset(path for path, value in new.items() if old.get(path, missing) != value)
    touched = changed | (old.keys() - new.keys())
    if not touched:
        return entries
    identity = (manager, "Update", subresource)
    kept = []
    own: Fields = frozenset()
    for entry in entries:
        if entry.identity == identity:
            own = entry.fields
        else:
            kept.append(msgspec.structs.replace(entry, fields=entry.fields - touched))
    if own - touched | changed:
        kept.append(Entry(manager, "Update", api_version, time, own - touched | changed, subresource))
    return tuple(entry for entry in kept if entry.fields)


def apply(
    live: Mapping[str, Any],
    applied: Mapping[str, Any],
    entries: Entries,
    list_keys: ListKeys,
    *,
    manager: str,
    force: bool,
    time: str,
    subresource: str = "",
    defaulted: Mapping[str, Any] | None = None,
    last_applied: bool = False,
) -> tuple[dict[str, Any], Entries]:
    """The object after `manager` applied its configuration, and the entries. Raises ApiError (409) for conflicts.

    `live` is the presented object, an object without fields if there is none yet; `defaulted` the configuration with
    defaults filled in, so that a default within a list that is one value is no difference. With `last_applied`, the
    annotation from which `kubectl apply` would go on is kept up to date where the object has it.
    """
    wanted, held = leaves(applied, list_keys), leaves(live, list_keys)
    if defaulted is not None:
        full = leaves(defaulted, list_keys)
        wanted = {path: full.get(path, value) for path, value in wanted.items()}
    missing = object()
    differing = frozenset(path for path, value in wanted.items() if held.get(path, missing) != value)
    identity = (manager, "Apply", subresource)
    previous: Fields = frozenset()
    others: list[Entry] = []
    conflicts: list[tuple[Entry, Fields]] = []
    for entry in entries:
        if entry.identity == identity:
            previous = entry.fields
            continue
        clash = entry.fields & differing
        if clash:
            conflicts.append((entry, clash))
        others.append(msgspec.structs.replace(entry, fields=entry.fields - clash) if clash else entry)
    if conflicts and not force:
        raise _conflict(conflicts)
    foreign: Fields = frozenset().union(*(entry.fields for entry in others)) if others else frozenset()
    gone = previous - wanted.keys() - foreign
    rest = _without(live, encode_fields(gone), encode_fields(foreign), list_keys, ())
    merged = _merge(rest, applied, list_keys, ())
    if last_applied and LAST_APPLIED in (merged["metadata"].get("annotations") or {}):
        merged = _with_last_applied(merged, applied)
    entry = Entry(manager, "Apply", str(applied.get("apiVersion", "")), time, frozenset(wanted), subresource)
    unchanged = next((held for held in entries if held.identity == identity), None)
    if unchanged is not None and (unchanged.fields, unchanged.api_version) == (entry.fields, entry.api_version):
        entry = unchanged
    return merged, tuple(entry for entry in (*others, entry) if entry.fields)


def _with_last_applied(merged: Mapping[str, Any], applied: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the configuration in the annotation of `kubectl apply`, a line as Go's encoder writes it."""
    metadata = applied["metadata"]
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    kept = {name: value for name, value in metadata.items() if name not in ("annotations", "managedFields")}
    written = {**applied, "metadata": {**kept, "annotations": annotations} if annotations else kept}
    text = _encode_sorted(written).decode()
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    held = merged["metadata"]
    return {**merged, "metadata": {**held, "annotations": {**held["annotations"], LAST_APPLIED: f"{text}\n"}}}


def _conflict(conflicts: list[tuple[Entry, Fields]]) -> ApiError:
    causes = []
    for entry, fields in conflicts:
        using = "" if entry.operation == "Apply" else f" using {entry.api_version} at {entry.time}"
        causes += [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{entry.manager}"{using}',
                "field": shown(path),
            }
            for path in sorted(fields)
        ]
    count = len(causes)
    if count == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        groups: dict[str, list[str]] = {}
        for cause in causes:
            said = cause["message"].replace("conflict with", "conflicts with", 1)
            groups.setdefault(said, []).append(cause["field"])
        lines = [f"{said}:\n" + "\n".join(f"- {field}" for field in fields) for said, fields in groups.items()]
        message = f"Apply failed with {count} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _merge(live: Any, applied: Any, list_keys: ListKeys, path: Path) -> Any:
    if isinstance(applied, Mapping):
        result = dict(live) if isinstance(live, Mapping) else {}
        for name, value in applied.items():
            result[name] = _merge(result.get(name), value, list_keys, (*path, str(name)))
        return result
    if isinstance(applied, list) and isinstance(live, list) and (keys := list_keys(path)):
        places = {entry_step(entry, keys): index for index, entry in enumerate(live)}
        result_list = list(live)
        for entry in applied:
            index = places.get(entry_step(entry, keys))
            if index is None:
                result_list.append(entry)
            else:
                result_list[index] = _merge(live[index], entry, list_keys, path)
        return result_list
    return applied


def _without(value: Any, gone: Mapping[str, Any], foreign: Mapping[str, Any], list_keys: ListKeys, path: Path) -> Any:
    """The value without the fields of `gone`; an entry of a list goes whole unless `foreign` owns something in it."""
    if isinstance(value, Mapping):
        result = {}
        for name, item in value.items():
            step = f"f:{name}"
            if step not in gone:
                result[name] = item
                continue
            below = gone[step]
            if not below:
                continue
            left = _without(item, below, foreign.get(step, {}), list_keys, (*path, str(name)))
            if left or left in (0, False, "") or step in foreign:
                result[name] = left
        return result
    if isinstance(value, list):
        keys = list_keys(path)
        kept = []
        for entry in value:
            step = entry_step(entry, keys) if keys else ""
            if step not in gone:
                kept.append(entry)
            elif keys != SET and isinstance(entry, Mapping) and (SELF not in gone[step] or step in foreign):
                kept.append(_without(entry, gone[step], foreign.get(step, {}), list_keys, path))
        return kept
    return value


def manager_of(field_manager: str, user_agent: str) -> str:
    """The name of whoever writes: the parameter, else the program in the User-Agent header, as in Kubernetes."""
    return field_manager or user_agent.partition("/")[0][:128] or "unknown"
