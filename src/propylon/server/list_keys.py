"""How the entries of a resource's lists are told apart, for field ownership and merging. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from propylon.server.resources import Resource
from propylon.store.kindinfo import list_keys as keys_of_known
from propylon.store.merge import ListKeys, Path

SET = ("",)
"""Stands for a list whose entries are their own identity."""

_BY_NAME: Mapping[str, tuple[str, ...]] = {
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
    "conditions": ("type",),
}
"""Lists of Kubernetes' own kinds that are kept without a schema, by field name (the merge keys of its Go types)."""

_EVERYWHERE: Mapping[Path, tuple[str, ...]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): SET,
}


def list_keys_of(resource: Resource, version: str) -> ListKeys:
    """The key fields of the list at a path of field names; () for a list that is one value."""
    if resource.info is not None:
        known = keys_of_known(resource.group, resource.kind)
        if resource.kind == "Service" and not resource.group:
            return lambda path: ("port", "protocol") if path == ("spec", "ports") else known(path)
        return known
    custom = resource.custom.get(version)
    if custom is not None:
        found = {**_EVERYWHERE, **_of_schema(_Hashable(custom.schema))}
        return lambda path: found.get(path, ())
    return _of_kept


def _of_kept(path: Path) -> tuple[str, ...]:
    if path in _EVERYWHERE:
        return _EVERYWHERE[path]
    if path and path[-1] == "ports" and "containers" in path:
        return ("containerPort", "protocol")
    return _BY_NAME.get(path[-1], ()) if path else ()


class _Hashable:
    """A schema as a key of the cache: the same object is the same schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and other.schema is self.schema


@lru_cache(maxsize=256)
def _of_schema(holder: _Hashable) -> dict[Path, tuple[str, ...]]:
    found: dict[Path, tuple[str, ...]] = {}

    def walk(schema: Any, path: Path) -> None:
        if not isinstance(schema, Mapping):
            return
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            found[path] = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        elif kind == "set":
            found[path] = SET
        if kind in ("map", "set"):
            walk(schema.get("items"), path)
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and schema.get("x-kubernetes-map-type") != "atomic":
            for name, below in properties.items():
                walk(below, (*path, str(name)))

    walk(holder.schema, ())
    return found
