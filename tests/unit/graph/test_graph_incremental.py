"""Whatever happens in whatever order, the Graph is what a computation from scratch gives; and it costs what changed."""

import random
from typing import Any

import pytest
import yaml
from graph_world import World

HTTP = "http"


def gateway(rnd: random.Random, name: str) -> dict[str, Any]:
    listeners = []
    for section in rnd.sample(["a", "b", "c", "d"], rnd.randint(1, 3)):
        protocol = rnd.choice(["HTTP", "HTTP", "HTTPS", "TLS", "TCP", "UDP"])
        listener: dict[str, Any] = {"name": section, "port": rnd.choice([80, 443]), "protocol": protocol}
        if protocol in {"HTTPS", "TLS"}:
            listener["tls"] = {"mode": "Terminate", "certificateRefs": [{"name": rnd.choice(["cert", "none"])}]}
        if protocol not in {"TCP", "UDP"} and rnd.random() < 0.7:
            listener["hostname"] = rnd.choice(["*.example.com", "a.example.com", "*.a.example.com"])
        listener["allowedRoutes"] = {"namespaces": {"from": rnd.choice(["Same", "All"])}}
        listeners.append(listener)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "n", "generation": 1},
        "spec": {
            "gatewayClassName": rnd.choice(["edge", "edge", "other"]),
            "allowedListeners": {"namespaces": {"from": rnd.choice(["All", "Same"])}},
            "listeners": listeners,
        },
    }


def listener_set(rnd: random.Random, name: str) -> dict[str, Any]:
    found = gateway(rnd, name)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ListenerSet",
        "metadata": {
            "name": name,
            "namespace": rnd.choice(["n", "m"]),
            "creationTimestamp": f"2026-01-0{rnd.randint(1, 3)}T00:00:00Z",
        },
        "spec": {
            "parentRef": {"name": rnd.choice(["g0", "g1"]), "namespace": "n"},
            "listeners": found["spec"]["listeners"],
        },
    }


def route(rnd: random.Random, name: str) -> dict[str, Any]:
    kind = rnd.choice(["HTTPRoute", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"])
    parents: list[dict[str, Any]] = [{"name": rnd.choice(["g0", "g1"]), "namespace": "n"}]
    if rnd.random() < 0.4:
        parents.append({"kind": "ListenerSet", "name": "s0", "namespace": "n"})
    rule: dict[str, Any] = {
        "backendRefs": [
            {"name": rnd.choice(["a", "b"]), "namespace": rnd.choice(["n", "m"]), "port": rnd.choice([80, 81])}
        ]
    }
    if kind == "HTTPRoute":
        rule["matches"] = [{"path": {"value": rnd.choice(["/", "/a", "/b"])}}]
    spec: dict[str, Any] = {"parentRefs": parents, "rules": [rule]}
    if kind in {"HTTPRoute", "GRPCRoute", "TLSRoute"}:
        spec["hostnames"] = rnd.sample(["a.example.com", "*.example.com", "b.a.example.com"], rnd.randint(1, 2))
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": f"2026-01-0{rnd.randint(1, 3)}T00:00:00Z"},
        "spec": spec,
    }


def other(rnd: random.Random) -> dict[str, Any]:
    namespace = rnd.choice(["n", "m"])
    group = "gateway.networking.k8s.io"
    return rnd.choice(
        [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": rnd.choice(["a", "b"]), "namespace": namespace},
                "spec": {"ports": [{"name": "x", "port": rnd.choice([80, 81])}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": {
                    "name": rnd.choice(["e", "f"]),
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": rnd.choice(["a", "b"])},
                },
                "ports": [{"name": "x", "port": 8080}],
                "endpoints": [{"addresses": [f"10.0.0.{rnd.randint(1, 3)}"]}],
            },
            {
                "apiVersion": f"{group}/v1",
                "kind": "GatewayClass",
                "metadata": {"name": "edge"},
                "spec": {"controllerName": rnd.choice(["example.com/a", "example.com/b"])},
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"name": "cert", "namespace": namespace},
                "stringData": {"tls.crt": "@cert one", "tls.key": f"@key {rnd.choice(['one', 'two'])}"},
            },
            {
                "apiVersion": f"{group}/v1beta1",
                "kind": "ReferenceGrant",
                "metadata": {"name": "g", "namespace": namespace},
                "spec": {
                    "from": [{"group": group, "kind": "HTTPRoute", "namespace": "n"}],
                    "to": [{"group": "", "kind": "Service"}],
                },
            },
            {
                "apiVersion": f"{group}/v1",
                "kind": "BackendTLSPolicy",
                "metadata": {"name": rnd.choice(["p", "q"]), "namespace": "n"},
                "spec": {
                    "targetRefs": [{"group": "", "kind": "Service", "name": rnd.choice(["a", "b"])}],
                    "validation": {"hostname": "x.example.com", "wellKnownCACertificates": "System"},
                },
            },
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_incremental_equals_from_scratch(seed: int) -> None:
    rnd = random.Random(seed)
    world = World()
    present: dict[Any, dict[str, Any]] = {}
    for step in range(60):
        if present and rnd.random() < 0.2:
            ref = rnd.choice(sorted(present))
            world.remove(ref)
            del present[ref]
        else:
            choice = rnd.random()
            if choice < 0.2:
                document = gateway(rnd, rnd.choice(["g0", "g1"]))
            elif choice < 0.35:
                document = listener_set(rnd, rnd.choice(["s0", "s1"]))
            elif choice < 0.65:
                document = route(rnd, rnd.choice(["r0", "r1", "r2", "r3"]))
            else:
                document = other(rnd)
            present[world.set(document)] = document
        if rnd.random() < 0.5 or step == 59:
            world.commit()
            fresh = World()
            fresh.sources.addresses.replace(dict(world.sources.addresses.items()))
            for document in present.values():
                fresh.set(document)
            fresh.commit()
            assert world.state() == fresh.state()
    assert present


def manifests(routes: int) -> str:
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "edge"},
            "spec": {"controllerName": "example.com/a"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "g", "namespace": "n"},
            "spec": {"gatewayClassName": "edge", "listeners": [{"name": HTTP, "port": 80, "protocol": "HTTP"}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"ports": [{"port": 80}]},
        },
    ]
    documents += [numbered_route(i) for i in range(routes)]
    return yaml.safe_dump_all(documents)


