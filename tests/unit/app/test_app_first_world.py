"""A large world at the start, read in parts: what comes of it is what comes of reading it at once."""

from random import Random

import pytest

from propylon import api
from propylon.app import data_plane as data_planes
from propylon.app import workspace as workspaces
from propylon.app.configuration import UpOptions
from propylon.app.data_plane import DataPlane
from propylon.app.workspace import Workspace
from propylon.envoy.resource import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, SECRET
from propylon.proxies.settings import BackingOff
from propylon.xds import Connected

GROUP = "gateway.networking.k8s.io/v1"


def documents():
    def document(api_version, kind, name, spec, **more):
        metadata = {"name": name, "namespace": "shop"} if kind != "GatewayClass" else {"name": name}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, **more}

    yield document(GROUP, "GatewayClass", "ours", {"controllerName": "propylon.dev/gateway-controller"})
    for name in ("east", "west"):
        listeners = [{"name": "http", "protocol": "HTTP", "port": 80}]
        yield document(GROUP, "Gateway", name, {"gatewayClassName": "ours", "listeners": listeners})
    for number in range(12):
        name = f"s{number}"
        yield document("v1", "Service", name, {"ports": [{"name": "http", "port": 80}]})
        slices = document("discovery.k8s.io/v1", "EndpointSlice", name, {})
        del slices["spec"]
        slices["metadata"]["labels"] = {"kubernetes.io/service-name": name}
        endpoints = [{"addresses": [f"10.0.0.{number + 1}"]}]
        ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        yield {**slices, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
        rules = [{"backendRefs": [{"name": name, "port": 80}]}]
        parents = [{"name": "east" if number % 2 else "west"}]
        spec = {"parentRefs": parents, "hostnames": [f"h{number}.test"], "rules": rules}
        yield document(GROUP, "HTTPRoute", name, spec)


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(UpOptions(data_dir=tmp_path / "data", api=False), tmp_path / "data", lambda _line: None)
    shuffled = list(documents())
    Random(1).shuffle(shuffled)
    made.store.apply_many(shuffled, "test", create_namespace=True)
    yield made
    made.store.close()


@pytest.fixture
def small_parts(monkeypatch):
    """A dozen objects are a large world, which is read in parts."""
    monkeypatch.setattr(workspaces, "PART", 5)
    monkeypatch.setattr(workspaces, "LARGE", 5)


@pytest.fixture
def plane(workspace, monkeypatch, small_parts):
    """Proxies that are not started: `started` has those that would be."""
    made = DataPlane(workspace.controller, workspace.options.data_dir, ring=lambda: None, say=lambda _line: None)
    made.started = []
    monkeypatch.setattr(made, "_start_proxy", made.started.append)
    monkeypatch.setattr(made, "_in_background", lambda _: None)
    return made


def test_reading_in_parts_comes_to_the_same(workspace, monkeypatch):
    assert list(workspace.advance()) == [], "a small world is left to the turn"
    at_once = workspace.turn()
    again = Workspace(workspace.options, workspace.options.data_dir, lambda _line: None, workspace.store)
    monkeypatch.setattr(workspaces, "PART", 5)
    monkeypatch.setattr(workspaces, "LARGE", 5)
    ahead = {}
    for part in again.advance():
        for node, changes in part.items():
            for name, body in changes.items():
                assert name not in ahead.setdefault(node, {}), "objects come in an order in which nothing changes again"
                ahead[node][name] = body
        assert not dict(again.controller.status.statuses.items()), "nobody is told anything of half a world"
    referred_to = {CLUSTER, CLUSTER_LOAD_ASSIGNMENT, SECRET}
    assert ahead == {
        node: {name: body for name, body in changes.items() if name[0] in referred_to}
        for node, changes in at_once.resources.items()
    }
    assert sum(map(len, ahead.values())) == 36
    while again.controller.step_to_resources():
        pass
    complete = again.controller.resources()
    assert (complete.resources, complete.gateways) == (at_once.resources, at_once.gateways)
    assert not dict(again.controller.status.statuses.items()), "statuses come when proxies know everything"
    assert again.controller.step()
    while again.controller.step():
        pass
    assert dict(again.controller.status.statuses.items())
    in_parts = again.turn()
    assert in_parts.resources == at_once.resources
    assert in_parts.statuses == at_once.statuses
    assert in_parts.gateways == at_once.gateways
    assert again.statuses == workspace.statuses


def test_what_is_written_meanwhile_is_not_missed(workspace, small_parts):
    for number, _ in enumerate(workspace.advance()):
        if number == 1:
            later = next(d for d in documents() if d["metadata"]["name"] == "s3" and d["kind"] == "Service")
            later["metadata"] = {**later["metadata"], "name": "later"}
            workspace.store.apply_many([later], "test")
    workspace.turn()
    names = {key.name for key, _ in workspace.controller.sources.services.items()}
    assert names == {"later", *(f"s{number}" for number in range(12))}


def test_only_proxies_with_much_to_be_told_are_told_ahead(workspace, plane, monkeypatch):
    monkeypatch.setattr(data_planes, "WORTH_TELLING", 10)
    monkeypatch.setattr(data_planes, "STARTING", 0)
    told = {}
    monkeypatch.setattr(
        plane.xds,
        "update",
        lambda node, changes, complete=False: told.setdefault(node, []).append((len(changes), complete)),
    )
    west = api.ObjectKey("shop", "west")
    for part in workspace.advance():
        plane.publish_ahead(
            {node: dict(list(changes.items())[: 1 if node == west else None]) for node, changes in part.items()}
        )
    assert set(told) == {"shop/east"}
    assert all(count >= 10 and not complete for count, complete in told["shop/east"])
    assert plane.started == ["shop/east"]
    outcome = workspace.turn()
    plane.publish(outcome, retry=False)
    assert plane.started == ["shop/east", "shop/west"]
    for name in ("east", "west"):
        assert told[f"shop/{name}"][-1] == (len(outcome.resources[api.ObjectKey("shop", name)]), True)


def test_proxies_are_started_before_there_is_anything_to_tell_them(workspace, plane, monkeypatch):
    monkeypatch.setattr(plane.xds, "update", lambda *_, **__: None)
    for part in workspace.advance():
        if not plane.started:
            assert not part
        plane.publish_ahead(part)
    assert plane.started == ["shop/east", "shop/west"]
    plane.publish(workspace.turn(), retry=False)
    assert plane.started == ["shop/east", "shop/west"], "once"


@pytest.mark.parametrize(
    "event", [Connected("shop/east", 1, first=True), BackingOff("shop/east", 1.0, "no memory")], ids=["up", "not up"]
)
def test_proxies_are_started_some_at_a_time(workspace, plane, monkeypatch, event):
    monkeypatch.setattr(data_planes, "STARTING", 1)
    parts = workspace.advance()
    for part in parts:
        plane.publish_ahead(part)
        if len(workspace.controller.graph.gateways) == 2:
            break
    assert plane.started == ["shop/east"]
    tell = plane._xds_event if isinstance(event, Connected) else plane._proxy_event
    tell(event)
    assert plane.started == ["shop/east", "shop/west"]


def test_all_proxies_are_started_once_it_is_known_what_they_serve(workspace, plane, monkeypatch):
    monkeypatch.setattr(data_planes, "STARTING", 1)
    for part in workspace.advance():
        plane.publish_ahead(part)
    assert plane.started == ["shop/east"]
    plane.publish(workspace.turn(), retry=False)
    plane._xds_event(Connected("shop/east", 1, first=True))
    assert plane.started == ["shop/east", "shop/west"]
