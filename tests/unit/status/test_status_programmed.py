"""Programmed is what the proxies say, and conditions are at the generation that was observed."""

from typing import Any

import yaml
from graph_world import World

from propylon import api
from propylon.graph import GatewayAddresses, Settings
from propylon.graph.model import Finding, PortKey
from propylon.status import SUPPORTED_FEATURES, ChainPlace, PortProgrammed

GATEWAY = api.ObjectKey("n", "g")
MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: edge, generation: 3}
spec: {controllerName: example.com/a}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n, generation: 4}
spec:
  gatewayClassName: edge
  listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: n, generation: 5}
spec: {parentRefs: [{name: g, sectionName: a}, {name: g, sectionName: b}]}
"""


def world() -> World:
    found = World()
    for document in yaml.safe_load_all(MANIFESTS):
        found.set(document)
    found.commit()
    return found


def set_ports(found: World, a: PortProgrammed, b: PortProgrammed) -> None:
    found.programmed.set(PortKey(GATEWAY, 80, "TCP"), a)
    found.programmed.set(PortKey(GATEWAY, 81, "TCP"), b)
    found.commit()


def test_nothing_is_programmed_before_a_proxy_says_so() -> None:
    found = world()
    assert found.condition("Gateway", "n/g", "Accepted")[0] == "True"
    assert found.condition("Gateway", "n/g", "Programmed")[:2] == ("Unknown", "Pending")
    set_ports(found, PortProgrammed("Programmed"), PortProgrammed("Pending", "warming"))
    assert found.condition("Gateway", "n/g", "Programmed", "a")[0] == "True"
    assert found.condition("Gateway", "n/g", "Programmed", "b")[:2] == ("Unknown", "Pending")
    assert found.condition("Gateway", "n/g", "Programmed") == ("Unknown", "Pending", "port 81: warming")
    set_ports(found, PortProgrammed("Programmed"), PortProgrammed("Programmed"))
    assert found.condition("Gateway", "n/g", "Programmed")[:2] == ("True", "Programmed")


def test_a_refused_port_is_told_where_it_is_and_not_where_it_is_not() -> None:
    found = world()
    set_ports(found, PortProgrammed("Programmed"), PortProgrammed("Rejected", "cannot bind"))
    assert found.condition("Gateway", "n/g", "Programmed", "a")[0] == "True"
    assert found.condition("Gateway", "n/g", "Programmed", "b") == ("False", "Invalid", "port 81: cannot bind")
    assert found.condition("Gateway", "n/g", "Programmed") == ("False", "Invalid", "port 81: cannot bind")


def test_addresses_that_are_missing_or_unusable() -> None:
    found = world()
    set_ports(found, PortProgrammed("Programmed"), PortProgrammed("Programmed"))
    found.sources.addresses.set(GATEWAY, GatewayAddresses(finding=Finding("Programmed", "AddressNotAssigned", "full")))
    found.commit()
    assert found.condition("Gateway", "n/g", "Programmed") == ("False", "AddressNotAssigned", "full")
    assert found.condition("Gateway", "n/g", "Programmed", "a") == ("False", "Pending", "full")
    assert found.condition("Gateway", "n/g", "Accepted")[0] == "True"
    finding = Finding("Programmed", "AddressNotUsable", "10.9.9.9 is not here", "spec.addresses")
    addresses = (api.GatewayStatusAddress("10.0.0.1"),)
    found.sources.addresses.set(GATEWAY, GatewayAddresses(addresses, ("10.0.0.1",), 0, finding))
    found.commit()
    assert found.condition("Gateway", "n/g", "Programmed")[:2] == ("False", "AddressNotUsable")
    assert found.condition("Gateway", "n/g", "Programmed", "a")[0] == "True"


def test_what_envoy_refused_stands_on_the_object_that_caused_it() -> None:
    found = world()
    ref = api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", "r")
    assert found.condition("HTTPRoute", "n/r", "propylon.dev/Programmed") == ("", "", "")
    found.rejections.set(ref, (Finding("Programmed", "Invalid", "Envoy refused it"),))
    found.commit()
    assert found.condition("HTTPRoute", "n/r", "propylon.dev/Programmed") == ("False", "Invalid", "Envoy refused it")
    found.rejections.remove(ref)
    found.commit()
    assert found.condition("HTTPRoute", "n/r", "propylon.dev/Programmed") == ("", "", "")


def conditions_of(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = value.get("conditions", [])
        return [*own, *(c for k, v in value.items() if k != "conditions" for c in conditions_of(v))]
    return [c for v in value for c in conditions_of(v)] if isinstance(value, list) else []


def test_every_condition_names_the_generation_it_was_observed_at() -> None:
    found = world()
    expected = {"GatewayClass": 3, "Gateway": 4, "HTTPRoute": 5}
    for ref, status in found.statuses.items():
        conditions = conditions_of(dict(status))
        assert conditions
        assert {c["observedGeneration"] for c in conditions} == {expected[ref.kind]}


def test_parent_refs_are_repeated_as_they_were_written() -> None:
    status = world().statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", "r"))
    assert status is not None
    assert [p["parentRef"] for p in status["parents"]] == [
        {"group": api.GATEWAY_GROUP, "kind": "Gateway", "name": "g", "sectionName": "a"},
        {"group": api.GATEWAY_GROUP, "kind": "Gateway", "name": "g", "sectionName": "b"},
    ]


def test_a_class_of_another_controller_is_left_alone() -> None:
    found = World(Settings(controllers=frozenset({"example.com/other"})))
    for document in yaml.safe_load_all(MANIFESTS):
        found.set(document)
    found.commit()
    assert {ref.kind for ref, _ in found.statuses.items()} == {"HTTPRoute"}
    status = found.statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "HTTPRoute", "n", "r"))
    assert status is not None
    assert status["parents"] == []
    assert not len(found.graph.gateways)


def test_features_are_as_the_api_wants_them() -> None:
    assert list(SUPPORTED_FEATURES) == sorted(set(SUPPORTED_FEATURES))
    assert 0 < len(SUPPORTED_FEATURES) <= 64


def test_a_listener_whose_chain_is_refused_is_not_programmed_and_its_neighbours_are() -> None:
    found = world()
    found.set(
        yaml.safe_load("""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n, generation: 5}
