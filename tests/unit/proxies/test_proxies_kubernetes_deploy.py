"""The manifests that install the controller agree with the code that they install."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from propylon.app.cluster_proxies import XDS_NAME, XDS_PORT
from propylon.app.cluster_rbac import build_pod_manifests, build_process_manifests
from propylon.app.health import HealthServer, parse_listen
from propylon.proxies.kubernetes.parameters import PARAMETERS_INFO, ParametersSpec
from propylon.proxies.settings import LOG_LEVELS

DEPLOY = Path(__file__).parents[3] / "deploy"
NAMESPACE = "propylon-system"
Document = dict[str, Any]


def read(name: str) -> list[Document]:
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")) if document]


def test_the_kustomization_names_every_file() -> None:
    (kustomization,) = read("kustomization.yaml")
    assert set(kustomization["resources"]) == {p.name for p in DEPLOY.glob("*.yaml")} - {"kustomization.yaml"}


def test_permissions_are_those_the_code_needs() -> None:
    assert read("rbac.yaml") == build_pod_manifests(NAMESPACE, "propylon")


def test_processes_need_less_than_pods() -> None:
    def allowed(manifests: list[Document]) -> set[tuple[str, str, str]]:
        (role,) = [document for document in manifests if document["kind"] == "ClusterRole"]
        return {
            (g, r, v)
            for rule in role["rules"]
            for g in rule["apiGroups"]
            for r in rule["resources"]
            for v in rule["verbs"]
        }

    processes = allowed(build_process_manifests(NAMESPACE, "propylon"))
    assert ("", "services", "patch") in processes
    assert ("discovery.k8s.io", "endpointslices", "delete") in processes
    assert not {(g, r, v) for g, r, v in processes if r in {"deployments", "serviceaccounts"}}
    assert ("", "secrets", "patch") not in processes


def test_statuses_are_the_only_thing_of_users_that_is_written() -> None:
    (role,) = [document for document in build_pod_manifests(NAMESPACE, "propylon") if document["kind"] == "ClusterRole"]
    for rule in role["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        if any("gateway.networking" in group for group in rule["apiGroups"]) and rule["verbs"] != [
            "get",
            "list",
            "watch",
        ]:
            assert all(resource.endswith("/status") for resource in rule["resources"])


def test_the_crd_has_the_fields_of_the_struct() -> None:
    (crd,) = read("crd-gatewayparameters.yaml")
    assert crd["metadata"]["name"] == f"{PARAMETERS_INFO.plural}.{PARAMETERS_INFO.group}"
    assert crd["spec"]["scope"] == PARAMETERS_INFO.scope
    (version,) = crd["spec"]["versions"]
    assert version["name"] == PARAMETERS_INFO.version
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    compare(ParametersSpec, spec, "spec")
    assert spec["properties"]["logLevel"]["enum"] == list(LOG_LEVELS)


def compare(struct: type, schema: Document, path: str) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert fields.keys() == schema["properties"].keys(), path
    assert {name for name, field in fields.items() if field.required} == set(schema.get("required", ())), path
    for name, field in fields.items():
        inner = struct_of(field.type)
        if inner is not None:
            found = schema["properties"][name]
            compare(inner, found["items"] if found["type"] == "array" else found, f"{path}.{name}")


def struct_of(hint: Any) -> type[msgspec.Struct] | None:
    """The struct that a field's type is about, within Annotated, tuple or union."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for each in get_args(hint) if (found := struct_of(each)) is not None), None)


def test_the_controller_is_where_proxies_look_for_it() -> None:
    (service,) = read("service.yaml")
    deployment, _budget = read("deployment.yaml")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == (XDS_NAME, NAMESPACE)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items(), "every replica that is ready serves"
    assert [port["port"] for port in service["spec"]["ports"]] == [XDS_PORT]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["xds"] == XDS_PORT
    (listen,) = [word.partition("=")[2] for word in container["command"] if word.startswith("--health-listen=")]
    assert parse_listen(listen) == (None, ports["health"])
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"health"}
    server = HealthServer(listen, lambda: "")
    assert all(server.answer("GET", probe["path"])[0] == 200 for probe in probes.values())
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == read("rbac.yaml")[0]["metadata"]["name"]
