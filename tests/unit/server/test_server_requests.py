"""What requests answer: codes, reasons, pages, tables, and that nothing hostile is a 5xx."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_world import CONFIG_MAPS, ROUTES, World, config_map, route, within

from propylon.server.identity import ANONYMOUS, AUTHENTICATED, User


def test_codes_and_reasons(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.json("POST", ROUTES, route("a", "a.example.com"), 201)
        taken = await world.json("POST", ROUTES, route("a"), 409)
        assert taken["reason"] == "AlreadyExists"
        assert (await world.json("GET", f"{ROUTES}/b", code=404))["reason"] == "NotFound"
        stale = {**made, "spec": {"hostnames": ["b.example.com"]}}
        await world.json("PUT", f"{ROUTES}/a", stale)
        assert (await world.json("PUT", f"{ROUTES}/a", stale, 409))["reason"] == "Conflict"
        invalid = await world.json("POST", ROUTES, route("b", "NO"), 422)
        assert invalid["details"]["causes"][0]["field"] == "spec.hostnames[0]"
        assert (await world.json("POST", ROUTES, b"{", 400))["reason"] == "BadRequest"
        await world.json("POST", ROUTES, b"x", 415, content_type="text/html")
        await world.json("GET", ROUTES, code=406, accept="application/vnd.kubernetes.protobuf")
        await world.json("DELETE", "/version", code=405)
        await world.json("PUT", ROUTES, route("a"), 405)
        unknown = await world.send("GET", "/apis/no.example.com/v1/things")
        assert (unknown.code, unknown.content_type) == (404, "text/plain; charset=utf-8")
        await world.json("GET", ROUTES, code=400, labelSelector="a in (")
        await world.json("GET", ROUTES, code=400, fieldSelector="spec.hostnames=a")
        await world.json("GET", ROUTES, code=504, resourceVersion="999999", resourceVersionMatch="NotOlderThan")
        wrong_namespace = route("c")
        wrong_namespace["metadata"]["namespace"] = "other"
        await world.json("POST", ROUTES, wrong_namespace, 400)
        missing = await world.json("POST", ROUTES.replace("default", "nowhere"), route("c"), 404)
        assert missing["message"] == 'namespaces "nowhere" not found'

    within(tmp_path, story)


def test_typed_clients_leave_out_what_the_url_says(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.json("POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {}}, 201)
        assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
        await world.json("POST", CONFIG_MAPS, {**config_map("b"), "kind": "Secret"}, 400)

    within(tmp_path, story)


def test_an_object_from_a_file_can_say_anything_and_lists_go_on(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        odd = config_map("odd")
        odd["metadata"]["managedFields"] = "nonsense"
        world.store.apply(odd, "files")
        (shown,) = (await world.json("GET", CONFIG_MAPS))["items"]
        assert "managedFields" not in shown["metadata"]
        form, apply = "application/apply-patch+yaml", config_map("odd", x="y")
        await world.json("PATCH", f"{CONFIG_MAPS}/odd", apply, content_type=form, fieldManager="me")

    within(tmp_path, story)


def test_what_files_say_conflicts_until_forced(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.store.apply(config_map("c", x="file", y="file"), "files")
        wanted: dict[str, Any] = {"content_type": "application/apply-patch+yaml", "fieldManager": "me"}
        refused = await world.json("PATCH", f"{CONFIG_MAPS}/c", config_map("c", x="mine"), 409, **wanted)
        assert refused["details"]["causes"] == [
            {"reason": "FieldManagerConflict", "message": 'conflict with "files"', "field": ".data.x"}
        ]
        await world.json("PATCH", f"{CONFIG_MAPS}/c", config_map("c", y="file", z="mine"), **wanted)
        taken = await world.json("PATCH", f"{CONFIG_MAPS}/c", config_map("c", x="mine"), force="true", **wanted)
        assert taken["data"] == {"x": "mine", "y": "file"}, "z was mine and went, y is the file's and stayed"

    within(tmp_path, story)


def test_pages_hold_every_object_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(7):
            await world.json("POST", CONFIG_MAPS, config_map(f"c{number}"), 201)
        seen: list[str] = []
        token = ""
        while True:
            page = await world.json("GET", CONFIG_MAPS, limit="3", **{"continue": token})
            seen += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                break
            assert page["metadata"]["remainingItemCount"] == 7 - len(seen)
            await world.json("POST", CONFIG_MAPS, config_map(f"a{len(seen)}"), 201)
        assert seen == [f"c{number}" for number in range(7)], "what came before the page is not of this list"
        await world.json("GET", CONFIG_MAPS, code=400, limit="3", **{"continue": "nonsense"})

    within(tmp_path, story)


def test_generated_names_secrets_and_dry_runs(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        document = config_map("")
        document["metadata"] = {"generateName": "c-"}
        made = await world.json("POST", CONFIG_MAPS, document, 201)
        assert made["metadata"]["name"].startswith("c-")
        assert len(made["metadata"]["name"]) == 7
        version = world.store.resource_version
        dry = await world.json("POST", CONFIG_MAPS, config_map("dry"), 201, dryRun="All")
        assert dry["metadata"]["uid"]
        name = made["metadata"]["name"]
        await world.json("DELETE", f"{CONFIG_MAPS}/{name}", dryRun="All")
        assert world.store.resource_version == version
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}
        stored = await world.json("POST", CONFIG_MAPS.replace("configmaps", "secrets"), secret, 201)
        assert stored["data"] == {"a": "Yg=="}
        assert "stringData" not in stored

    within(tmp_path, story)


def test_tables_and_metadata_alone(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.json("POST", ROUTES, route("a", "a.example.com"), 201)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        table = await world.json("GET", ROUTES, accept=accept)
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Hostnames", "Age", "Accepted"]
        assert table["rows"][0]["cells"][:2] == ["a", '["a.example.com"]']
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        alone = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        assert "spec" not in (await world.json("GET", ROUTES, accept=alone))["items"][0]

    within(tmp_path, story)


def test_an_older_version_shows_the_same_object(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        old = ROUTES.replace("/v1/", "/v1beta1/")
        document = {**route("a", "a.example.com"), "apiVersion": "gateway.networking.k8s.io/v1beta1"}
        await world.json("POST", old, document, 201)
        assert (await world.json("GET", f"{ROUTES}/a"))["apiVersion"] == "gateway.networking.k8s.io/v1"
        assert (await world.json("GET", f"{old}/a"))["apiVersion"] == "gateway.networking.k8s.io/v1beta1"

    within(tmp_path, story)


def test_delete_preconditions_finalizers_and_collections(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        held = route("held", color="red")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await world.json("POST", ROUTES, held, 201)
        for name in ("a", "b"):
            await world.json("POST", ROUTES, route(name, color="red"), 201)
        await world.json("POST", ROUTES, route("c", color="blue"), 201)
        await world.json("DELETE", f"{ROUTES}/a", {"preconditions": {"uid": "x"}}, 409)
        await world.json("DELETE", ROUTES, labelSelector="color=red")
        left = {item["metadata"]["name"]: item for item in (await world.json("GET", ROUTES))["items"]}
        assert set(left) == {"c", "held"}
        assert left["held"]["metadata"]["deletionTimestamp"]
        patch = [{"op": "remove", "path": "/metadata/finalizers"}]
        await world.json("PATCH", f"{ROUTES}/held", patch, content_type="application/json-patch+json")
        await world.json("GET", f"{ROUTES}/held", code=404)

    within(tmp_path, story)


def test_values_of_the_wrong_type(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": 1}}
        refused = await world.json("POST", CONFIG_MAPS, wrong, 400)
        assert refused["reason"] == "BadRequest"
        assert "cannot be handled as a ConfigMap" in refused["message"]
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"a": "%"}}
        await world.json("POST", CONFIG_MAPS.replace("configmaps", "secrets"), secret, 400)
        await world.json("POST", CONFIG_MAPS, {**wrong, "data": {}}, 201)
        await world.json("PUT", f"{CONFIG_MAPS}/a", wrong, 400)
        for form in ("merge-patch+json", "strategic-merge-patch+json"):
            patched = await world.json(
                "PATCH", f"{CONFIG_MAPS}/a", b'{"data":{"a":1}}', 422, content_type=f"application/{form}"
            )
            assert patched["details"]["causes"][0]["field"] == "patch"
        of_gateway_api = route("a")
        of_gateway_api["spec"] = {"hostnames": 3}
        await world.json("POST", ROUTES, of_gateway_api, 422)

    within(tmp_path, story)


def test_who_may(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.json("GET", ROUTES, code=403, user=ANONYMOUS)
        await world.json("GET", "/version", user=ANONYMOUS)
        await world.json("GET", "/apis", code=403, user=ANONYMOUS)
        ada = User("ada", ("devs", AUTHENTICATED))
        await world.json("GET", "/apis", user=ada)
        refused = await world.json("GET", ROUTES, code=403, user=ada)
        assert 'User "ada" cannot list resource "httproutes"' in refused["message"]
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "Group", "name": "devs"}],
        }
        bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
        await world.json("POST", bindings, binding, 201)
        await world.json("GET", CONFIG_MAPS, user=ada)
        await world.json("GET", "/api/v1/configmaps", code=403, user=ada)
        grant = {**binding, "metadata": {"name": "c"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
        escalated = await world.json("POST", bindings, grant, 403, user=ada)
        assert "not currently held" in escalated["message"]
        more = {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
        form = "application/merge-patch+json"
        await world.json("PATCH", f"{bindings}/b", more, 403, user=ada, content_type=form)

    within(tmp_path, story)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_BODIES = st.one_of(
    st.binary(max_size=60),
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"metadata": _JSON, "spec": _JSON, "status": _JSON}).map(
        lambda parts: json.dumps({**route("a"), **parts}).encode()
    ),
)
_FORMS = st.sampled_from(
    [
        "application/json",
        "application/yaml",
        "application/apply-patch+yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/vnd.kubernetes.protobuf",
        "text/plain",
    ]
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "BREW"]),
            st.sampled_from(
                [
                    ROUTES,
                    f"{ROUTES}/a",
                    f"{ROUTES}/a/status",
                    f"{ROUTES}/a/scale",
                    CONFIG_MAPS,
                    f"{CONFIG_MAPS}/a",
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                    "/openapi/v3/x",
                    "/apis/a/b/c/d/e/f/g",
                    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                    "/api/v1/pods",
                    "//",
                    "/api//",
                ]
            ),
            _BODIES,
            _FORMS,
            st.dictionaries(
                st.sampled_from(
                    [
                        "labelSelector",
                        "fieldSelector",
                        "limit",
                        "continue",
                        "resourceVersion",
                        "dryRun",
                        "fieldManager",
                        "fieldValidation",
                        "propagationPolicy",
                        "force",
                    ]
                ),
                st.text(max_size=6) | st.sampled_from(["All", "1", "true"]),
                max_size=2,
            ),
        ),
        min_size=20,
        max_size=40,
    )
)
def test_nothing_hostile_is_a_server_error(tmp_path_factory: pytest.TempPathFactory, requests: list[Any]) -> None:
    async def story(world: World) -> None:
        await world.json("POST", ROUTES, route("a"), 201)
        await world.json("POST", CONFIG_MAPS, config_map("a"), 201)
        for method, path, body, form, parameters in requests:
            answered = await world.send(method, path, body, content_type=form, **parameters)
            assert answered.code < 500 or answered.code == 504, (method, path, body, form, parameters, answered.body)
        assert (await world.send("GET", "/healthz")).body == b"ok"

    within(tmp_path_factory.mktemp("fuzz"), story)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"metadata":' * 500,
        b'{"a": NaN}',
        b'{"a": 1e999999}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'"\xff"',
        b"a: &x [1]\nb: [*x, *x]",
        b"k8s\x00\x0a\xff\xff",
        b"",
    ],
)
@pytest.mark.parametrize("form", ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
def test_hostile_bodies_are_bad_requests(tmp_path: Path, body: bytes, form: str) -> None:
    async def story(world: World) -> None:
        answered = await world.send("POST", ROUTES, body, content_type=form)
        assert answered.code in (400, 415), answered.body

    within(tmp_path, story)


@pytest.mark.parametrize("version", ["\u00b2", "9" * 30, str(1 << 64), "-1", "x"])
@pytest.mark.parametrize("more", [{}, {"watch": "true"}])
def test_versions_that_are_no_numbers_are_bad_requests(tmp_path: Path, version: str, more: dict[str, str]) -> None:
    async def story(world: World) -> None:
        answered = await world.send("GET", ROUTES, b"", resourceVersion=version, **more)
        assert answered.code == 400, answered.body

    within(tmp_path, story)