def numbered_route(number: int, path: str = "/") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"r{number}", "namespace": "n"},
        "spec": {
            "parentRefs": [{"name": "g"}],
            "hostnames": [f"h{number}.example.com"],
            "rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "a", "port": 80}]}],
        },
    }


def test_the_work_is_proportional_to_the_change() -> None:
    world = World().load(manifests(300))
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "a-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.9"]}],
    }
    world.set(slice_)
    world.commit()
    world.set({**slice_, "endpoints": [{"addresses": ["10.0.0.8"]}]})
    commit = world.commit()
    assert commit.changes(world.graph.endpoints)
    assert commit.total_recomputed <= 2, commit.recomputed
    changed = {c.name for c in commit.collections} - {"endpoint slices (source)"}
    assert changed == {"endpoints"}

    world.set(numbered_route(7, "/other"))
    commit = world.commit()
    assert set(commit.changes(world.graph.virtual_hosts))
    assert commit.total_recomputed <= 5, commit.recomputed

    world.set(numbered_route(1000))
    commit = world.commit()
    # The Gateway's status counts it; nothing else but the route's own nodes.
    assert commit.total_recomputed <= 10, commit.recomputed


def set_of(number: int, hostname: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ListenerSet",
        "metadata": {"name": f"s{number}", "namespace": "n"},
        "spec": {
            "parentRef": {"name": "g"},
            "listeners": [{"name": "x", "port": 80, "protocol": "HTTP", "hostname": hostname}],
        },
    }


def test_a_listener_set_concerns_its_own_routes_only() -> None:
    world = World().load(manifests(0))
    gateway_ = yaml.safe_load(manifests(0).split("---")[1])
    gateway_["spec"]["allowedListeners"] = {"namespaces": {"from": "All"}}
    world.set(gateway_)
    for number in range(40):
        world.set(set_of(number, f"s{number}.example.com"))
        for path in ("/a", "/b"):
            document = numbered_route(number, path)
            document["metadata"]["name"] += path[1:]
            document["spec"] |= {"hostnames": [], "parentRefs": [{"kind": "ListenerSet", "name": f"s{number}"}]}
            world.set(document)
    world.commit()
    assert len(world.graph.virtual_hosts) == 40
    world.set(set_of(7, "moved.example.com"))
    commit = world.commit()
    assert commit.recomputed["routes of kind HTTPRoute"] == 2
    assert commit.recomputed["virtual hosts"] == 1
    assert commit.recomputed["listener sets"] == 1
    assert commit.total_recomputed <= 15, commit.recomputed
