"""Strategic merge patches of the objects we make, as far as their lists have keys.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
    "ports": ("containerPort", "port", "protocol"),
}
"""Lists whose items are told apart by these fields (those they have); all other lists are replaced."""


def merge_patch(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patched document. Null removes a field, `$patch: delete` an item of a list, `$patch: replace` starts anew."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    merged = dict(base)
    for key, value in patch.items():
        if key == "$patch":
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge_patch(before if isinstance(before, Mapping) else {}, value)
        elif isinstance(value, list | tuple) and key in MERGE_KEYS and _all_mappings(value):
            before = merged.get(key)
            merged[key] = _merge_list(before if isinstance(before, list) else [], value, MERGE_KEYS[key])
        else:
            merged[key] = value
    return merged


def _all_mappings(items: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(item, Mapping) for item in items)


def _merge_list(base: list[Any], patch: list[Any] | tuple[Any, ...], keys: tuple[str, ...]) -> list[Any]:
    if any(item == {"$patch": "replace"} for item in patch):
        return [item for item in patch if "$patch" not in item]
    merged = list(base)
    for item in patch:
        found = next((i for i, other in enumerate(merged) if _same(item, other, keys)), None)
        if item.get("$patch") == "delete":
            if found is not None:
                del merged[found]
        elif found is None:
            merged.append({key: value for key, value in item.items() if value is not None})
        else:
            merged[found] = merge_patch(merged[found], item)
    return merged


def _same(item: Mapping[str, Any], other: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    given = [key for key in keys if key in item]
    return bool(given) and all(item[key] == other.get(key) for key in given)
