"""Endpoints given from outside, and Service ports that nobody serves."""

import yaml
from graph_world import World

from propylon.graph.model import BackendKey, Endpoint
from propylon.incremental import Engine, Source
from propylon.incremental.union import Union

KEY = BackendKey("Service", "n", "a", 80)
MANIFESTS = """
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: edge}, spec: {controllerName: a.b/c}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n}
spec: {gatewayClassName: edge, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: n}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: a, port: 80}, {name: out, port: 80}]}]}
---
{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n},
 spec: {ports: [{name: x, port: 80}, {name: y, port: 81}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: out, namespace: n},
 spec: {type: ExternalName, externalName: example.org, ports: [{port: 80}]}}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: n, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: x, port: 8080}]
endpoints: [{addresses: [10.1.1.1]}]
"""


def test_a_referenced_port_without_endpoints_is_unserved_whatever_the_fallback() -> None:
    world = World().load(MANIFESTS)
    assert dict(world.graph.unserved.items()).keys() == {KEY}  # port 81 is not referred to, `out` is found by DNS
    world.sources.fallback_endpoints.set(KEY, (Endpoint("127.0.0.1", 9),))
    world.commit()
    assert world.graph.endpoints.get(KEY) == (Endpoint("127.0.0.1", 9),)
    assert KEY in world.graph.unserved
    ref = world.set(yaml.safe_load(SLICE))
    world.commit()
    assert world.graph.endpoints.get(KEY) == (Endpoint("10.1.1.1", 8080),)
    assert KEY not in world.graph.unserved
    world.remove(ref)
    world.commit()
    assert KEY in world.graph.unserved


def test_endpoints_that_equal_those_of_the_fallback_are_endpoints() -> None:
    world = World().load(MANIFESTS)
    world.sources.fallback_endpoints.set(KEY, (Endpoint("10.1.1.1", 8080),))
    world.commit()
    assert KEY in world.graph.unserved
    world.set(yaml.safe_load(SLICE))
    assert not world.commit().changes(world.graph.endpoints)
    assert KEY not in world.graph.unserved


def test_overrides_go_before_slices_and_count_for_every_port() -> None:
    world = World().load(MANIFESTS + "---" + SLICE)
    world.sources.endpoint_overrides.set(KEY._replace(port=0), (Endpoint("127.0.0.1", 1),))
    world.commit()
    assert world.graph.endpoints.get(KEY) == (Endpoint("127.0.0.1", 1),)
    assert world.graph.endpoints.get(KEY._replace(port=81)) == (Endpoint("127.0.0.1", 1),)
    world.sources.endpoint_overrides.set(KEY, (Endpoint("127.0.0.1", 2),))
    world.commit()
    assert world.graph.endpoints.get(KEY) == (Endpoint("127.0.0.1", 2),)
    assert KEY not in world.graph.unserved


def test_an_override_takes_an_external_name_off_dns() -> None:
    world = World().load(MANIFESTS)
    out = BackendKey("Service", "n", "out", 80)
    backend = world.graph.backends.get(out)
    assert backend is not None
    assert (backend.discovery, backend.dns_name) == ("DNS", "example.org")
    world.sources.endpoint_overrides.set(out, (Endpoint("127.0.0.1", 1),))
    world.commit()
    backend = world.graph.backends.get(out)
    assert backend is not None
    assert backend.discovery == "EDS"


def test_a_key_in_several_parts_of_a_union_is_the_first_parts() -> None:
    engine = Engine()
    one: Source[str, int] = engine.source("one")
    two: Source[str, int] = engine.source("two")
    union: Union[str, int] = Union(engine, "both", one, two)
    two.set("k", 2)
    engine.commit()
    assert union.get("k") == 2
    one.set("k", 1)
    engine.commit()
    assert union.get("k") == 1
    one.remove("k")
    engine.commit()
    assert union.get("k") == 2
    two.remove("k")
    engine.commit()
    assert "k" not in union
