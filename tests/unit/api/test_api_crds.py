"""The structs against the official CRDs: fields, types, constraints, defaults, names, both channels, all versions."""

import re
import zipfile

import pytest

from propylon import api
from propylon.api import conditions
from propylon.api.defaults import default_of
from propylon.api.introspect import ItemsSpec, MapSpec, ScalarSpec, StructSpec, struct_spec

CONSTRAINTS = {
    "pattern": "pattern",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minimum": "minimum",
    "maximum": "maximum",
    "enum": "enum",
    "minItems": "min_items",
    "maxItems": "max_items",
    "minProperties": "min_properties",
    "maxProperties": "max_properties",
    "format": "format",
    "x-kubernetes-list-type": "list_type",
    "x-kubernetes-list-map-keys": "list_map_keys",
    "x-kubernetes-map-type": "map_type",
}
SHAPE = {"type", "properties", "items", "required", "additionalProperties", "default"}
CHECKED_ELSEWHERE = {"description", "x-kubernetes-validations", "oneOf"}  # rules have a test of their own


class Comparison:
    def __init__(self) -> None:
        self.differences: list[str] = []
        self.compared = 0

    def say(self, path: str, ours: object, theirs: object, what: str) -> None:
        self.compared += 1
        if ours != theirs:
            self.differences.append(f"{path}: {what} is {ours!r}, officially {theirs!r}")

    def value(self, spec: object, schema: dict, path: str) -> None:
        unknown = set(schema) - set(CONSTRAINTS) - SHAPE - CHECKED_ELSEWHERE
        assert not unknown, f"{path}: the comparison does not know {unknown}"
        if schema["type"] == "object" and "properties" in schema:
            self.say(path, type(spec), StructSpec, "shape")
            if isinstance(spec, StructSpec):
                self.struct(spec, schema, path)
        elif schema["type"] == "object":
            self.say(path, type(spec), MapSpec, "shape")
            if isinstance(spec, MapSpec):
                self.constraints(spec, schema, path)
                self.value(spec.values, schema["additionalProperties"], path + "{}")
        elif schema["type"] == "array":
            self.say(path, type(spec), ItemsSpec, "shape")
            if isinstance(spec, ItemsSpec):
                self.constraints(spec, schema, path)
                self.value(spec.items, schema["items"], path + "[]")
        else:
            self.say(path, type(spec), ScalarSpec, "shape")
            if isinstance(spec, ScalarSpec):
                self.say(path, spec.kinds, (schema["type"],), "type")
                self.constraints(spec, schema, path)

    def constraints(self, spec: object, schema: dict, path: str) -> None:
        for official, name in CONSTRAINTS.items():
            theirs = schema.get(official)
            ours = getattr(spec.constraint, name)
            if isinstance(theirs, list):
                theirs = sorted(theirs, key=str)
                ours = sorted(ours, key=str) if ours is not None else None
            self.say(path, ours, theirs, official)

    def struct(self, spec: StructSpec, schema: dict, path: str) -> None:
        self.constraints(spec, schema, path)
        self.say(path, sorted(spec.fields), sorted(schema["properties"]), "set of fields")
        self.say(path, self.required(spec), sorted(schema.get("required", ())), "set of required fields")
        for name, official in schema["properties"].items():
            field = spec.fields.get(name)
            if field is None:
                continue
            default = default_of(field) if field.has_default else None
            self.say(f"{path}.{name}", default, official.get("default"), "default")
            self.value(field.type, official, f"{path}.{name}")

    @staticmethod
    def required(spec: StructSpec) -> list[str]:
        return sorted(name for name, field in spec.fields.items() if field.required)


def test_every_constraint_of_every_crd(official_crds: tuple) -> None:
    comparison = Comparison()
    for official in official_crds:
        info = api.by_kind(official.group, official.kind)
        assert info is not None, official.kind
        spec = struct_spec(info.schema(official.version), official.channel)
        for part in ("spec", "status"):
            if part in official.schema["properties"]:
                field = spec.fields[part]
                schema = official.schema["properties"][part]
                default = default_of(field) if field.has_default else None
                comparison.say(f"{official}.{part}", default, schema.get("default"), "default")
                comparison.say(
                    f"{official}.{part}",
                    field.required,
                    part in official.schema.get("required", ()),
                    "whether required",
                )
                comparison.value(field.type, schema, f"{official}.{part}")
    assert comparison.differences == []
    assert comparison.compared > 20_000


def test_the_comparison_notices_differences() -> None:
    comparison = Comparison()
    schema = {
        "type": "object",
        "properties": {"type": {"type": "string", "enum": ["Exact"]}, "extra": {"type": "string"}},
        "required": ["type"],
    }
    comparison.value(struct_spec(api.HTTPPathMatch), schema, "path")
    assert [line.split(" is ")[0] for line in comparison.differences] == [
        "path: set of fields",
        "path: set of required fields",
        "path.type: default",
        "path.type: enum",
    ]


def test_the_table_of_kinds(official_crds: tuple) -> None:
    for info in api.KINDS:
        if info.group not in (api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP):
            continue
        for channel in ("experimental", "standard"):
            versions = [v for v in official_crds if (v.group, v.kind, v.channel) == (info.group, info.kind, channel)]
            assert sorted(info.served_in(channel)) == sorted(v.version for v in versions if v.served)
            for official in versions:
                assert info.plural == official.names["plural"]
                assert info.singular == official.names["singular"]
                assert list(info.short_names) == official.names.get("shortNames", [])
                assert list(info.categories) == official.names.get("categories", [])
                assert info.scope == official.scope
                assert info.status_subresource == official.status
                if official.storage:
                    assert info.storage_version == official.version
    assert {v.kind for v in official_crds} == {
        info.kind for info in api.KINDS if info.group in (api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP)
    }


@pytest.mark.parametrize("folder", ["apis/v1/", "apisx/v1alpha1/xbackend"])
def test_every_condition_type_and_reason(gateway_api: zipfile.ZipFile, folder: str) -> None:
    declaration = re.compile(r'^\s+\w+\s+(\w+Condition(?:Type|Reason))\s+=\s+"(\w+)"', re.MULTILINE)
    found = 0
    for name in gateway_api.namelist():
        if f"/{folder}" not in name or not name.endswith("_types.go"):
            continue
        for enum, value in declaration.findall(gateway_api.read(name).decode()):
            found += 1
            assert getattr(getattr(conditions, enum), value) == value
    assert found >= 2
