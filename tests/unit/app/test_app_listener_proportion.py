"""One listener of many changes: counts that are alike whatever their number. No clock is asked."""

import base64
from collections import Counter

import pytest

from propylon import api
from propylon.app.controller import Controller
from propylon.envoy import EnvoySettings
from propylon.graph import GatewayAddresses, Settings
from support.envoy_certificates import Authority

SIZES = (200, 1000, 3000)
GROUP = "gateway.networking.k8s.io/v1"
PAIR = Authority().issue("*.test")


def stored(api_version, kind, name, version, spec=None, namespace="shop", **more):
    metadata = {"name": name, "generation": version, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {}), **more}


def https(name, hostname, secret):
    certificates = {"certificateRefs": [{"name": secret}]}
    return {"name": name, "port": 443, "protocol": "HTTPS", "hostname": hostname, "tls": certificates}


def secret(name):
    data = {"tls.crt": base64.b64encode(PAIR.chain).decode(), "tls.key": base64.b64encode(PAIR.private_key).decode()}
    return stored("v1", "Secret", name, 1, type="kubernetes.io/tls", data=data)


def listener_set(number, pair, version=1):
    spec = {"parentRef": {"name": "gw"}, "listeners": [https("https", f"h{number}.test", f"s{pair}")]}
    return stored(GROUP, "ListenerSet", f"ls{number}", version, spec)


class Counted:
    """A controller with N ListenerSets of one HTTPS listener each, which share two Secrets."""

    def __init__(self, size):
        self.size = size
        self.controller = Controller(Settings(), EnvoySettings())
        gateway = {
            "gatewayClassName": "c",
            "allowedListeners": {"namespaces": {"from": "Same"}},
            "listeners": [https("own", "own.test", "s0")],
        }
        self.set(
            stored(GROUP, "GatewayClass", "c", 1, {"controllerName": "example.com/c"}, namespace=""),
            stored("v1", "Namespace", "shop", 1, namespace=""),
            stored(GROUP, "Gateway", "gw", 1, gateway),
            *(secret(f"s{pair}") for pair in (0, 1, 2)),
            *(listener_set(number, number % 2) for number in range(size)),
        )
        address = api.GatewayStatusAddress("127.0.0.1", type="IPAddress")
        self.controller.sources.addresses.set(api.ObjectKey("shop", "gw"), GatewayAddresses((address,), ("127.0.0.1",)))
        self.recomputed = 0
        commit = self.controller.engine.commit

        def counting():
            done = commit()
            self.recomputed = done.total_recomputed
            return done

        self.controller.engine.commit = counting
        self.first = self.controller.commit()

    def set(self, *documents):
        for document in documents:
            group, _, _ = document["apiVersion"].rpartition("/")
            metadata = document["metadata"]
            ref = api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])
            self.controller.set_document(ref, document)

    def change(self, *documents):
        self.set(*documents)
        return self.controller.commit()


@pytest.fixture(scope="module", params=SIZES)
def counted(request):
    return Counted(request.param)


def kinds_of(outcome):
    return Counter(type_url.rpartition(".")[2] for part in outcome.resources.values() for type_url, _ in part)


def sizes_of(outcome):
    return {
        type_url.rpartition(".")[2]: len(body or b"")
        for part in outcome.resources.values()
        for (type_url, _), body in part.items()
    }


def test_the_world_is_there(counted):
    kinds = kinds_of(counted.first)
    assert kinds["FilterChain"] == counted.size
    assert kinds["Listener"] == 1
    assert kinds["Secret"] == kinds["Cluster"] == 2, "a keeper for each Secret"
    assert not counted.first.failures


def test_a_changed_listener_is_one_filter_chain(counted):
    outcome = counted.change(listener_set(8, 1, 2))
    assert kinds_of(outcome) == {"FilterChain": 1}
    assert sum(sizes_of(outcome).values()) < 3000
    assert list(outcome.statuses) == [api.ObjectRef("gateway.networking.k8s.io", "ListenerSet", "shop", "ls8")]
    assert counted.recomputed <= 25


def test_a_changed_secret_is_one_secret_more_and_its_keeper(counted):
    outcome = counted.change(listener_set(9, 2, 2))
    assert kinds_of(outcome) == {"FilterChain": 1, "Secret": 1, "Cluster": 1}
    assert sum(sizes_of(outcome).values()) < 6000
    counted.change(listener_set(9, 1, 3))


def test_an_added_listener_grows_the_matcher_by_one_part(counted):
    before = counted.first.resources
    (listener,) = (body for part in before.values() for (kind, _), body in part.items() if kind.endswith(".Listener"))
    outcome = counted.change(listener_set(counted.size, 0))
    assert kinds_of(outcome) == {"FilterChain": 1, "Listener": 1, "RouteConfiguration": 1}
    assert sizes_of(outcome)["Listener"] - len(listener) < 200
    assert counted.recomputed <= 40
    group = "gateway.networking.k8s.io"
    counted.controller.set_document(api.ObjectRef(group, "ListenerSet", "shop", f"ls{counted.size}"), None)
    outcome = counted.controller.commit()
    assert kinds_of(outcome) == {"FilterChain": 1, "Listener": 1, "RouteConfiguration": 1}
    assert sizes_of(outcome)["Listener"] == len(listener)
