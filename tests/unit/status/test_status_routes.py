from copy import deepcopy

import yaml
from graph_world import World

from propylon import api
from propylon.status import Status, merge_status

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c, generation: 1}
spec: {controllerName: example.com/c}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n, generation: 1}
spec:
  gatewayClassName: c
  listeners: [{name: one, port: 80, protocol: HTTP}, {name: two, port: 81, protocol: HTTP}]
"""


def route(name: str, section: str = "one", generation: int = 1, service: str = "") -> str:
    backends = f"{{name: {service}, port: 80}}" if service else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: n, generation: {generation}}}
spec:
  parentRefs: [{{name: g, sectionName: {section}}}]
  hostnames: [{name}.example.com]
  rules: [{{backendRefs: [{backends}]}}]
"""


def status(world: World, name: str) -> Status:
    found = world.statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", name))
    assert found is not None
    return found


def test_routes_of_which_the_same_is_to_be_said_share_one_status() -> None:
    others = route("b", "two"), route("c", generation=2), route("d", service="missing")
    world = World().load(GATEWAY + route("a") + route("same") + "".join(others))
    first = status(world, "a")
    assert status(world, "same") is first
    assert all(status(world, name) != first for name in "bcd")
    world.set(yaml.safe_load(route("a", service="missing")))
    world.commit()
    assert status(world, "a")["parents"][0]["conditions"][1]["status"] == "False"
    assert status(world, "same") is first


def test_a_status_that_is_shared_is_not_written_to() -> None:
    world = World().load(GATEWAY + route("a"))
    wanted = status(world, "a")
    before = deepcopy(dict(wanted))
    merged = merge_status({}, wanted, "2026-05-05T00:00:00Z")
    assert merged is not None
    assert merge_status({"status": merged}, wanted, "2026-06-06T00:00:00Z") is None
    merged["parents"][0]["conditions"][0]["status"] = "False"
    assert merge_status({"status": merged}, wanted, "2026-06-06T00:00:00Z") is not None
    assert dict(wanted) == before
