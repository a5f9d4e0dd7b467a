"""The three patches of the Kubernetes tools: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge. Pure.

A patch is applied whole or not at all: inputs stay as they are, results share unchanged parts with them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


class PatchError(Exception):
    """The patch does not fit the document, or is none; `operation` is the failing operation's index, -1 for the
    whole."""

    def __init__(self, message: str, operation: int = -1) -> None:
        super().__init__(f"operation {operation}: {message}" if operation >= 0 else message)
        self.operation = operation


# JSON Patch


def json_patch(document: Any, operations: Sequence[Any]) -> Any:
    """The document after all operations. Raises PatchError."""
    result = copy.deepcopy(document)
    for index, operation in enumerate(operations):
        try:
            result = _operate(result, operation)
        except PatchError as error:
            raise PatchError(str(error), index) from error
    return result


def _operate(document: Any, operation: Any) -> Any:
    if not isinstance(operation, Mapping):
        raise PatchError("an operation is a mapping with op and path")
    op, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise PatchError("path is missing")
    steps = _pointer(path)
    match op:
        case "add":
            return _add(document, steps, copy.deepcopy(_value_of(operation)))
        case "remove":
            return _remove(document, steps)
        case "replace":
            _find(document, steps)
            return _add(_remove(document, steps), steps, copy.deepcopy(_value_of(operation)))
        case "test":
            if _find(document, steps) != _value_of(operation):
                raise PatchError(f"{path} does not hold the tested value")
            return document
        case "move" | "copy":
            source = operation.get("from")
            if not isinstance(source, str):
                raise PatchError("from is missing")
            value = copy.deepcopy(_find(document, _pointer(source)))
            if op == "move":
                document = _remove(document, _pointer(source))
            return _add(document, steps, value)
    raise PatchError(f"op {op!r} is none of add, remove, replace, move, copy, test")


def _value_of(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError("value is missing")
    return operation["value"]


def _pointer(path: str) -> list[str]:
    """The steps of a JSON pointer (RFC 6901)."""
    if path == "":
        return []
    if not path.startswith("/"):
        raise PatchError(f"path {path!r} must start with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]


def _find(document: Any, steps: Sequence[str]) -> Any:
    value = document
    for step in steps:
        if isinstance(value, Mapping):
            if step not in value:
                raise PatchError(f"there is no {_text(steps)}")
            value = value[step]
        elif isinstance(value, list):
            value = value[_index(step, len(value) - 1, steps)]
        else:
            raise PatchError(f"there is no {_text(steps)}")
    return value


def _index(step: str, highest: int, steps: Sequence[str]) -> int:
    if not step.isdigit() or (len(step) > 1 and step[0] == "0"):
        raise PatchError(f"{step!r} in {_text(steps)} is no list index")
    index = int(step)
    if index > highest:
        raise PatchError(f"index {index} of {_text(steps)} is out of range")
    return index


def _text(steps: Sequence[str]) -> str:
    return "/" + "/".join(steps)


def _add(document: Any, steps: Sequence[str], value: Any) -> Any:
    if not steps:
        return value
    parent = _find(document, steps[:-1])
    if isinstance(parent, dict):
        parent[steps[-1]] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if steps[-1] == "-" else _index(steps[-1], len(parent), steps), value)
    else:
        raise PatchError(f"nothing can be added at {_text(steps)}")
    return document


def _remove(document: Any, steps: Sequence[str]) -> Any:
    if not steps:
        return None
    parent = _find(document, steps[:-1])
    if isinstance(parent, dict):
        if steps[-1] not in parent:
            raise PatchError(f"there is no {_text(steps)}")
        del parent[steps[-1]]
    elif isinstance(parent, list):
        del parent[_index(steps[-1], len(parent) - 1, steps)]
    else:
        raise PatchError(f"there is no {_text(steps)}")
    return document


# JSON Merge Patch


def merge_patch(document: Any, patch: Any) -> Any:
    """The document with the patch merged in; null removes, lists are replaced."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


# Strategic merge

_MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
}
"""The patch merge keys of the built-in kinds' lists, by field name."""

