"""Field sets: which fields an object has, as paths, and their written form `FieldsV1`. Pure.

A path is a tuple of steps: `f:name` for a field, `k:{"name":"web"}` for the entry of a keyed list, `v:"x"` for an
entry of a set, and a final `.` for the entry as such (Kubernetes' metav1.FieldsV1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from propylon.server.list_keys import SET
from propylon.store.merge import ListKeys, Path

Fields = frozenset[tuple[str, ...]]
NONE: Fields = frozenset()
SELF = "."

_NOT_OWNED = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
        "generateName",
    }
)
_KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}


def entry_step(entry: Any, keys: tuple[str, ...]) -> str:
    """The step that leads to an entry of a keyed list or a set."""
    if keys == SET or not isinstance(entry, Mapping):
        return "v:" + json.dumps(entry, separators=(",", ":"), sort_keys=True)
    key = {name: entry.get(name, _KEY_DEFAULTS.get(name)) for name in keys}
    shown = {name: value for name, value in key.items() if value is not None}
    return "k:" + json.dumps(shown, separators=(",", ":"), sort_keys=True)


def leaves(document: Mapping[str, Any], list_keys: ListKeys) -> dict[tuple[str, ...], Any]:
    """Every field of an object that somebody can own, with its value; nobody owns identity and bookkeeping."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in document.items():
        if name == "metadata":
            if isinstance(value, Mapping):
                for below, item in value.items():
                    if below not in _NOT_OWNED:
                        _walk(item, ("f:metadata", f"f:{below}"), (name, below), list_keys, found)
        elif name not in ("apiVersion", "kind"):
            _walk(value, (f"f:{name}",), (name,), list_keys, found)
    return found


def _walk(
    value: Any, path: tuple[str, ...], names: Path, list_keys: ListKeys, found: dict[tuple[str, ...], Any]
) -> None:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            _walk(item, (*path, f"f:{name}"), (*names, str(name)), list_keys, found)
        return
    keys = list_keys(names) if isinstance(value, list) and value else ()
    if not keys:
        found[path] = value
        return
    for entry in value:
        step = (*path, entry_step(entry, keys))
        if isinstance(entry, Mapping) and keys != SET:
            found[(*step, SELF)] = None
            _walk(entry, step, names, list_keys, found)
        else:
            found[step] = entry


def encode_fields(fields: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The written form."""
    root: dict[str, Any] = {}
    for path in sorted(fields):
        node = root
        for step in path:
            node = node.setdefault(step, {})
    return root


def decode_fields(written: Any) -> Fields:
    """Read the written form; what is none says nothing."""
    found: set[tuple[str, ...]] = set()

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if not isinstance(node, Mapping) or not node:
            if path:
                found.add(path)
            return
        for step, below in node.items():
            walk(below, (*path, str(step)))

    walk(written, ())
    return frozenset(found)


def shown(path: tuple[str, ...]) -> str:
    """A path as conflicts name it: `.spec.replicas`, `.spec.ports[port=80,protocol="TCP"].name`."""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "v":
            text += f"[={rest}]"
        elif kind == "k":
            pairs = json.loads(rest)
            text += "[" + ",".join(f"{name}={json.dumps(pairs[name])}" for name in sorted(pairs)) + "]"
    return text
