"""`propylon export`: what it writes makes the same world again."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from propylon.cli.export import as_yaml, export, manifests
from propylon.store import LocalStore
from propylon.store.files import FilesController, FileSource

SERVER_MADE = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


def thing(kind: str, name: str, api_version: str = "v1", namespace: str = "shop", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, **rest.pop("metadata", {})}, **rest}


ROUTE = thing(
    "HTTPRoute",
    "a",
    "gateway.networking.k8s.io/v1",
    spec={"parentRefs": [{"name": "web"}], "rules": [{"matches": [{"path": {"value": "/x"}}]}]},
)
CRD = thing(
    "CustomResourceDefinition",
    "streets.example.com",
    "apiextensions.k8s.io/v1",
    "",
    spec={
        "group": "example.com",
        "scope": "Cluster",
        "names": {"plural": "streets", "kind": "Street"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
)
ODD = {
    "truth": "yes",
    "letter": "y",
    "number": "1e3",
    "octal": "0o17",
    "empty": "",
    "lines": "a\n  b\n",
    "blank": "a \nb",
    "umlaut": "ä\tb",
    "colon": "a: b",
    "script": "echo ${HOME} $${x}",
    "tilde": "~",
    "time": "2026-01-02",
}
WORLD = [
    thing("Namespace", "shop", namespace="", metadata={"labels": {"team": "a"}}),
    thing("GatewayClass", "mine", "gateway.networking.k8s.io/v1", "", spec={"controllerName": "example.com/c"}),
    ROUTE,
    thing("ConfigMap", "odd", data=ODD, metadata={"annotations": {"note": "1"}, "finalizers": ["example.com/held"]}),
    thing("Secret", "s", type="Opaque", data={"a": "Yg=="}),
    thing("Service", "web", spec={"ports": [{"port": 80}]}),
    CRD,
    thing("Street", "main", "example.com/v1", "", spec={"length": 3, "name": "1.0"}),
]


def plain(store: LocalStore) -> list[dict[str, Any]]:
    """Everything that somebody wrote."""
    found = []
    for document in store.list().documents:
        metadata = {name: value for name, value in document["metadata"].items() if name not in SERVER_MADE}
        annotations = dict(metadata.pop("annotations", {}))
        annotations.pop("kustomize.toolkit.fluxcd.io/substitute", None)
        rest = {name: value for name, value in document.items() if name != "status"}
        found.append({**rest, "metadata": {**metadata, "annotations": annotations}})
    return sorted(found, key=json.dumps)


@pytest.mark.parametrize("form", ["directory", "file"])
def test_an_export_makes_the_same_world_again(tmp_path: Path, form: str) -> None:
    with LocalStore(tmp_path / "one") as store:
        for document in WORLD:
            store.create(document)
        before = plain(store)
    path = tmp_path / "m" / ("all.yaml" if form == "file" else "")
    done = CliRunner().invoke(export, [str(path), "--secrets", "--data-dir", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    with LocalStore(tmp_path / "two") as store:
        outcomes = FilesController(store, FileSource([str(tmp_path / "m")])).sync()
        assert outcomes.problems == ()
        assert plain(store) == before


def test_nothing_of_the_server_is_written() -> None:
    documents = [
        {**ROUTE, "metadata": {**ROUTE["metadata"], "uid": "u", "resourceVersion": "3"}, "status": {"parents": []}},
        thing("Namespace", "default", namespace=""),
        thing("Namespace", "shop", namespace="", metadata={"labels": {"kubernetes.io/metadata.name": "shop"}}),
        thing("Event", "e"),
        thing("ConfigMap", "going", metadata={"deletionTimestamp": "2026-01-02T03:04:05Z"}),
        thing("ConfigMap", "kept", metadata={"ownerReferences": [{"uid": "x", "kind": "A", "controller": True}]}),
        thing("ConfigMap", "owned", metadata={"ownerReferences": [{"uid": "x", "kind": "A"}]}),
    ]
    found = list(manifests(documents))
    assert [f"{m['kind']}/{m['metadata']['name']}" for m in found] == [
        "Namespace/shop",
        "ConfigMap/owned",
        "HTTPRoute/a",
    ]
    assert found[0]["metadata"] == {"name": "shop"}
    assert found[1]["metadata"] == {"name": "owned", "namespace": "shop"}
    assert found[2] == ROUTE


def test_secrets_only_when_asked_for() -> None:
    secret = thing("Secret", "s", data={})
    assert list(manifests([secret])) == []
    assert list(manifests([secret], secrets=True)) == [secret]
    assert list(manifests([secret, ROUTE], kinds=["secret"])) == [secret]


def test_definitions_come_first_and_yaml_is_read_alike() -> None:
    found = list(yaml.safe_load_all(as_yaml(manifests(WORLD))))
    assert [m["kind"] for m in found[:2]] == ["CustomResourceDefinition", "Namespace"]
    odd = next(m for m in found if m["metadata"]["name"] == "odd")
    assert odd["data"] == ODD
    text = as_yaml([thing("ConfigMap", "odd", data=ODD)])
    assert "number: '1e3'" in text
    assert "letter: 'y'" in text


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    with LocalStore(tmp_path / "one") as store:
        store.create(thing("ConfigMap", "a", namespace="default"))
        store.create(thing("Secret", "s", namespace="default"))
    path = tmp_path / "all.yaml"
    path.write_text("mine", encoding="utf-8")
    arguments = [str(path), "-n", "default", "--data-dir", str(tmp_path / "one")]
    refused = CliRunner().invoke(export, arguments)
    assert refused.exit_code == 2
    assert path.read_text(encoding="utf-8") == "mine"
    forced = CliRunner().invoke(export, [*arguments, "--force"])
    assert forced.exit_code == 0
    assert "1 Secrets are left out" in forced.output
    assert "kind: ConfigMap" in path.read_text(encoding="utf-8")
    assert CliRunner().invoke(export, [*arguments, "--force", "--secrets"]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    nowhere = CliRunner().invoke(export, ["--data-dir", str(tmp_path / "none")])
    assert nowhere.exit_code == 3
