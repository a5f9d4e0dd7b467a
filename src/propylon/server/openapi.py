"""OpenAPI documents made from the structs of `api` and from CustomResourceDefinitions. Pure.

Version 3 is one document a group and version; clients read from it what `kubectl explain` prints, whether field
validation is supported, and how server-side apply merges lists. Version 2 holds all definitions at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from propylon.api.defaults import default_of
from propylon.api.introspect import FieldSpec, ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.meta import ObjectMeta
from propylon.api.schema import Constraint
from propylon.server import discovery
from propylon.server.resources import Registry, Resource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
NOTHING_V2 = b"\x0a\x032.0"
"""A version 2 document in protobuf that holds its version alone. kubectl asks for it when it does not find a kind in
version 3, and then says that there is no such kind; without an answer it would blame the server."""
_PREFIX = "#/components/schemas/"
_WHAT = {
    "apiVersion": "The version of the schema in which this object is written.",
    "kind": "The kind of this object.",
}


class _Schemas:
    """Named schemas, collected while they are referred to."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def reference(self, spec: StructSpec) -> str:
        name = _META if spec.struct is ObjectMeta else f"dev.propylon.api.{spec.struct.__name__}"
        if name not in self.found:
            self.found[name] = {}  # a struct may be found inside itself
            self.found[name] = self.struct(spec)
        return name

    def struct(self, spec: StructSpec) -> dict[str, Any]:
        schema: dict[str, Any] = {"description": spec.doc, "type": "object", "properties": {}}
        required = []
        for name, field in spec.fields.items():
            schema["properties"][name] = self.field(field)
            if field.required and name != "metadata":
                required.append(name)
        if required:
            schema["required"] = required
        if spec.struct is ObjectMeta:
            schema["properties"]["managedFields"] = {
                "description": "Who set which fields.",
                "type": "array",
                "items": {"type": "object"},
            }
        return schema

    def field(self, field: FieldSpec) -> dict[str, Any]:
        schema = self.type(field.type)
        if text := field.doc or _WHAT.get(field.name, ""):
            schema = {"description": text, **schema}
        elif "allOf" in schema and isinstance(field.type, StructSpec):
            schema = {"description": field.type.doc, **schema}
        elif isinstance(field.type, ItemsSpec) and isinstance(field.type.items, StructSpec):
            schema = {"description": field.type.items.doc, **schema}
        if field.has_default and field.name not in ("apiVersion", "kind"):
            schema["default"] = default_of(field)
        return schema

    def type(self, spec: TypeSpec) -> dict[str, Any]:
        match spec:
            case StructSpec():
                schema: dict[str, Any] = {"allOf": [{"$ref": _PREFIX + self.reference(spec)}]}
                if spec.constraint.map_type:
                    schema["x-kubernetes-map-type"] = spec.constraint.map_type
                return schema
            case ItemsSpec():
                return {"type": "array", "items": self.type(spec.items), **_constraints(spec.constraint)}
            case MapSpec():
                below = self.type(spec.values)
                return {"type": "object", "additionalProperties": below, **_constraints(spec.constraint)}
            case ScalarSpec():
                if len(spec.kinds) > 1:
                    return {"x-kubernetes-int-or-string": True, "format": "int-or-string"}
                if spec.kinds == ("any",):
                    return {"x-kubernetes-preserve-unknown-fields": True}
                return {"type": spec.kinds[0], **_constraints(spec.constraint)}


def _constraints(said: Constraint) -> dict[str, Any]:
    pairs = {
        "pattern": said.pattern,
        "minLength": said.min_length,
        "maxLength": said.max_length,
        "minimum": said.minimum,
        "maximum": said.maximum,
        "enum": list(said.enum) if said.enum is not None else None,
        "minItems": said.min_items,
        "maxItems": said.max_items,
        "minProperties": said.min_properties,
        "maxProperties": said.max_properties,
        "format": "date-time" if said.format == "time" else said.format,
        "x-kubernetes-list-type": said.list_type,
        "x-kubernetes-list-map-keys": list(said.list_map_keys) if said.list_map_keys else None,
        "x-kubernetes-map-type": said.map_type,
    }
    return {name: value for name, value in pairs.items() if value is not None}


