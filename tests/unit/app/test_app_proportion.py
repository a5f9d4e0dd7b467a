"""Work is proportional to what changed: counts per change, alike at 100, 1,000 and 10,000 routes. No clock is asked."""

import gc
from collections import Counter

import msgspec
import pytest

from propylon import api
from propylon.app.controller import Controller
from propylon.envoy import EnvoySettings, route_configuration, scope, translation, virtual_host
from propylon.graph import GatewayAddresses, Settings

SIZES = (100, 1000, 10_000)
GROUP = "gateway.networking.k8s.io/v1"


def stored(api_version, kind, name, version, spec=None, namespace="shop", **more):
    metadata = {"name": name, "generation": version, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {}), **more}


def service(number):
    return stored("v1", "Service", f"s{number}", 1, {"ports": [{"name": "http", "port": 80}]})


def endpoint_slice(number, address, version=1):
    document = stored(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"s{number}",
        version,
        addressType="IPv4",
        ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
        endpoints=[{"addresses": [address]}],
    )
    document["metadata"]["labels"] = {"kubernetes.io/service-name": f"s{number}"}
    return document


def route(number, path="/first", version=1):
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{"name": f"s{number}", "port": 80}],
    }
    spec = {"parentRefs": [{"name": "gw"}], "hostnames": [f"h{number}.test"], "rules": [rule]}
    return stored(GROUP, "HTTPRoute", f"r{number}", version, spec)


class Counted:
    """A controller with N routes, each with a hostname, a Service and an endpoint of its own, and its counters."""

    def __init__(self, size):
        self.size = size
        self.scoped = size >= EnvoySettings().scopes_from
        self.routes = "ScopedRouteConfiguration" if self.scoped else "RouteConfiguration"
        self.controller = Controller(Settings(), EnvoySettings())
        listener = {"name": "http", "protocol": "HTTP", "port": 80}
        self.set(
            stored(GROUP, "GatewayClass", "c", 1, {"controllerName": "example.com/c"}, namespace=""),
            stored("v1", "Namespace", "shop", 1, namespace=""),
            stored(GROUP, "Gateway", "gw", 1, {"gatewayClassName": "c", "listeners": [listener]}),
        )
        for number in range(size):
            self.set(service(number), endpoint_slice(number, "10.0.0.1"), route(number))
        address = api.GatewayStatusAddress("127.0.0.1", type="IPAddress")
        self.controller.sources.addresses.set(api.ObjectKey("shop", "gw"), GatewayAddresses((address,), ("127.0.0.1",)))
        self._commit = self.controller.engine.commit
        self.controller.engine.commit = self._counting_commit
        self.first = self.controller.commit()

    def _counting_commit(self):
        self.commit = self._commit()
        return self.commit

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
    gc.disable()  # as `propylon up` does while it makes its first world
    try:
        return Counted(request.param)
    finally:
        gc.enable()


@pytest.fixture
def serialized(monkeypatch):
    """Counts bytes that were serialized, by module."""
    counts = Counter()
    for module in (translation, virtual_host, route_configuration, scope):

        def counting(message, name=module.__name__, original=module.serialize):
            body = original(message)
            counts[name.rpartition(".")[2]] += len(body)
            return body

        monkeypatch.setattr(module, "serialize", counting)
    return counts


def kinds_of(outcome):
    return Counter(type_url.rpartition(".")[2] for part in outcome.resources.values() for type_url, _ in part)


def pushed(outcome):
    """Bytes that go to a proxy."""
    return sum(len(body or b"") for part in outcome.resources.values() for body in part.values())


def test_the_world_is_there(counted):
    assert kinds_of(counted.first) == {
        "Cluster": counted.size,
        "ClusterLoadAssignment": counted.size,
        "Listener": 1,
        **(
            {"ScopedRouteConfiguration": counted.size + 1, "TypedExtensionConfig": 1}
            if counted.scoped
            else {"RouteConfiguration": 1}
        ),
    }
    assert not counted.first.failures


def test_an_endpoint_change_touches_its_endpoints_and_nothing_else(counted, serialized):
    outcome = counted.change(endpoint_slice(7, "10.0.0.2", 2))
    assert kinds_of(outcome) == {"ClusterLoadAssignment": 1}
    assert not outcome.statuses
    assert counted.commit.total_recomputed <= 3, counted.commit.recomputed
    assert sum(serialized.values()) < 200


def test_a_route_change_touches_its_rules_its_virtual_host_and_its_status(counted, serialized):
    outcome = counted.change(route(7, "/changed", 2))
    assert kinds_of(outcome) == {counted.routes: 1}
    assert pushed(outcome) < 1000 or not counted.scoped
    assert list(outcome.statuses) == [api.ObjectRef("gateway.networking.k8s.io", "HTTPRoute", "shop", "r7")]
    assert counted.commit.total_recomputed <= 8, counted.commit.recomputed
    assert all(count <= 2 for count in counted.commit.indexed.values()), counted.commit.indexed
    assert sum(serialized.values()) < 800, "a hostname that did not change was serialized again"


def test_a_new_route_and_its_service_touch_what_is_new(counted, serialized):
    number = counted.size
    outcome = counted.change(service(number), endpoint_slice(number, "10.0.0.1"), route(number))
    assert kinds_of(outcome) == {"Cluster": 1, "ClusterLoadAssignment": 1, counted.routes: 1}
    assert {ref.name for ref in outcome.statuses} == {f"r{number}", "gw"}
    assert counted.commit.total_recomputed <= 17, counted.commit.recomputed
    assert sum(serialized.values()) < 2500
    assert not outcome.failures


def test_what_is_equal_touches_nothing(counted, serialized):
    outcome = counted.change(route(3), service(3), endpoint_slice(3, "10.0.0.1"))
    assert counted.commit.total_recomputed == 0
    assert not outcome.resources
    assert not outcome.statuses
    assert not serialized


def test_what_is_asked_again_costs_nothing(counted):
    """A commit without news visits no collection, and computes nothing, however large the world is."""
    counted.controller.commit()
    assert not counted.commit.changed
    assert not counted.commit.indexed
    assert counted.commit.total_recomputed == 0


def test_our_own_status_is_no_news(counted):
    """A status that was written comes back as a changed object; what is derived from it stays as it is."""
    document = route(5)
    document["metadata"]["resourceVersion"] = "12345"
    document["status"] = {"parents": [{"controllerName": "example.com/c", "conditions": [{"type": "Accepted"}]}]}
    ref = api.ObjectRef("gateway.networking.k8s.io", "HTTPRoute", "shop", "r5")
    counted.controller.set_document(ref, msgspec.json.encode(document))
    outcome = counted.controller.commit()
    assert not counted.commit.changed
    assert not outcome.statuses
