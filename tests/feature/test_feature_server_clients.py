"""The official Python client, unchanged, against the embedded API: what programs do with it."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError

from propylon.server.machine import MachineStore
from propylon.server.service import ApiServer

pytestmark = pytest.mark.feature

GATEWAY = "gateway.networking.k8s.io"
PLACE = (GATEWAY, "v1", "default", "httproutes")
RETAINED = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    directory = tmp_path_factory.mktemp("clients")
    with MachineStore(directory, retained_changes=RETAINED) as store:
        running = ApiServer(store, directory, port=0)
        running.start()
        try:
            running.wait_ready()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def connection(server: ApiServer) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(server.kubeconfig)) as api:
        yield api


def route(name: str, *hostnames: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{GATEWAY}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"hostnames": list(hostnames) or [f"{name}.example.com"]},
    }


def config_map(name: str, **labels: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data={"key": "value"})


def test_custom_objects(connection: client.ApiClient) -> None:
    api = client.CustomObjectsApi(connection)
    made = api.create_namespaced_custom_object(*PLACE, route("custom"))
    assert made["metadata"]["generation"] == 1
    patched = api.patch_namespaced_custom_object(*PLACE, "custom", {"metadata": {"labels": {"a": "b"}}})
    assert patched["metadata"]["labels"] == {"a": "b"}
    operations = [{"op": "add", "path": "/spec/hostnames/-", "value": "other.example.com"}]
    patched = api.patch_namespaced_custom_object(
        *PLACE, "custom", operations, _content_type="application/json-patch+json"
    )
    assert patched["spec"]["hostnames"] == ["custom.example.com", "other.example.com"]
    assert patched["metadata"]["generation"] == 2
    with pytest.raises(ApiException) as refused:
        api.replace_namespaced_custom_object(*PLACE, "custom", made)
    assert (refused.value.status, json.loads(refused.value.body)["reason"]) == (409, "Conflict")
    listed = api.list_namespaced_custom_object(*PLACE, label_selector="a=b")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["custom"]
    assert api.delete_namespaced_custom_object(*PLACE, "custom")["status"] == "Success"
    with pytest.raises(ApiException) as missing:
        api.get_namespaced_custom_object(*PLACE, "custom")
    assert missing.value.status == 404


def test_invalid_objects_are_refused_with_causes(connection: client.ApiClient) -> None:
    api = client.CustomObjectsApi(connection)
    with pytest.raises(ApiException) as refused:
        api.create_namespaced_custom_object(*PLACE, route("bad", "not a hostname"))
    status = json.loads(refused.value.body)
    assert (refused.value.status, status["reason"]) == (422, "Invalid")
    assert status["details"]["causes"][0]["field"] == "spec.hostnames[0]"


def test_typed_objects(connection: client.ApiClient) -> None:
    core = client.CoreV1Api(connection)
    namespace = core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="typed")))
    assert namespace.status.phase == "Active"
    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="s-"), string_data={"p": "w"})
    made = core.create_namespaced_secret("typed", secret)
    assert made.metadata.name.startswith("s-")
    assert made.data == {"p": "dw=="}
    assert made.metadata.creation_timestamp.tzinfo is not None
    core.create_namespaced_config_map("typed", config_map("c"))
    patched = core.patch_namespaced_config_map("c", "typed", {"data": {"more": "x"}})
    assert patched.data == {"key": "value", "more": "x"}
    with pytest.raises(ApiException) as taken:
        core.create_namespaced_config_map("typed", config_map("c"))
    assert json.loads(taken.value.body)["reason"] == "AlreadyExists"
    core.delete_namespace("typed")
    deadline = time.monotonic() + 10
    while "typed" in [item.metadata.name for item in core.list_namespace().items]:
        assert time.monotonic() < deadline, "the namespace goes with what is in it"


def test_pages(connection: client.ApiClient) -> None:
    core = client.CoreV1Api(connection)
    names = [f"page-{number}" for number in range(7)]
    for name in names:
        core.create_namespaced_config_map("default", config_map(name, page="yes"))
    found, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map("default", label_selector="page=yes", limit=3, _continue=token)
        found += [item.metadata.name for item in page.items]
        pages += 1
        token = page.metadata._continue
        if not token:
            break
    assert (found, pages) == (names, 3)
    core.delete_collection_namespaced_config_map("default", label_selector="page=yes")
    assert core.list_namespaced_config_map("default", label_selector="page=yes").items == []


def test_watch(connection: client.ApiClient) -> None:
    core = client.CoreV1Api(connection)
    version = core.list_namespaced_config_map("default").metadata.resource_version

    def change() -> None:
        core.create_namespaced_config_map("default", config_map("watched"))
        core.patch_namespaced_config_map("watched", "default", {"data": {"key": "new"}})
        core.delete_namespaced_config_map("watched", "default")

    thread = threading.Thread(target=change)
    thread.start()
    told = []
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map,
        "default",
        resource_version=version,
        field_selector="metadata.name=watched",
        timeout_seconds=20,
    ):
        told.append((event["type"], event["object"].data["key"]))
        if event["type"] == "DELETED":
            stream.stop()
    thread.join()
    assert told == [("ADDED", "value"), ("MODIFIED", "new"), ("DELETED", "new")]


def test_a_watch_from_too_long_ago_is_told_to_list_again(connection: client.ApiClient) -> None:
    core = client.CoreV1Api(connection)
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("counted"))
    for number in range(2 * RETAINED):
        core.patch_namespaced_config_map("counted", "default", {"data": {"key": str(number)}})
    with pytest.raises(ApiException) as expired:
        for _ in watch.Watch().stream(
            core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=5
        ):
            pass
    assert expired.value.status == 410
    # Without a version the client lists by itself, and follows from there.
    event = next(iter(watch.Watch().stream(core.list_namespaced_config_map, "default", timeout_seconds=5)))
    assert (event["type"], event["object"].data["key"]) == ("ADDED", str(2 * RETAINED - 1))
    core.delete_namespaced_config_map("counted", "default")


def test_server_side_apply(connection: client.ApiClient) -> None:
    found = dynamic.DynamicClient(connection)
    routes = found.resources.get(api_version=f"{GATEWAY}/v1", kind="HTTPRoute")
    assert routes.namespaced
    made = routes.server_side_apply(route("applied"), namespace="default", field_manager="one")
    managers = [entry.manager for entry in made.metadata.managedFields]
    assert managers == ["one"]
    changed = route("applied", "changed.example.com")
    with pytest.raises(ConflictError) as conflict:
        routes.server_side_apply(changed, namespace="default", field_manager="two")
    assert json.loads(conflict.value.body)["details"]["causes"][0]["field"] == ".spec.hostnames"
    forced = routes.server_side_apply(changed, namespace="default", field_manager="two", force_conflicts=True)
    assert forced.spec.hostnames == ["changed.example.com"]
    # The first applies nothing any more, and takes away nothing that is the second's.
    empty = {**route("applied"), "spec": {}}
    left = routes.server_side_apply(empty, namespace="default", field_manager="one")
    assert left.spec.hostnames == ["changed.example.com"]
    routes.delete(name="applied", namespace="default")


def test_status_and_scale(connection: client.ApiClient) -> None:
    apps = client.AppsV1Api(connection)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    apps.create_namespaced_deployment("default", {"metadata": {"name": "scaled"}, "spec": spec})
    scale = apps.read_namespaced_deployment_scale("scaled", "default")
    assert scale.spec.replicas == 1
    apps.patch_namespaced_deployment_scale("scaled", "default", {"spec": {"replicas": 3}})
    written = apps.patch_namespaced_deployment_status(
        "scaled", "default", {"spec": {"replicas": 9}, "status": {"readyReplicas": 2}}
    )
    assert (written.spec.replicas, written.status.ready_replicas) == (3, 2)
    apps.delete_namespaced_deployment("scaled", "default")


def test_what_may_be_done(connection: client.ApiClient) -> None:
    api = client.AuthorizationV1Api(connection)
    attributes = {"group": GATEWAY, "resource": "gateways", "verb": "delete", "namespace": "default"}
    review = api.create_self_subject_access_review({"spec": {"resourceAttributes": attributes}})
    assert review.status.allowed is True
    assert "v1" in [
        version.version
        for group in client.ApisApi(connection).get_api_versions().groups
        if group.name == GATEWAY
        for version in group.versions
    ]
    assert client.VersionApi(connection).get_code().major == "1"


def test_nobody_comes_in_without_a_certificate(server: ApiServer) -> None:
    anonymous = client.Configuration()
    anonymous.host = server.address
    anonymous.ssl_ca_cert = str(server.kubeconfig.parent / "api" / "ca.crt")
    with client.ApiClient(anonymous) as api, pytest.raises(ApiException) as refused:
        client.CoreV1Api(api).list_namespace()
    assert refused.value.status in (401, 403)