def _kind_schema(resource: Resource, version: str, schemas: _Schemas) -> dict[str, Any]:
    if resource.info is not None:
        return schemas.struct(struct_spec(resource.info.schema(version)))
    schemas.reference(struct_spec(ObjectMeta))
    custom = resource.custom.get(version)
    if custom is not None:
        schema = dict(custom.schema)
        properties = dict(schema.get("properties") or {})
        schema.setdefault("type", "object")
    else:
        schema = {"description": resource.description, "type": "object", "x-kubernetes-preserve-unknown-fields": True}
        properties = {}
    for name, text in _WHAT.items():
        properties[name] = {"description": text, "type": "string"}
    properties["metadata"] = {"description": "Name, identity and bookkeeping.", "allOf": [{"$ref": _PREFIX + _META}]}
    return {**schema, "properties": properties}


def schema_name(resource: Resource, version: str) -> str:
    """The name of a kind's schema: reversed group, version, kind."""
    if not resource.group:
        return f"io.k8s.api.core.{version}.{resource.kind}"
    return ".".join([*reversed(resource.group.split(".")), version, resource.kind])


def document_v3(registry: Registry, group: str, version: str) -> dict[str, Any] | None:
    """The document of one group and version; None if it is not served."""
    resources = registry.in_version(group, version)
    if not resources and (group, version) not in discovery.VIRTUAL:
        return None
    schemas = _Schemas()
    paths: dict[str, Any] = {}
    for resource in resources:
        name = schema_name(resource, version)
        gvk = {"group": group, "version": version, "kind": resource.kind}
        schemas.found[name] = {**_kind_schema(resource, version, schemas), "x-kubernetes-group-version-kind": [gvk]}
        schemas.found[f"{name}List"] = {
            "description": f"A list of {resource.kind} objects.",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": _WHAT["apiVersion"]},
                "kind": {"type": "string", "description": _WHAT["kind"]},
                "metadata": {"allOf": [{"$ref": _PREFIX + _LIST_META}]},
                "items": {"type": "array", "items": {"allOf": [{"$ref": _PREFIX + name}]}},
            },
            "x-kubernetes-group-version-kind": [{**gvk, "kind": resource.list_kind}],
        }
        paths.update(_paths(resource, version, name, gvk))
    schemas.found[_LIST_META] = {
        "description": "How far a list reaches, and how it goes on.",
        "type": "object",
        "properties": {
            "continue": {"type": "string"},
            "remainingItemCount": {"type": "integer", "format": "int64"},
            "resourceVersion": {"type": "string"},
        },
    }
    for name in (_STATUS, _OPTIONS):
        schemas.found[name] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "openapi": "3.0.0",
        "info": {"title": "propylon", "version": "v1"},
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.found.items()))},
    }


def _parameter(name: str, text: str, kind: str = "string", place: str = "query") -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": place, "description": text, "schema": {"type": kind}}
    if place == "path":
        found["required"] = True
    return found


_DRY_RUN = _parameter("dryRun", "All: do everything but keep the result.")
_MANAGER = _parameter("fieldManager", "Who is said to have set the fields.")
_VALIDATION = _parameter("fieldValidation", "What becomes of unknown fields: Ignore, Warn, Strict.")
_FORCE = _parameter("force", "Take fields over from other managers.", "boolean")
_WRITING = [_DRY_RUN, _MANAGER, _VALIDATION]
_LISTING = [
    _parameter("labelSelector", "Which labels the objects have."),
    _parameter("fieldSelector", "Which fields the objects have."),
    _parameter("limit", "How many objects at most.", "integer"),
    _parameter("continue", "Where the last answer ended."),
    _parameter("resourceVersion", "How new the answer must be."),
    _parameter("resourceVersionMatch", "How resourceVersion is meant."),
    _parameter("timeoutSeconds", "How long a watch lasts.", "integer"),
    _parameter("watch", "Go on with changes.", "boolean"),
    _parameter("allowWatchBookmarks", "Tell how far the watch has come.", "boolean"),
    _parameter("sendInitialEvents", "Begin the watch with all objects.", "boolean"),
]
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
"""Strategic merge patches are taken and not told of: kubectl then computes them from its own types, which know the
merge keys that these documents do not have."""


