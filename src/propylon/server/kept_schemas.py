"""Schemas of the kept kinds that the server itself acts upon: RBAC and CustomResourceDefinitions. Pure.

Whatever does not fit is refused in requests, and ignored where it came from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from propylon.server.custom_schema import Cause, validate_custom

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "nullable": True}
_TRUTH: Schema = {"type": "boolean", "nullable": True}


def _list(items: Schema) -> Schema:
    return {"type": "array", "nullable": True, "items": {**items, "nullable": False}}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "nullable": True, "required": list(required), "properties": properties}


_TEXTS = _list(_TEXT)
_MAP: Schema = {"type": "object", "nullable": True, "additionalProperties": {"type": "string"}}
_RULE = _object("verbs", verbs=_TEXTS, apiGroups=_TEXTS, resources=_TEXTS, resourceNames=_TEXTS, nonResourceURLs=_TEXTS)
_REQUIREMENT = _object("key", "operator", key={"type": "string"}, operator={"type": "string"}, values=_TEXTS)
_SELECTOR = _object(matchLabels=_MAP, matchExpressions=_list(_REQUIREMENT))
_ROLE = _object(rules=_list(_RULE), aggregationRule=_object(clusterRoleSelectors=_list(_SELECTOR)))
_SUBJECT = _object("kind", "name", kind=_TEXT, name=_TEXT, namespace=_TEXT, apiGroup=_TEXT)
_ROLE_REF = {**_object("kind", "name", kind=_TEXT, name=_TEXT, apiGroup=_TEXT), "nullable": False}
_BINDING = _object("roleRef", roleRef=_ROLE_REF, subjects=_list(_SUBJECT))
_COLUMN = _object(name=_TEXT, type=_TEXT, jsonPath=_TEXT, description=_TEXT, format=_TEXT, priority={"type": "integer"})
_SCALE = _object(specReplicasPath=_TEXT, statusReplicasPath=_TEXT, labelSelectorPath=_TEXT)
_VERSION = _object(
    "name",
    name={"type": "string"},
    served=_TRUTH,
    storage=_TRUTH,
    deprecated=_TRUTH,
    deprecationWarning=_TEXT,
    schema=_object(openAPIV3Schema={"type": "object"}),
    subresources=_object(status={"type": "object"}, scale=_SCALE),
    additionalPrinterColumns=_list(_COLUMN),
)
_NAMES = _object(plural=_TEXT, kind=_TEXT, singular=_TEXT, listKind=_TEXT, shortNames=_TEXTS, categories=_TEXTS)
_DEFINITION = _object(
    spec=_object(
        group=_TEXT,
        scope=_TEXT,
        names=_NAMES,
        versions=_list(_VERSION),
        conversion=_object(strategy=_TEXT),
    ),
    status=_object(conditions=_list(_object(type=_TEXT)), storedVersions=_TEXTS),
)

_SCHEMAS: Mapping[str, Schema] = {
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "CustomResourceDefinition": _DEFINITION,
}


def check_kept(kind: str, document: Mapping[str, Any]) -> list[Cause]:
    """What does not fit the schema of such a kind; nothing for kinds without one."""
    schema = _SCHEMAS.get(kind)
    return validate_custom(schema, document) if schema is not None else []


_TYPES: Mapping[str, tuple[type, ...]] = {
    "type": (str,),
    "pattern": (str,),
    "format": (str,),
    "description": (str,),
    "nullable": (bool,),
    "enum": (list,),
    "minimum": (int, float),
    "maximum": (int, float),
    "x-kubernetes-list-type": (str,),
}
_SCHEMA_LISTS = ("allOf", "anyOf", "oneOf")


def check_schema(schema: Any, path: str) -> list[Cause]:
    """What is wrong with a structural schema itself."""
    if not isinstance(schema, Mapping):
        return [_bad(path, "must be an object")]
    causes = [
        _bad(f"{path}.{name}", "has the wrong type")
        for name, types in _TYPES.items()
        if name in schema and not isinstance(schema[name], types)
    ]
    for name in ("required", "x-kubernetes-list-map-keys"):
        value = schema.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            causes.append(_bad(f"{path}.{name}", "must be a list of names"))
    properties = schema.get("properties")
    if properties is not None and not isinstance(properties, Mapping):
        causes.append(_bad(f"{path}.properties", "must be an object"))
    elif properties:
        for name, below in properties.items():
            causes += check_schema(below, f"{path}.properties[{name}]")
    for name in ("items", "not"):
        if schema.get(name) is not None:
            causes += check_schema(schema[name], f"{path}.{name}")
    additional = schema.get("additionalProperties")
    if additional is not None and not isinstance(additional, bool):
        causes += check_schema(additional, f"{path}.additionalProperties")
    for name in _SCHEMA_LISTS:
        several = schema.get(name)
        if several is not None and not isinstance(several, list):
            causes.append(_bad(f"{path}.{name}", "must be a list"))
        for index, below in enumerate(several if isinstance(several, list) else ()):
            causes += check_schema(below, f"{path}.{name}[{index}]")
    return causes


def _bad(field: str, message: str) -> Cause:
    return "FieldValueInvalid", f"Invalid value: {message}", field
