"""CustomResourceDefinitions through real kubectl: kinds of others apply, are checked, printed and read back."""

import json
from typing import Any

import pytest

from support.kubectl import kubectl, namespace

__all__ = ["kubectl", "namespace"]

pytestmark = pytest.mark.feature

LAMPS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "lamps.light.example.com"},
    "spec": {
        "group": "light.example.com",
        "scope": "Namespaced",
        "names": {"plural": "lamps", "kind": "Lamp", "shortNames": ["lp"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.bulbs", "statusReplicasPath": ".status.lit"},
                },
                "additionalPrinterColumns": [
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
                    {"name": "Lit", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Lit")].status'},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What the lamp is to be like.",
                                "required": ["colour"],
                                "properties": {
                                    "colour": {"type": "string", "enum": ["red", "green"]},
                                    "bulbs": {"type": "integer", "minimum": 1, "default": 2},
                                    "wires": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {"name": {"type": "string"}, "gauge": {"type": "integer"}},
                                        },
                                    },
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def lamps(kubectl: Any) -> None:
    assert "created" in kubectl("apply", "-f", "-", given=json.dumps(LAMPS))
    kubectl("wait", "--for=condition=Established", "crd/lamps.light.example.com", "--timeout=20s")


def lamp(namespace: str, name: str, **spec: Any) -> str:
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "light.example.com/v1", "kind": "Lamp", "metadata": metadata, "spec": spec})


@pytest.mark.usefixtures("lamps")
def test_objects_are_defaulted_printed_and_explained(kubectl: Any, namespace: str) -> None:
    kubectl("apply", "-f", "-", given=lamp(namespace, "desk", colour="red"))
    assert "unchanged" in kubectl("apply", "-f", "-", given=lamp(namespace, "desk", colour="red"))
    assert json.loads(kubectl("get", "lp", "desk", "-n", namespace, "-o", "json"))["spec"] == {
        "colour": "red",
        "bulbs": 2,
    }
    table = [line.split() for line in kubectl("get", "lamps", "-n", namespace).splitlines()]
    assert table[0] == ["NAME", "COLOUR", "LIT", "AGE"]
    assert table[1][:2] == ["desk", "red"]
    assert "What the lamp is to be like" in kubectl("explain", "lamp.spec")


@pytest.mark.usefixtures("lamps")
def test_objects_are_checked_and_pruned(kubectl: Any, namespace: str) -> None:
    assert "Unsupported value" in kubectl.fails("create", "-f", "-", given=lamp(namespace, "a", colour="blue"))
    assert "spec.colour: Required value" in kubectl.fails("create", "-f", "-", given=lamp(namespace, "a"))
    wires = [{"name": "x"}, {"name": "x"}]
    refused = kubectl.fails("create", "-f", "-", given=lamp(namespace, "a", colour="red", wires=wires))
    assert "Duplicate value" in refused
    odd = lamp(namespace, "a", colour="red", odd=1)
    assert 'unknown field "spec.odd"' in kubectl.fails("create", "-f", "-", given=odd)
    kubectl("create", "--validate=ignore", "-f", "-", given=odd)
    assert "odd" not in kubectl("get", "lamp", "a", "-n", namespace, "-o", "json")


@pytest.mark.usefixtures("lamps")
def test_status_and_scale_are_subresources(kubectl: Any, namespace: str) -> None:
    kubectl("apply", "-f", "-", given=lamp(namespace, "desk", colour="red"))
    kubectl("scale", "lamp", "desk", "--replicas=5", "-n", namespace)
    status = {"status": {"lit": 3, "conditions": [{"type": "Lit", "status": "True"}]}, "spec": {"colour": "green"}}
    arguments = ("--subresource=status", "--type=merge", "-p", json.dumps(status))
    kubectl("patch", "lamp", "desk", "-n", namespace, *arguments)
    seen = json.loads(kubectl("get", "lamp", "desk", "-n", namespace, "-o", "json"))
    assert seen["spec"] == {"colour": "red", "bulbs": 5}
    assert seen["status"]["lit"] == 3
    assert seen["metadata"]["generation"] == 2


@pytest.mark.usefixtures("lamps")
def test_keyed_lists_merge_in_server_side_apply(kubectl: Any, namespace: str) -> None:
    first = lamp(namespace, "desk", colour="red", wires=[{"name": "a", "gauge": 1}])
    second = lamp(namespace, "desk", colour="red", wires=[{"name": "b", "gauge": 2}])
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", given=first)
    kubectl("apply", "--server-side", "--field-manager=two", "-f", "-", given=second)
    wires = json.loads(kubectl("get", "lamp", "desk", "-n", namespace, "-o", "json"))["spec"]["wires"]
    assert [wire["name"] for wire in wires] == ["a", "b"]
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", given=lamp(namespace, "desk", colour="red"))
    wires = json.loads(kubectl("get", "lamp", "desk", "-n", namespace, "-o", "json"))["spec"]["wires"]
    assert wires == [{"name": "b", "gauge": 2}]


def test_cluster_scoped_kinds_and_their_end(kubectl: Any) -> None:
    definition = json.loads(json.dumps(LAMPS).replace("lamps", "suns").replace("Lamp", "Sun").replace('"lp"', '"sn"'))
    definition["spec"]["scope"] = "Cluster"
    kubectl("create", "-f", "-", given=json.dumps(definition))
    sun = {"apiVersion": "light.example.com/v1", "kind": "Sun", "metadata": {"name": "sol"}, "spec": {"colour": "red"}}
    kubectl("create", "-f", "-", given=json.dumps(sun))
    assert "namespace" not in json.loads(kubectl("get", "sun", "sol", "-o", "json"))["metadata"]
    assert kubectl("get", "suns", "-o", "name").strip() == "sun.light.example.com/sol"
    kubectl("delete", "crd", "suns.light.example.com")
    kubectl.fails("get", "suns")
    kubectl("create", "-f", "-", given=json.dumps(definition))
    assert kubectl("get", "suns", "-o", "name") == "", "a kind's objects go with its definition"
    kubectl("delete", "crd", "suns.light.example.com")


def test_definitions_of_what_is_served_anyway_change_nothing(kubectl: Any, namespace: str) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    official = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "httproutes.gateway.networking.k8s.io"},
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"plural": "httproutes", "kind": "HTTPRoute"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    kubectl("apply", "--server-side", "-f", "-", given=json.dumps(official))
    kubectl("wait", "--for=condition=Established", "crd/httproutes.gateway.networking.k8s.io", "--timeout=20s")
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"hostnames": ["NOT_VALID"]}}
    document = json.dumps({**route, "metadata": {"name": "r", "namespace": namespace}})
    assert "is invalid" in kubectl.fails("create", "-f", "-", given=document)


def test_bad_definitions_are_refused(kubectl: Any) -> None:
    wrong = json.loads(json.dumps(LAMPS))
    wrong["metadata"]["name"] = "lamps.example.org"
    assert "metadata.name" in kubectl.fails("create", "-f", "-", given=json.dumps(wrong))
