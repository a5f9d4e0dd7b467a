"""Three-way merge: what a manager wanted before, what it wants now, and what the object holds. Pure.

A field that the manager wants is set; one that it wanted before and no longer wants is removed; everything else
stays, so fields of others survive. Lists are replaced whole, except those whose entries have a key (listeners by name,
conditions by type): these are merged entry by entry. The outcome is that of server-side apply with conflicts forced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Path = tuple[str, ...]
"""Field names from the object's root; entries of lists add nothing."""

ListKeys = Callable[[Path], tuple[str, ...]]
"""The names of the fields that identify an entry of the list at a path; () for a list that is replaced whole."""

_MISSING: Any = object()
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""What most values are; asking abstract classes about them would cost more than all the rest."""

_KEY_DEFAULTS = {"protocol": "TCP"}
"""What a key field means when the manager leaves it out and the stored object has it filled in."""


def merge(previous: Any, wanted: Any, live: Any, list_keys: ListKeys, path: Path = ()) -> Any:
    """The live value with the manager's change made to it; shares unchanged parts with its inputs, which stay as they
    are."""
    if type(wanted) is dict is type(live) is type(previous):
        return _merge_mapping(previous, wanted, live, list_keys, path)
    if isinstance(wanted, list):
        if isinstance(live, list) and (keys := list_keys(path)):
            return _merge_entries(previous if isinstance(previous, list) else [], wanted, live, keys, list_keys, path)
        return wanted
    if type(wanted) in _PLAIN or not isinstance(wanted, Mapping):
        return wanted
    before = previous if isinstance(previous, Mapping) else {}
    return _merge_mapping(before, wanted, live if isinstance(live, Mapping) else {}, list_keys, path)


def _merge_mapping(
    previous: Mapping[str, Any], wanted: Mapping[str, Any], live: Mapping[str, Any], list_keys: ListKeys, path: Path
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, value in live.items():
        if name in wanted:
            now = wanted[name]
            if type(now) in _PLAIN:
                merged[name] = now
            else:
                merged[name] = merge(previous.get(name), now, value, list_keys, (*path, name))
        elif name in previous:
            remainder = _without(previous[name], value, list_keys, (*path, name))
            if remainder is not _MISSING:
                merged[name] = remainder
        else:
            merged[name] = value
    if not wanted.keys() <= live.keys():
        merged.update({name: value for name, value in wanted.items() if name not in live})
    return merged


def _without(previous: Any, live: Any, list_keys: ListKeys, path: Path) -> Any:
    """What is left of a live value when all that the manager once put there is taken out; _MISSING when nothing is."""
    if isinstance(previous, Mapping) and isinstance(live, Mapping):
        left = {}
        for name, value in live.items():
            kept = _without(previous[name], value, list_keys, (*path, name)) if name in previous else value
            if kept is not _MISSING:
                left[name] = kept
        # Defaults that were filled in around the manager's fields go with them; foreign maps such as labels stay.
        return left if left and path in _SHARED_MAPS else _MISSING
    if isinstance(previous, list) and isinstance(live, list) and (keys := list_keys(path)):
        gone = {_identity(entry, keys) for entry in previous}
        entries = [entry for entry in live if _identity(entry, keys) not in gone]
        return entries or _MISSING
    return _MISSING


_SHARED_MAPS = {("metadata",), ("metadata", "labels"), ("metadata", "annotations"), ("data",), ("stringData",)}


def _merge_entries(
    previous: list[Any], wanted: list[Any], live: list[Any], keys: tuple[str, ...], list_keys: ListKeys, path: Path
) -> list[Any]:
    """The manager's entries in its order, then those of others in theirs."""
    before = {_identity(entry, keys): entry for entry in previous}
    held = {_identity(entry, keys): entry for entry in live}
    wanted_identities = [_identity(entry, keys) for entry in wanted]
    if len(set(wanted_identities)) != len(wanted):
        return wanted  # two entries of one key: not mergeable, and validation says so
    merged = [
        merge(before.get(identity), entry, held.get(identity), list_keys, path)
        for identity, entry in zip(wanted_identities, wanted, strict=True)
    ]
    foreign = [
        entry for identity, entry in held.items() if identity not in wanted_identities and identity not in before
    ]
    return merged + foreign


def _identity(entry: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(entry, Mapping):
        return (repr(entry),)
    return tuple(repr(entry.get(key, _KEY_DEFAULTS.get(key))) for key in keys)