_BUILT_IN_GROUPS = frozenset(
    {"", "apps", "batch", "policy", "autoscaling", "networking.k8s.io", "rbac.authorization.k8s.io"}
)


def strategic_merge_patch(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any] | None:
    """The document with the patch merged in, lists of built-in kinds by key; None when the patch deletes it whole.

    Custom resources, Gateway API's among them, carry no merge keys: their lists are replaced, as kubectl and
    kustomize do. `$patch: replace` and `$patch: delete` work at every depth.
    """
    api_version = str(document.get("apiVersion") or "")
    built_in = (api_version.rpartition("/")[0]) in _BUILT_IN_GROUPS
    result = _strategic(document, patch, built_in, "")
    return result if isinstance(result, dict) else None


_DELETED: Any = object()
_ORDER = "$setElementOrder/"


def _strategic(value: Any, patch: Any, keyed: bool, parent: str) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    directive = patch.get("$patch")
    if directive == "delete":
        return _DELETED
    given = {name: inner for name, inner in patch.items() if not name.startswith("$")}
    if directive == "replace" or not isinstance(value, Mapping):
        return _clean(given)
    result = dict(value)
    for name, inner in given.items():
        if inner is None:
            result.pop(name, None)
            continue
        keys = _keys_of(name, parent) if keyed else ()
        if isinstance(inner, list) and keys:
            order = patch.get(f"{_ORDER}{name}")
            result[name] = _merge_list(result.get(name) or [], inner, keys, name, order)
        elif isinstance(inner, list):
            result[name] = [_clean(entry) for entry in inner]
        else:
            merged = _strategic(result.get(name), inner, keyed, name)
            if merged is _DELETED:
                result.pop(name, None)
            else:
                result[name] = merged
    return result


def _keys_of(name: str, parent: str) -> tuple[str, ...]:
    if name == "ports":
        return ("containerPort", "protocol") if parent in ("containers", "initContainers") else ("port", "protocol")
    return _MERGE_KEYS.get(name, ())


def _merge_list(value: list[Any], patch: list[Any], keys: tuple[str, ...], name: str, order: Any = None) -> list[Any]:
    if any(isinstance(entry, Mapping) and entry.get("$patch") == "replace" and len(entry) == 1 for entry in patch):
        return [_clean(entry) for entry in patch if not (isinstance(entry, Mapping) and "$patch" in entry)]
    result = list(value)
    for entry in patch:
        place = next((index for index, held in enumerate(result) if _same_entry(held, entry, keys)), None)
        if place is None:
            if not (isinstance(entry, Mapping) and entry.get("$patch") == "delete"):
                result.append(_clean(entry))
            continue
        merged = _strategic(result[place], entry, True, name)
        if merged is _DELETED:
            del result[place]
        else:
            result[place] = merged
    return _in_order(result, value, order if isinstance(order, list) else patch, keys)


def _in_order(merged: list[Any], value: list[Any], wanted: list[Any], keys: tuple[str, ...]) -> list[Any]:
    """The entries that the patch names in its order, the others among them in theirs: each before the first of the
    patch's entries that stood behind it. What the patch brings along stands in front of what nobody names."""

    def place(entries: list[Any], entry: Any) -> int:
        return next((index for index, held in enumerate(entries) if _same_entry(held, entry, keys)), -1)

    named = sorted((entry for entry in merged if place(wanted, entry) >= 0), key=lambda entry: place(wanted, entry))
    result: list[Any] = []
    for entry in (entry for entry in merged if place(wanted, entry) < 0):
        while named and not 0 <= place(value, entry) < place(value, named[0]):
            result.append(named.pop(0))
        result.append(entry)
    return result + named


def _same_entry(held: Any, entry: Any, keys: tuple[str, ...]) -> bool:
    if not isinstance(held, Mapping) or not isinstance(entry, Mapping):
        return bool(held == entry)
    defaults = {"protocol": "TCP"}
    return all(held.get(key, defaults.get(key)) == entry.get(key, defaults.get(key)) for key in keys)


def _clean(value: Any) -> Any:
    """Without directives and nulls, which mean nothing where there is nothing to merge with."""
    if isinstance(value, Mapping):
        return {name: _clean(inner) for name, inner in value.items() if inner is not None and not name.startswith("$")}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
