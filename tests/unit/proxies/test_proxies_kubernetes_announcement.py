"""The Service of a Gateway whose proxies are processes, and who may have which of its addresses."""

from typing import Any

from propylon import api
from propylon.proxies.kubernetes.announcement import Announced, plan_announcement
from propylon.proxies.kubernetes.apply import identity_of, owner_of
from propylon.proxies.kubernetes.documents import GATEWAY_NAME

OURS = "propylon.dev/gateway-controller"
PORTS = ((80, "TCP"), (5300, "UDP"))


def gateway(name: str = "web", **infrastructure: Any) -> api.Gateway:
    return api.Gateway(
        metadata=api.ObjectMeta(name=name, namespace="shop", uid="u-1"),
        spec=api.GatewaySpec(
            gateway_class_name="propylon",
            listeners=(),
            infrastructure=api.GatewayInfrastructure(**infrastructure) if infrastructure else None,
        ),
    )


def test_a_service_that_leads_to_the_addresses_of_the_processes() -> None:
    service, four, six = plan_announcement(Announced(gateway(), PORTS, ("10.0.0.7", "fd00::7", "10.0.0.8")), OURS)
    assert [identity_of(document) for document in (service, four, six)] == [
        ("Service", "shop", "web-propylon"),
        ("EndpointSlice", "shop", "web-propylon-ipv4"),
        ("EndpointSlice", "shop", "web-propylon-ipv6"),
    ]
    assert "selector" not in service["spec"]
    assert [(p["name"], p["port"], p["protocol"]) for p in service["spec"]["ports"]] == [
        ("port-80", 80, "TCP"),
        ("port-5300-udp", 5300, "UDP"),
    ]
    assert [e["addresses"] for e in four["endpoints"]] == [["10.0.0.7"], ["10.0.0.8"]]
    assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")
    for found in (four, six):
        # By name: that is how a port of a Service and one of its EndpointSlices belong together.
        assert [p["name"] for p in found["ports"]] == [p["name"] for p in service["spec"]["ports"]]
        assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web-propylon"
    assert {owner_of(document) for document in (service, four, six)} == {"u-1"}


def test_infrastructure_labels_and_annotations_are_on_everything() -> None:
    labels = {"team": "a", GATEWAY_NAME: "mine", "kubernetes.io/service-name": "elsewhere"}
    made = plan_announcement(Announced(gateway(labels=labels, annotations={"note": "b"}), PORTS, ("10.0.0.7",)), OURS)
    for document in made:
        metadata = document["metadata"]
        assert (metadata["labels"]["team"], metadata["annotations"]) == ("a", {"note": "b"})
        assert metadata["labels"][GATEWAY_NAME] == "web", "what ties it to its Gateway is not for others to change"
    assert made[1]["metadata"]["labels"]["kubernetes.io/service-name"] == "web-propylon"


def test_addresses_that_kubernetes_refuses_are_left_out() -> None:
    addresses = ("127.0.0.1", "::1", "169.254.0.1", "fe80::1", "224.0.0.1")
    assert [d["kind"] for d in plan_announcement(Announced(gateway(), PORTS, addresses), OURS)] == ["Service"]


def test_a_cluster_ip_that_is_asked_for() -> None:
    (service,) = plan_announcement(Announced(gateway(), PORTS, (), "10.96.0.9"), OURS)
    assert service["spec"]["clusterIP"] == "10.96.0.9"


def test_the_longest_name_still_makes_names() -> None:
    for document in plan_announcement(Announced(gateway("g" * 253), PORTS, ("10.0.0.7",)), OURS):
        name = document["metadata"]["name"]
        assert len(name) <= (63 if document["kind"] == "Service" else 253)
        assert all(len(value) <= 63 for value in document["metadata"]["labels"].values())