spec:
  gatewayClassName: edge
  listeners:
    - {name: one, port: 443, protocol: TLS, hostname: one.test, tls: {mode: Passthrough}}
    - {name: two, port: 443, protocol: TLS, hostname: two.test, tls: {mode: Passthrough}}
""")
    )
    address = api.GatewayStatusAddress("10.0.0.1", type="IPAddress")
    found.sources.addresses.set(GATEWAY, GatewayAddresses((address,), ("10.0.0.1",)))
    port = PortKey(GATEWAY, 443, "TCP")
    found.programmed.set(port, PortProgrammed("Programmed"))
    found.programmed.set(ChainPlace(port, "two.test"), PortProgrammed("Rejected", "no such filter"))
    found.commit()

    def listeners() -> dict[str, tuple[str, str]]:
        judged = {name: found.condition("Gateway", "n/g", "Programmed", listener=name) for name in ("one", "two")}
        return {name: (status, message) for name, (status, _, message) in judged.items()}

    assert listeners()["one"][0] == "True"
    assert listeners()["two"] == ("False", "listener two: no such filter")
    found.programmed.set(ChainPlace(port, "two.test"), PortProgrammed("Pending", "not yet"))
    found.commit()
    assert listeners()["two"] == ("Unknown", "listener two: not yet")
    found.programmed.remove(ChainPlace(port, "two.test"))
    found.commit()
    assert {status for status, _ in listeners().values()} == {"True"}
