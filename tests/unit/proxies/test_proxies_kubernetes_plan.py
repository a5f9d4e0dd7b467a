"""The plan of a Gateway's objects, from its parameters to patches and addresses."""

import base64
from typing import Any

import msgspec
import pytest

from propylon import api
from propylon.proxies.kubernetes import (
    GatewayParameters,
    Installation,
    ParametersSpec,
    Wanted,
    merge_parameters,
    observe,
    parameter_errors,
    plan_documents,
)
from propylon.proxies.kubernetes.bootstrap import ControlPlane
from propylon.proxies.kubernetes.parameters import PARAMETERS_INFO, parse_quantity
from propylon.proxies.kubernetes.patching import merge_patch

CONTROL_PLANE = ControlPlane(
    "propylon-xds.propylon-system.svc.cluster.local", 18000, "propylon-xds.propylon-system.svc"
)
OURS = "propylon.dev/gateway-controller"
Document = dict[str, Any]


def gateway(name: str = "web", **spec: Any) -> api.Gateway:
    document = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop", "uid": "u-1", "labels": {"not": "copied"}},
        "spec": {"gatewayClassName": "propylon", "listeners": [{"name": "h", "port": 80, "protocol": "HTTP"}], **spec},
    }
    found: api.Gateway = api.decode(document)
    return found


def parameters(**spec: Any) -> ParametersSpec:
    found: GatewayParameters = api.decode_as(PARAMETERS_INFO, {"metadata": {"name": "p"}, "spec": spec})
    return found.spec


def plan(
    of: api.Gateway,
    spec: ParametersSpec | None = None,
    ports: tuple[tuple[int, str], ...] = ((80, "TCP"),),
    **more: Any,
) -> dict[str, Document]:
    installation = Installation(control_plane=CONTROL_PLANE, controller_name=more.pop("controller_name", OURS))
    wanted = Wanted(
        gateway=of, ports=ports, parameters=spec or ParametersSpec(), credentials=(("f.json", "{}"),), token="token"
    )
    documents = plan_documents(wanted, installation)
    assert len({d["kind"] for d in documents}) == len(documents)
    return {document["kind"]: document for document in documents}


def bootstrap(deployment: Document) -> Document:
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    found: Document = msgspec.json.decode(arguments[arguments.index("--config-yaml") + 1])
    return found


def test_a_plain_gateway() -> None:
    made = plan(gateway())
    assert set(made) == {"ServiceAccount", "Secret", "Deployment", "Service", "PodDisruptionBudget"}
    for kind, document in made.items():
        metadata = document["metadata"]
        assert metadata["name"] == ("web-propylon-xds" if kind == "Secret" else "web-propylon")
        assert metadata["namespace"] == "shop"
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": "web",
                "uid": "u-1",
                "controller": True,
            }
        ]
        assert metadata["labels"] == {
            "gateway.networking.k8s.io/gateway-name": "web",
            "gateway.networking.k8s.io/gateway-class-name": "propylon",
            "app.kubernetes.io/managed-by": "propylon",
            "propylon.dev/controller-name": "propylon.dev_gateway-controller",
        }
        assert "annotations" not in metadata
    assert made["Deployment"]["spec"]["replicas"] == 1
    assert base64.b64decode(made["Secret"]["data"]["f.json"]) == b"{}"


def test_selectors_lead_to_the_pods() -> None:
    made = plan(gateway("w" * 253))
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        made["Deployment"]["spec"]["selector"]["matchLabels"],
        made["Service"]["spec"]["selector"],
        made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert all(len(value) <= 63 for value in selector.values())