def _paths(resource: Resource, version: str, name: str, gvk: Mapping[str, str]) -> dict[str, Any]:
    base = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
    place = f"{base}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
    namespace = [_parameter("namespace", "The namespace.", place="path")] if resource.namespaced else []
    answer = {"200": {"description": "OK", "content": _content(name)}}
    listed = {"200": {"description": "OK", "content": _content(f"{name}List")}}

    def operation(action: str, parameters: list[Any], responses: Any, **more: Any) -> dict[str, Any]:
        return {
            "operationId": f"{action}{resource.kind}",
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": dict(gvk),
            **more,
        }

    body = {"requestBody": {"content": _content(name), "required": True}}
    patch = {"requestBody": {"content": {form: {"schema": {"type": "object"}} for form in _PATCHES}}}
    found: dict[str, Any] = {
        place: {
            "get": operation("list", _LISTING, listed),
            "post": operation("post", _WRITING, answer, **body),
            "delete": operation("deletecollection", [_DRY_RUN, *_LISTING], answer),
            "parameters": namespace,
        }
    }
    one = {
        "get": operation("get", [], answer),
        "put": operation("put", _WRITING, answer, **body),
        "patch": operation("patch", [*_WRITING, _FORCE], answer, **patch),
        "delete": operation("delete", [_DRY_RUN], answer),
        "parameters": [_parameter("name", "The name.", place="path"), *namespace],
    }
    found[f"{place}/{{name}}"] = one
    if resource.has_status(version):
        found[f"{place}/{{name}}/status"] = {verb: one[verb] for verb in ("get", "put", "patch", "parameters")}
    if resource.namespaced:
        found[f"{base}/{resource.plural}"] = {"get": operation("list", _LISTING, listed), "parameters": []}
    return found


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _PREFIX + name}}}


def index_v3(digests: Mapping[str, str]) -> dict[str, Any]:
    """What /openapi/v3 answers: where the documents are; `digests` are their hashes by path ("api/v1")."""
    return {
        "paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digests[path]}"} for path in sorted(digests)}
    }


def all_v3(registry: Registry) -> dict[str, bytes]:
    """Every version 3 document, encoded, by path ("api/v1", "apis/apps/v1")."""
    found: dict[str, bytes] = {}
    for group, versions in {"": registry.groups[""], **discovery.groups(registry)}.items():
        for version in versions:
            document = document_v3(registry, group, version)
            if document is not None:
                found[f"apis/{group}/{version}" if group else f"api/{version}"] = msgspec.json.encode(document)
    return found


def digest(raw: bytes) -> str:
    """A hash by which clients tell whether they have a document."""
    return hashlib.sha256(raw).hexdigest()[:32].upper()


def document_v2(registry: Registry) -> dict[str, Any]:
    """All definitions and paths as Swagger 2.0."""
    definitions: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for group, versions in {"": registry.groups[""], **discovery.groups(registry)}.items():
        for version in versions:
            document = document_v3(registry, group, version)
            if document is not None:
                definitions.update(document["components"]["schemas"])
                paths.update({path: _path_v2(item) for path, item in document["paths"].items()})
    swagger = {"swagger": "2.0", "info": {"title": "propylon", "version": "v1"}, "paths": paths}
    return {**swagger, "definitions": _references_v2(definitions)}


def _references_v2(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("allOf") and "$ref" in value["allOf"][0]:
            rest = {name: item for name, item in value.items() if name != "allOf"}
            value = {**rest, "$ref": value["allOf"][0]["$ref"]}
        return {
            name: item.replace(_PREFIX, "#/definitions/") if name == "$ref" else _references_v2(item)
            for name, item in value.items()
        }
    return [_references_v2(item) for item in value] if isinstance(value, list) else value


def _path_v2(item: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for verb, operation in item.items():
        if verb == "parameters":
            found[verb] = [_parameter_v2(parameter) for parameter in operation]
            continue
        kept = {name: value for name, value in operation.items() if name not in ("requestBody", "responses")}
        kept["parameters"] = [_parameter_v2(parameter) for parameter in operation["parameters"]]
        if "requestBody" in operation:
            kept["parameters"].append({"name": "body", "in": "body", "schema": {"type": "object"}})
            kept["consumes"] = list(operation["requestBody"]["content"])
        kept["responses"] = {"200": {"description": "OK"}}
        found[verb] = kept
    return found


def _parameter_v2(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in parameter.items() if name != "schema"}, **parameter["schema"]}
