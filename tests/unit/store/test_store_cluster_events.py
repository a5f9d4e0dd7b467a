"""Events are bounded: the same thing is not said twice, and a flood is cut off."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from propylon import api
from propylon.store.cluster import Recorder
from propylon.store.cluster import events as module
from propylon.store.cluster.events import Note, build_event
from propylon.store.cluster.rbac import build_manifests, build_rules
from support.scripted_api import Request, serving, until

ROUTE = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "shop", "cart")
NOTE = Note(ROUTE, "uid-1", "Warning", "BackendNotFound", "Service shop/cart does not exist")


def test_an_event_names_its_object_and_fits() -> None:
    event = build_event(NOTE._replace(message="x" * 5000), datetime(2030, 1, 2, tzinfo=UTC))
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("cart.")
    assert event["involvedObject"] == {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "HTTPRoute",
        "namespace": "shop",
        "name": "cart",
        "uid": "uid-1",
    }
    assert len(event["message"]) == 1024
    assert event["firstTimestamp"] == "2030-01-02T00:00:00Z"
    cluster_scoped = NOTE._replace(ref=api.ObjectRef(api.GATEWAY_GROUP, "GatewayClass", "", "c" * 253))
    event = build_event(cluster_scoped, datetime(2030, 1, 2, tzinfo=UTC))
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]
    assert len(event["metadata"]["name"]) <= 253


def test_what_was_said_is_not_said_again_and_a_refused_event_stops_nobody(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "PER_SECOND", 1000.0)
    monkeypatch.setattr(module, "QUEUE", 2)
    posted: list[dict[str, Any]] = []

    async def handler(request: Request) -> None:
        assert (request.method, request.path) == ("POST", "/api/v1/namespaces/shop/events")
        posted.append(json.loads(request.body))
        if len(posted) == 1:
            await request.refuse(403, "Forbidden")
        else:
            await request.answer(posted[-1], 201)

    async def scenario() -> None:
        async with serving(handler) as client:
            recorder = Recorder(client)
            recorder.record(NOTE)
            recorder.enabled = True
            for reason in ("One", "One", "Two", "TooMany"):
                recorder.record(NOTE._replace(reason=reason))
            task = asyncio.create_task(recorder.run())
            await until(lambda: len(posted) == 2)
            recorder.record(NOTE._replace(reason="One"))
            recorder.record(NOTE._replace(reason="Three"))
            await until(lambda: len(posted) == 3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert [event["reason"] for event in posted] == ["One", "Two", "Three"]


def test_roles_allow_what_is_done_and_nothing_else() -> None:
    kinds = {info.kind: info for info in api.KINDS}
    rules = build_rules([kinds["Gateway"], kinds["Secret"]], [kinds["Gateway"]])
    allowed = {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    assert allowed == {
        *((api.GATEWAY_GROUP, "gateways", verb) for verb in ("get", "list", "watch")),
        *(("", "secrets", verb) for verb in ("get", "list", "watch")),
        (api.GATEWAY_GROUP, "gateways/status", "patch"),
        ("", "events", "create"),
    }
    manifests = build_manifests("system", "propylon", [kinds["Gateway"]], [kinds["Gateway"]])
    assert [m["kind"] for m in manifests] == [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ]
    (role,) = (m for m in manifests if m["kind"] == "Role")
    assert role["rules"][1] == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "update"],
        "resourceNames": ["propylon"],
    }
