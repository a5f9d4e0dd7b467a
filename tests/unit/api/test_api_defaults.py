"""Defaults, against the defaults in the official CRDs, applied the way the API server does."""

import copy
from typing import Any

import pytest
from api_rule_cases import CASES, STANDARD_ONLY, VALID, changed

from propylon import api


def defaulted(schema: dict, value: Any) -> Any:
    """The API server's algorithm: nulls that cannot be are dropped, defaults filled in where the parent exists."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        result = {key: item for key, item in value.items() if not (item is None and key in properties)}
        for key, below in properties.items():
            if key not in result and "default" in below:
                result[key] = copy.deepcopy(below["default"])
        return {
            key: defaulted(properties.get(key, schema.get("additionalProperties") or {}), item)
            for key, item in result.items()
        }
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), item) for item in value]
    return value


def documents() -> list[dict]:
    changes = [changed(VALID[kind], path, value) for _, kind, path, value in (*CASES, *STANDARD_ONLY)]
    nulls = [changed(document, f"spec.{key}", None) for document in VALID.values() for key in document["spec"]]
    return [*VALID.values(), *changes, *nulls]


@pytest.mark.parametrize("channel", ["experimental", "standard"])
def test_defaults_are_those_of_the_crds(official_crds: tuple, channel: str) -> None:
    schemas = {(f"{crd.group}/{crd.version}", crd.kind): crd.schema for crd in official_crds if crd.channel == channel}
    compared = 0
    for document in documents():
        schema = schemas.get((document["apiVersion"], document["kind"]))
        if schema is None:
            continue
        before = copy.deepcopy(document)
        ours = api.apply_defaults(document, channel=channel)
        assert document == before
        assert ours == defaulted(schema, document)
        assert api.apply_defaults(ours, channel=channel) == ours
        compared += 1
    assert compared > 150


def test_unknown_fields_and_kinds_are_kept() -> None:
    document = changed(VALID["HTTPRoute"], "spec.rules[0].unheardOf", {"a": None})
    assert api.apply_defaults(document)["spec"]["rules"][0]["unheardOf"] == {"a": None}
    foreign = {"apiVersion": "example.com/v1", "kind": "A", "metadata": {"name": "a"}, "spec": {"rules": None}}
    assert api.apply_defaults(foreign) == foreign
    assert api.apply_defaults({"spec": 1}) == {"spec": 1}


def test_wrong_types_are_left_for_validation() -> None:
    document = changed(VALID["HTTPRoute"], "spec.rules", {"matches": 1})
    assert api.apply_defaults(document)["spec"]["rules"] == {"matches": 1}


def test_defaults_of_kubernetes_own_kinds() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}
    assert api.apply_defaults(service)["spec"] == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "type": "ClusterIP",
        "sessionAffinity": "None",
    }
    named = changed(service, "spec.ports[0].targetPort", "http")
    assert api.apply_defaults(named)["spec"]["ports"][0]["targetPort"] == "http"
    assert api.apply_defaults({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})["type"] == "Opaque"
    slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {}, "ports": [{"port": 80}]}
    assert api.apply_defaults(slice_)["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}
    assert api.apply_defaults(node) == node