def test_infrastructure_goes_onto_everything_but_never_before_our_own_labels() -> None:
    labels = {"team": "shop", "gateway.networking.k8s.io/gateway-name": "another"}
    made = plan(gateway(infrastructure={"labels": labels, "annotations": {"note": "x"}}))
    for document in (*made.values(), made["Deployment"]["spec"]["template"]):
        assert document["metadata"]["labels"]["team"] == "shop"
        assert document["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "web"
        assert document["metadata"]["annotations"] == {"note": "x"}


def test_ports_of_the_service_are_those_of_the_listeners_and_so_are_those_of_the_pods() -> None:
    ports = ((53, "UDP"), (80, "TCP"), (53, "TCP"))
    assert plan(gateway(), ports=ports)["Service"]["spec"]["ports"] == [
        {"name": "port-53-udp", "port": 53, "targetPort": 53, "protocol": "UDP"},
        {"name": "port-80", "port": 80, "targetPort": 80, "protocol": "TCP"},
        {"name": "port-53", "port": 53, "targetPort": 53, "protocol": "TCP"},
    ]


def test_a_further_port_does_not_replace_the_pods() -> None:
    one, two = plan(gateway()), plan(gateway(), ports=((80, "TCP"), (443, "TCP")))
    assert one["Deployment"] == two["Deployment"]
    assert one["Service"] != two["Service"]


def test_probes_give_way_to_a_listener_on_their_port() -> None:
    pod = plan(gateway(), ports=((19001, "TCP"),))["Deployment"]
    container = pod["spec"]["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 19002}
    listener = bootstrap(pod)["static_resources"]["listeners"][0]
    assert listener["address"]["socket_address"]["port_value"] == 19002


def test_the_pod_may_nothing_that_it_does_not_need() -> None:
    pod = plan(gateway())["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    container = pod["containers"][0]["securityContext"]
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["readOnlyRootFilesystem"] is True


def test_a_pod_that_ends_is_told_to_drain_in_time() -> None:
    deployment = plan(gateway(), parameters(drainSeconds=20))["Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["httpGet"]
    assert hook["path"] == "/drain/token"
    assert hook["port"] == pod["containers"][0]["readinessProbe"]["httpGet"]["port"]
    assert pod["terminationGracePeriodSeconds"] > 20
    assert '"/drain/token"' in pod["containers"][0]["args"][1]
    at_once = plan(gateway(), parameters(drainSeconds=0))["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert "/drain/" not in at_once["args"][1]


def test_the_proxy_knows_who_it_is_and_trusts_one_control_plane_only() -> None:
    found = bootstrap(plan(gateway())["Deployment"])
    assert found["node"]["id"] == "shop/web"
    cluster = next(c for c in found["static_resources"]["clusters"] if c["name"] == "propylon_control_plane")
    assert cluster["type"] == "STRICT_DNS"
    tls = cluster["transport_socket"]["typed_config"]
    names = tls["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert names["match_typed_subject_alt_names"][0]["matcher"]["exact"] == CONTROL_PLANE.server_name


def test_parameters() -> None:
    spec = parameters(
        replicas=3,
        image="example.com/envoy:1",
        logLevel="debug",
        drainSeconds=0,
        resources={"limits": {"cpu": "2500m", "memory": "1Gi"}},
        nodeSelector={"edge": "yes"},
        tolerations=[{"key": "edge", "operator": "Exists"}],
        priorityClassName="high",
        service={"type": "NodePort", "externalTrafficPolicy": "Local"},
    )
    assert parameter_errors(spec) == ()
    made = plan(gateway(), spec)
    deployment, service = made["Deployment"]["spec"], made["Service"]["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    assert deployment["replicas"] == 3
    assert container["image"] == "example.com/envoy:1"
    assert "lifecycle" not in container
    arguments = container["args"]
    assert arguments[arguments.index("--concurrency") + 1] == "3"
    assert arguments[arguments.index("--log-level") + 1] == "debug"
    assert pod["nodeSelector"] == {"edge": "yes"}
    assert pod["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert pod["priorityClassName"] == "high"
    assert (service["type"], service["externalTrafficPolicy"]) == ("NodePort", "Local")
    heap = bootstrap(made["Deployment"])["overload_manager"]["resource_monitors"][0]["typed_config"]
    assert heap["max_heap_size_bytes"] == int(1024**3 * 0.8)


def test_an_autoscaler_has_the_say_over_replicas() -> None:
    made = plan(gateway(), parameters(autoscaling={"minReplicas": 2, "maxReplicas": 9}))
    assert "replicas" not in made["Deployment"]["spec"]
    spec = made["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"]["name"] == made["Deployment"]["metadata"]["name"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)


def test_a_gateways_parameters_go_before_those_of_its_class() -> None:
    of_class = parameters(
        autoscaling={"maxReplicas": 5},
        logLevel="info",
        service={"type": "ClusterIP", "ipFamilyPolicy": "SingleStack"},
        patches=[{"kind": "Service", "patch": {"a": 1}}],
    )
    of_gateway = parameters(replicas=2, service={"type": "NodePort"}, patches=[{"kind": "Service", "patch": {"a": 2}}])
    merged = merge_parameters(of_class, of_gateway)
    assert merged.replicas == 2
    assert merged.autoscaling is None
    assert merged.log_level == "info"
    assert merged.service is not None
    assert (merged.service.type, merged.service.ip_family_policy) == ("NodePort", "SingleStack")
    assert [patch.patch["a"] for patch in merged.patches] == [1, 2]
    assert merge_parameters(None, of_gateway) == of_gateway
    assert merge_parameters(of_class, None) == of_class


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": -1}, "spec.replicas"),
        ({"replicas": 1, "autoscaling": {"maxReplicas": 2}}, "spec.replicas"),
        ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "spec.autoscaling"),
        ({"logLevel": "chatty"}, "spec.logLevel"),
        ({"concurrency": 0}, "spec.concurrency"),
        ({"service": {"type": "ExternalName"}}, "spec.service.type"),
        ({"patches": [{"kind": "Pod", "patch": {}}]}, "spec.patches[0].kind"),
        ({"patches": [{"kind": "Service", "patch": {"kind": "Pod"}}]}, "spec.patches[0].patch"),
        ({"resources": {"limits": {"cpu": "much"}}}, "spec.resources.limits.cpu"),
    ],
)
def test_parameters_that_cannot_be(spec: Document, field: str) -> None:
    (error,) = parameter_errors(parameters(**spec))
    assert error.startswith(f"{field}: ")


def test_patches_change_what_was_not_foreseen_and_nothing_of_what_ties_objects_together() -> None:
    patch = {
        "metadata": {
            "name": "other",
            "ownerReferences": [],
            "labels": {"app.kubernetes.io/managed-by": "x", "extra": "1"},
        },
        "spec": {
            "template": {
                "spec": {
                    "hostNetwork": True,
                    "securityContext": {"sysctls": None},
                    "containers": [{"name": "envoy", "env": [{"name": "A", "value": "1"}]}, {"name": "sidecar"}],
                }
            }
        },
    }
    plain = plan(gateway())["Deployment"]
    made = plan(gateway(), parameters(patches=[{"kind": "Deployment", "patch": patch}]))["Deployment"]
    assert made["metadata"]["name"] == "web-propylon"
    assert made["metadata"]["ownerReferences"] == plain["metadata"]["ownerReferences"]
    assert made["metadata"]["labels"] == {**plain["metadata"]["labels"], "extra": "1"}
    pod = made["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert "sysctls" not in pod["securityContext"]
    assert [container["name"] for container in pod["containers"]] == ["envoy", "sidecar"]
    assert pod["containers"][0]["args"] == plain["spec"]["template"]["spec"]["containers"][0]["args"]


def test_merging_lists() -> None:
    base = {"ports": [{"port": 53, "protocol": "UDP", "a": 1}, {"port": 53, "protocol": "TCP"}], "other": [1, 2]}
    patch = {"ports": [{"port": 53, "protocol": "TCP", "b": 2}], "other": [3]}
    assert merge_patch(base, patch) == {
        "ports": [{"port": 53, "protocol": "UDP", "a": 1}, {"port": 53, "protocol": "TCP", "b": 2}],
        "other": [3],
    }
    assert merge_patch(base, {"ports": [{"port": 53, "protocol": "UDP", "$patch": "delete"}]})["ports"] == [
        {"port": 53, "protocol": "TCP"}
    ]
    assert merge_patch(base, {"ports": [{"$patch": "replace"}, {"port": 1}]})["ports"] == [{"port": 1}]
    assert base["ports"] == [{"port": 53, "protocol": "UDP", "a": 1}, {"port": 53, "protocol": "TCP"}]


def test_quantities() -> None:
    texts = ("250m", "2", "1Gi", "1.5k", "1e3", 2)
    assert [parse_quantity(text) for text in texts] == [0.25, 2, 1024**3, 1500, 1000, 2]
    assert parse_quantity("1 Gi") is None


def test_requested_addresses_are_asked_for_in_every_known_way() -> None:
    service = plan(gateway(addresses=[{"value": "192.0.2.1"}, {"value": "2001:db8::1"}]))["Service"]
    assert service["spec"]["loadBalancerIP"] == "192.0.2.1"
    assert service["metadata"]["annotations"] == {
        "lbipam.cilium.io/ips": "192.0.2.1,2001:db8::1",
        "metallb.io/loadBalancerIPs": "192.0.2.1,2001:db8::1",
    }


def test_ciliums_users_find_the_service_where_it_always_was() -> None:
    service = plan(gateway(), controller_name="io.cilium/gateway-controller")["Service"]
    assert service["metadata"]["name"] == "cilium-gateway-web"
    assert service["metadata"]["labels"]["io.cilium.gateway/owning-gateway"] == "web"


# --- addresses --------------------------------------------------------------------------------------------------------


def service(kind: str = "LoadBalancer", status: Document | None = None, **spec: Any) -> api.Service:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web-propylon", "namespace": "shop"},
        "spec": {"type": kind, "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], **spec},
        "status": status or {},
    }
    found: api.Service = api.decode(document)
    return found


def node(*addresses: tuple[str, str]) -> api.Node:
    listed = [{"type": kind, "address": address} for kind, address in addresses]
    found: api.Node = api.decode(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"addresses": listed}}
    )
    return found


def ingress(*entries: Document, **more: Any) -> Document:
    return {"loadBalancer": {"ingress": list(entries)}, **more}


def test_addresses_of_a_load_balancer() -> None:
    found = observe(gateway(), service(status=ingress({"ip": "192.0.2.9"}, {"hostname": "lb.example.com"})), ())
    assert [(a.type, a.value) for a in found.addresses] == [("IPAddress", "192.0.2.9"), ("Hostname", "lb.example.com")]
    assert found.bind == ("0.0.0.0",)
    assert found.reason == ""


def test_addresses_without_a_proxy_behind_them() -> None:
    found = observe(gateway(), service(status=ingress({"ip": "192.0.2.9"})), (), ready=False)
    assert ([a.value for a in found.addresses], found.bind, found.reason) == (["192.0.2.9"], ("0.0.0.0",), "Pending")


def test_without_a_service_nothing_is_bound() -> None:
    assert observe(gateway(), None, ()).bind == ()
    assert observe(gateway(), None, ()).reason == "AddressNotAssigned"


def test_a_load_balancer_that_says_why_it_gives_nothing_is_heard() -> None:
    condition = {
        "type": "cilium.io/IPAMRequestSatisfied",
        "status": "False",
        "reason": "out_of_ips",
        "message": "none",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    found = observe(gateway(), service(status=ingress(conditions=[condition])), ())
    assert (found.addresses, found.reason) == ((), "AddressNotAssigned")
    assert found.message.endswith(": none")


def test_an_address_that_was_asked_for_and_not_given_is_not_usable() -> None:
    asked = gateway(addresses=[{"value": "192.0.2.1"}])
    assert observe(asked, service(status=ingress({"ip": "192.0.2.7"})), ()).reason == "AddressNotUsable"
    assert observe(asked, service(status=ingress({"ip": "192.0.2.1"})), ()).reason == ""
    spelled = gateway(addresses=[{"value": "2001:DB8:0::1"}])
    assert observe(spelled, service(status=ingress({"ip": "2001:db8::1"})), ()).reason == ""


def test_other_types_of_service() -> None:
    found = observe(gateway(), service("ClusterIP", ipFamilies=["IPv6", "IPv4"]), ())
    assert ([a.value for a in found.addresses], found.bind) == (["10.96.0.5"], ("::", "0.0.0.0"))
    nodes = (
        node(("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2"), ("Hostname", "n")),
        node(("InternalIP", "10.0.0.1")),
    )
    found = observe(gateway(), service("NodePort"), nodes)
    assert [a.value for a in found.addresses] == ["10.0.0.1", "192.0.2.2"]
    many = observe(gateway(), service("NodePort"), [node(("InternalIP", f"10.0.0.{n}")) for n in range(30)])
    assert len(many.addresses) == 16
