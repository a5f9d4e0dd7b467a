"""Kinds of other projects, as their definitions are made: applied by real kubectl, defaulted, checked, read back.

The definitions are models: scopes, subresources, columns and the odd corners of the real ones, in few fields.
"""

import json
from typing import Any

import pytest
import yaml

from support.kubectl import kubectl, namespace

__all__ = ["kubectl", "namespace"]

pytestmark = pytest.mark.feature

READY = '.status.conditions[?(@.type=="Ready")].status'


def definition(
    group: str, kind: str, plural: str, spec: Any, *, version: str = "v1", scope: str = "Namespaced", **more: Any
) -> dict[str, Any]:
    properties = {"spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    schema = {"type": "object", "required": ["spec"], "properties": properties}
    whole = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **more}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": names, "versions": [whole]},
    }


def text(**rest: Any) -> dict[str, Any]:
    return {"type": "string", **rest}


def mapping(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
TEXTS = {"type": "object", "additionalProperties": text()}
COLUMN = {"name": "Ready", "type": "string", "jsonPath": READY}
SEALED = definition(
    "bitnami.com",
    "SealedSecret",
    "sealedsecrets",
    mapping(("encryptedData",), encryptedData=TEXTS, template=OPEN),
    version="v1alpha1",
    subresources={"status": {}},
)
SOURCE = mapping(("repoURL",), repoURL=text(), path=text(), targetRevision=text(default="HEAD"))
APPLICATION = definition(
    "argoproj.io",
    "Application",
    "applications",
    mapping(("destination", "project"), project=text(), source=SOURCE, destination=mapping(server=text(), name=text())),
    version="v1alpha1",  # its status is no subresource
    additionalPrinterColumns=[{"name": "Sync Status", "type": "string", "jsonPath": ".status.sync.status"}],
)
RULES = {
    "type": "array",
    "maxItems": 64,
    "items": mapping(("name",), name=text(maxLength=63), match=OPEN, validate=OPEN),
    "x-kubernetes-validations": [
        {"rule": "self.all(a, self.exists_one(b, a.name == b.name))", "message": "names differ"}
    ],
}
POLICY = definition(
    "kyverno.io",
    "ClusterPolicy",
    "clusterpolicies",
    mapping(background={"type": "boolean", "default": True}, rules=RULES),
    scope="Cluster",
    subresources={"status": {}},
    additionalPrinterColumns=[{"name": "Background", "type": "boolean", "jsonPath": ".spec.background"}, COLUMN],
)
DURATION = text(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$")
REFERENCE = mapping(("kind", "name"), kind=text(enum=["GitRepository", "Bucket"]), name=text())
KUSTOMIZATION = definition(
    "kustomize.toolkit.fluxcd.io",
    "Kustomization",
    "kustomizations",
    mapping(("interval", "prune", "sourceRef"), interval=DURATION, prune={"type": "boolean"}, sourceRef=REFERENCE),
    subresources={"status": {}},
    additionalPrinterColumns=[COLUMN],
)

OBJECTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sealedsecrets": (
        SEALED,
        {"encryptedData": {"password": "AgBy3i4OJSWK+PiTySYZZA=="}, "template": {"type": "Opaque", "data": {"a": "b"}}},
        {},
    ),
    "applications": (
        APPLICATION,
        {"project": "default", "source": {"repoURL": "https://example.com/r.git"}, "destination": {"name": "here"}},
        {"source": {"repoURL": "https://example.com/r.git", "targetRevision": "HEAD"}},
    ),
    "clusterpolicies": (
        POLICY,
        {"rules": [{"name": "one", "validate": {"message": "no", "pattern": {"metadata": {"labels": {"?*": "?*"}}}}}]},
        {"background": True},
    ),
    "kustomizations": (
        KUSTOMIZATION,
        {"interval": "1h30m", "prune": True, "sourceRef": {"kind": "GitRepository", "name": "r"}},
        {},
    ),
}


def made(plural: str, spec: dict[str, Any], namespace: str) -> dict[str, Any]:
    whole = OBJECTS[plural][0]["spec"]
    metadata = {"name": "mine"} if whole["scope"] == "Cluster" else {"name": "mine", "namespace": namespace}
    api_version = f"{whole['group']}/{whole['versions'][0]['name']}"
    return {"apiVersion": api_version, "kind": whole["names"]["kind"], "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("plural", OBJECTS)
def test_it_applies_and_reads_back(kubectl: Any, namespace: str, plural: str) -> None:
    whole, spec, filled = OBJECTS[plural]
    kubectl("apply", "-f", "-", given=json.dumps(whole))
    kubectl("wait", "--for=condition=Established", f"crd/{whole['metadata']['name']}", "--timeout=20s")
    document = json.dumps(made(plural, spec, namespace))
    kubectl("apply", "-f", "-", given=document)
    assert "unchanged" in kubectl("apply", "-f", "-", given=document)
    seen = yaml.safe_load(kubectl("get", plural, "mine", "-n", namespace, "-o", "yaml"))
    assert seen["spec"] == {**spec, **filled}
    assert ("namespace" in seen["metadata"]) is (whole["spec"]["scope"] == "Namespaced")
    assert seen["metadata"]["generation"] == 1
    status = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}], "sync": {"status": "Synced"}}})
    arguments = ["patch", plural, "mine", "-n", namespace, "--type=merge", "-p", status]
    below = "subresources" in whole["spec"]["versions"][0]
    kubectl(*arguments, *(["--subresource=status"] if below else []))
    assert kubectl("get", plural, "mine", "-n", namespace, "-o", f"jsonpath={{{READY}}}") == "True"
    table = kubectl("get", plural, "-n", namespace).splitlines()
    for column in whole["spec"]["versions"][0].get("additionalPrinterColumns", ()):
        assert column["name"].upper() in table[0]
    assert "mine" in table[1]
    kubectl("delete", plural, "mine", "-n", namespace)
    assert "NotFound" in kubectl.fails("get", plural, "mine", "-n", namespace)


def test_what_does_not_fit_is_refused(kubectl: Any, namespace: str) -> None:
    for whole, _, _ in OBJECTS.values():
        kubectl("apply", "-f", "-", given=json.dumps(whole))
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("sealedsecrets", {}, "spec.encryptedData: Required value"),
        ("applications", {"project": 3, "destination": {}}, "spec.project in body must be of type string"),
        ("clusterpolicies", {"rules": [{"name": "a"}, {"name": "a"}]}, "names differ"),
        ("kustomizations", {**OBJECTS["kustomizations"][1], "interval": "soon"}, "spec.interval in body should match"),
        ("kustomizations", {**OBJECTS["kustomizations"][1], "intervall": "1m"}, 'unknown field "spec.intervall"'),
    ]
    for plural, spec, said in wrong:
        assert said in kubectl.fails("apply", "-f", "-", given=json.dumps(made(plural, spec, namespace))), plural
