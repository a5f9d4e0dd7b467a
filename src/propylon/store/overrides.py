"""What an apply overrides: fields that others set since the manager's last apply, and whose they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from propylon.store.merge import ListKeys, Path
from propylon.store.semantics import NOT_APPLICABLE

_MISSING: Any = object()
_BOOKKEEPING = frozenset({"name", "namespace", "finalizers", "ownerReferences"})
_NOT_COMPARED = frozenset({"apiVersion", "kind", "metadata", "status"})
_NOT_WANTED = _BOOKKEEPING | NOT_APPLICABLE
_KEY_DEFAULTS = {"protocol": "TCP"}
_SHOWN = 10


def override_notice(
    previous: Mapping[str, Any], wanted: Mapping[str, Any], live: Mapping[str, Any], list_keys: ListKeys
) -> str:
    """One sentence about what is overridden, "" if nothing is.

    All three are complete (see `admission.complete`), `previous` is empty if the manager applied nothing before. A
    field is overridden if it is neither what the manager wanted before nor what it wants now.
    """
    owners = live["metadata"].get("managedFields") or ()
    found: list[str] = []
    for path, names in _changed(previous, wanted, live, list_keys, (), ""):
        managers = sorted({str(entry.get("manager")) for entry in owners if _owns(entry, path)})
        found.append(f"{names} ({', '.join(managers)})" if managers else names)
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"overrides what others set: {', '.join(found[:_SHOWN])}{more}"


def overrides_nothing(previous: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether the object is for sure as the manager left it (`previous`, complete): the quick answer for most applies.

    After a "no", `override_notice` says what is overridden, if anything is.
    """
    return _holds_nothing_else(previous, live, _NOT_COMPARED) and _holds_nothing_else(
        previous["metadata"], live["metadata"], _NOT_WANTED
    )


def _holds_nothing_else(previous: Mapping[str, Any], live: Mapping[str, Any], but: frozenset[str]) -> bool:
    for name, value in live.items():
        if name in but or value == previous.get(name):
            continue
        return False
    return True


def _changed(
    previous: Any, wanted: Any, live: Any, list_keys: ListKeys, path: Path, shown: str
) -> Iterator[tuple[Path, str]]:
    if live is _MISSING or live in (wanted, previous):
        return
    if isinstance(live, Mapping) and (isinstance(wanted, Mapping) or isinstance(previous, Mapping)):
        before, after = _mapping(previous), _mapping(wanted)
        for name in {**after, **before}:
            if (not path and name in ("apiVersion", "kind", "status")) or (
                path == ("metadata",) and name in _BOOKKEEPING
            ):
                continue
            yield from _changed(
                before.get(name, _MISSING),
                after.get(name, _MISSING),
                live.get(name, _MISSING),
                list_keys,
                (*path, str(name)),
                f"{shown}.{name}".lstrip("."),
            )
        return
    keys = list_keys(path)
    if isinstance(live, list) and keys and keys != ("",):
        before, after, held = (_by_key(value, keys) for value in (previous, wanted, live))
        for key in {**after, **before}:
            below = (before.get(key, _MISSING), after.get(key, _MISSING), held.get(key, _MISSING))
            yield from _changed(*below, list_keys, path, f"{shown}[{key}]")
        return
    yield path, shown


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _by_key(value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    entries = [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    return {",".join(f"{key}={entry.get(key, _KEY_DEFAULTS.get(key))}" for key in keys): entry for entry in entries}


def _owns(entry: Any, path: Path) -> bool:
    """Whether a managedFields entry names the field, or something in the list that the field is in."""
    below = entry.get("fieldsV1") if isinstance(entry, Mapping) else None
    for name in path:
        if not isinstance(below, Mapping):
            return False
        if f"f:{name}" not in below:
            return any(step.startswith("k:") and f"f:{name}" in json.dumps(inner) for step, inner in below.items())
        below = below[f"f:{name}"]
    return True
