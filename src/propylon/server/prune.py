"""Unknown fields of interpreted kinds: found, and taken out where the official CRDs would. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from propylon.api.introspect import ItemsSpec, MapSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.references import EXPERIMENTAL_GROUP, GATEWAY_GROUP
from propylon.api.validation.core import KNOWN_ELSEWHERE, OPEN_STRUCTS
from propylon.server.resources import Resource

_PRUNED = (GATEWAY_GROUP, EXPERIMENTAL_GROUP)


def prune(resource: Resource, version: str, document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The document without unknown fields, and their paths. Kubernetes' own kinds, which are described here only in
    part, keep them."""
    if resource.info is None:
        return document, []
    unknown: list[str] = []
    body = {name: value for name, value in document.items() if name != "metadata"}
    pruned = _walk(struct_spec(resource.info.schema(version)), body, "", unknown)
    if resource.group not in _PRUNED or not unknown:
        return document, unknown
    return {**pruned, "metadata": document["metadata"]}, unknown


def _walk(spec: TypeSpec, value: Any, path: str, unknown: list[str]) -> Any:
    match spec:
        case StructSpec() if isinstance(value, Mapping):
            name = spec.struct.__name__
            kept: dict[str, Any] = {}
            for key, item in value.items():
                where = f"{path}.{key}" if path else str(key)
                field = spec.fields.get(key)
                if field is not None:
                    kept[key] = _walk(field.type, item, where, unknown)
                elif name in OPEN_STRUCTS or key in KNOWN_ELSEWHERE.get(name, ()):
                    kept[key] = item
                else:
                    unknown.append(where)
            return kept
        case ItemsSpec() if isinstance(value, list):
            return [_walk(spec.items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
        case MapSpec() if isinstance(value, Mapping):
            return {key: _walk(spec.values, item, f"{path}.{key}", unknown) for key, item in value.items()}
    return value
