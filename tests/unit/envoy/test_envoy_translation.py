"""The collections: what is made of what, and that changes touch nothing else."""

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb

from propylon import api
from propylon.envoy import EnvoySettings
from propylon.envoy.endpoint import by_priority
from propylon.envoy.names import awaited_endpoints
from propylon.envoy.resource import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, SECRET
from propylon.envoy.route_configuration import claims_of, route_tables
from propylon.graph.model import (
    Backend,
    BackendRef,
    BackendTls,
    Cluster,
    Endpoint,
    ExternalAuth,
    ListenerTls,
    Match,
    Port,
    PortKey,
)
from propylon.xds.endpoints import endpoints_of
from support.envoy_world import GATEWAY, GROUP, World, entry, listener, ref

MESSAGES = {
    LISTENER: listener_pb2.Listener,
    ROUTE_CONFIGURATION: route_pb2.RouteConfiguration,
    CLUSTER: cluster_pb2.Cluster,
    CLUSTER_LOAD_ASSIGNMENT: endpoint_pb2.ClusterLoadAssignment,
}


def message(world, type_url, name):
    return MESSAGES[type_url].FromString(world.resources()[type_url, name].body)


def world_of(hosts):
    """An HTTP port with so many hostnames, each with a backend of its own."""
    world = World()
    at = listener("http", "HTTP", 80)
    world.port(at)
    for i in range(hosts):
        world.backend(f"s{i}", 1000 + i)
        world.host(at, f"h{i}.test", entry(route=f"r{i}", backends=(ref(f"s{i}"),)))
    world.engine.commit()
    return world, at


def test_names_of_all_resources():
    world, _ = world_of(1)
    world.secret("certificate", "cert", b"chain", b"key")
    assert set(world.resources()) == {
        (LISTENER, "tcp/80"),
        (ROUTE_CONFIGURATION, "http/80"),
        (CLUSTER, "Service/default/s0/80/HTTP"),
        (CLUSTER_LOAD_ASSIGNMENT, "Service/default/s0/80"),
        (SECRET, "certificate/default/cert"),
    }


def test_equal_worlds_give_equal_bytes():
    first, second = world_of(5)[0].resources(), world_of(5)[0].resources()
    assert first == second


def changed(commit, world):
    """How many resources changed, by collection."""
    counts = {name: len(commit.changes(part)) for name, part in world.translation._asdict().items()}
    return {name: count for name, count in counts.items() if count}


def test_a_change_of_endpoints_touches_one_assignment():
    world, _ = world_of(50)
    world.backend("s7", 9999)
    commit = world.engine.commit()
    assert not commit.failures
    assert changed(commit, world) == {"endpoints": 1}
    assert commit.total_recomputed <= 4


@pytest.mark.parametrize(("hosts", "kind"), [(50, "route_configurations"), (500, "scopes")])
def test_a_change_of_one_host_recomputes_few_nodes(hosts, kind):
    world, at = world_of(hosts)
    world.host(at, "h7.test", entry(Match("/x"), route="r7", backends=(ref("s7"),)))
    commit = world.engine.commit()
    assert changed(commit, world) == {kind: 1}
    assert commit.total_recomputed <= 4


def test_a_new_hostname_leaves_the_listener_alone():
    world, at = world_of(1)
    world.host(at, "new.test", entry(backends=(ref("s0"),)))
    world.port(at, listener("another", "HTTP", 80, "new.test"))
    before = world.resources()[LISTENER, "tcp/80"]
    world.port(at, listener("another", "HTTP", 80, "other.test"))
    assert world.resources()[LISTENER, "tcp/80"].body == before.body


def test_fragments_add_up_to_a_route_configuration():
    world, _ = world_of(3)
    out = message(world, ROUTE_CONFIGURATION, "http/80")
    assert (out.name, out.ignore_port_in_host_matching.real) == ("http/80", True)
    assert [h.name for h in out.virtual_hosts] == ["h0.test", "h1.test", "h2.test", "*"]
    assert [len(h.routes) for h in out.virtual_hosts] == [2, 2, 2, 0], "each has one for gRPC calls"


def test_origins():
    world, _ = world_of(2)
    policy = api.ObjectRef(GROUP, "BackendTLSPolicy", "default", "p")
    world.backend("tls", 1, tls=BackendTls("x", None, origin=policy))
    resources = world.resources()
    gateway = api.ObjectRef(GROUP, "Gateway", GATEWAY.namespace, GATEWAY.name)
    routes = tuple(api.ObjectRef(GROUP, "HTTPRoute", "default", f"r{i}") for i in range(2))
    assert resources[ROUTE_CONFIGURATION, "http/80"].origins == (gateway, *routes)
    assert resources[LISTENER, "tcp/80"].origins == (gateway,)
    service = api.ObjectRef("", "Service", "default", "tls")
    assert resources[CLUSTER, "Service/default/tls/80/HTTP"].origins == (policy, service)


def test_authorization_reaches_the_listener_of_its_table_only():
    auth = api.HTTPExternalAuthFilter("HTTP", api.BackendObjectReference(name="auth"), http=api.HTTPAuthConfig())
    world, at = world_of(1)
    other = listener("other", "HTTP", 81)
    world.port(other)
    world.backend("auth", 1)
    before = world.resources()
    world.host(at, "h0.test", entry(filters=(ExternalAuth(auth, ref("auth")),), backends=(ref("s0"),)))
    after = world.resources()
    assert before[LISTENER, "tcp/81"] == after[LISTENER, "tcp/81"]
    chain = message(world, LISTENER, "tcp/80").filter_chains[0]
    manager = hcm_pb.HttpConnectionManager.FromString(chain.filters[0].typed_config.value)
    disabled = [f.name for f in manager.http_filters if f.disabled]
    assert len(disabled) == 1
    assert disabled[0].startswith("envoy.filters.http.ext_authz/route/")


def test_no_address_no_listener():
    world, at = world_of(1)
    world.port(at, addresses=())
    assert (LISTENER, "tcp/80") not in world.resources()
    world.port(at, addresses=("10.0.0.1", "fd00::1"))
    out = message(world, LISTENER, "tcp/80")
    assert out.address.socket_address.address == "10.0.0.1"
    assert [a.address.socket_address.address for a in out.additional_addresses] == ["fd00::1"]


def test_endpoints_are_shared_by_the_clusters_of_a_backend():
    world = World()
    world.backend("s", 1, protocol="HTTP")
    world.backend("s", 1, protocol="HTTP2")
    assert sorted(world.resources()) == [
        (CLUSTER, "Service/default/s/80/HTTP"),
        (CLUSTER, "Service/default/s/80/HTTP2"),
        (CLUSTER_LOAD_ASSIGNMENT, "Service/default/s/80"),
    ]


def test_whose_endpoints_a_cluster_waits_for_is_in_its_name():
    world = World()
    for protocol in ("HTTP", "HTTP2", "GRPC", "PASSTHROUGH"):
        world.backend("s", 1, protocol=protocol)
    passed = world.backend("t", 1, protocol="TCP")
    world.backend("u", 1, protocol="UDP"), world.backend("v", 2, protocol="UDP")
    world.l4(listener("tls", "TLS", 443), BackendRef(1, passed), mode="Passthrough", kind="TLSRoute")
    weighted = (ref("u", 1, protocol="UDP"), ref("v", 2, protocol="UDP"))
    world.l4(listener("udp", "UDP", 53), *weighted, kind="UDPRoute", transport="UDP")
    found = {name: resource.body for (kind, name), resource in world.resources().items() if kind == CLUSTER}
    assert {"weighted/udp/53", "Service/default/t/80/TCP/passthrough"} < set(found)
    assert len(found) == 9
    for name, body in found.items():
        assert awaited_endpoints(name) == endpoints_of(name, body)
        assert (CLUSTER_LOAD_ASSIGNMENT, awaited_endpoints(name)) in world.resources()


def test_many_endpoints_are_the_same_bytes_for_every_gateway():
    world = World()
    cluster = world.backend("s", *range(1, 100))
    other = Cluster(cluster, Backend(cluster.backend, "HTTP", "EDS"))
    world.graph.clusters.set((api.ObjectKey("other", "gw"), cluster), other)
    world.engine.commit()
    bodies = [each.body for _, each in world.translation.endpoints.items()]
    assert len(bodies) == 2
    assert bodies[0] is bodies[1]


def test_a_backend_whose_endpoints_are_unknown_has_an_empty_assignment():
    world = World()
    key = world.backend("s", 1).backend
    world.graph.endpoints.remove(key)
    assert not message(world, CLUSTER_LOAD_ASSIGNMENT, "Service/default/s/80").endpoints


def test_a_dns_backend_has_no_assignment():
    world = World()
    world.backend("s", discovery="DNS", dns_name="outside.test", port=443)
    assert set(world.resources()) == {(CLUSTER, "Service/default/s/443/HTTP")}
    out = message(world, CLUSTER, "Service/default/s/443/HTTP")
    (locality,) = out.load_assignment.endpoints
    address = locality.lb_endpoints[0].endpoint.address.socket_address
    assert (address.address, address.port_value) == ("outside.test", 443)


def test_priorities_of_endpoints():
    world = World()
    key = world.backend("s", 1).backend
    world.graph.endpoints.set(key, (Endpoint("10.0.0.2", 1), Endpoint("10.0.0.1", 1, draining=True)))
    out = message(world, CLUSTER_LOAD_ASSIGNMENT, "Service/default/s/80")
    assert [(e.priority, len(e.lb_endpoints)) for e in out.endpoints] == [(0, 1), (1, 1)]
    world.graph.endpoints.set(key, (Endpoint("10.0.0.1", 1, draining=True),))
    out = message(world, CLUSTER_LOAD_ASSIGNMENT, "Service/default/s/80")
    assert [(e.priority, len(e.lb_endpoints)) for e in out.endpoints] == [(0, 1)]


def test_an_address_is_listed_once():
    one, again = Endpoint("10.0.0.1", 1), Endpoint("10.0.0.1", 1, draining=True)
    other = Endpoint("10.0.0.1", 2, draining=True)
    assert by_priority([again, one, one, other, other]) == [[one], [other]]
    assert by_priority([]) == []


@pytest.mark.parametrize(("settings", "count"), [({}, 1), ({"access_log": False}, 0)])
def test_the_access_log_can_be_off(settings, count):
    world = World(EnvoySettings(**settings))
    world.port(listener("http", "HTTP", 80))
    chain = message(world, LISTENER, "tcp/80").filter_chains[0]
    manager = hcm_pb.HttpConnectionManager.FromString(chain.filters[0].typed_config.value)
    assert len(manager.access_log) == count


@pytest.mark.parametrize(("settings", "counted"), [({}, True), ({"backend_statistics": False}, False)])
def test_answers_are_counted_by_backend_unless_that_is_off(settings, counted):
    world = World(EnvoySettings(**settings))
    world.port(listener("http", "HTTP", 80))
    chain = message(world, LISTENER, "tcp/80").filter_chains[0]
    manager = hcm_pb.HttpConnectionManager.FromString(chain.filters[0].typed_config.value)
    router = router_pb2.Router.FromString(manager.http_filters[-1].typed_config.value)
    assert router.dynamic_stats.value is counted or (counted and not router.HasField("dynamic_stats"))


def tables(*hostnames, limit=128):
    tls = ListenerTls("Terminate")
    listeners = tuple(listener(h or "all", "HTTPS", 443, h, tls) for h in hostnames)
    found = route_tables(claims_of(Port(PortKey(GATEWAY, 443, "TCP"), (), 443, listeners)), limit)
    return {table.claimed[0]: table.misdirected for table in found.values()}


def test_misdirected_hostnames():
    assert tables("a.test", "b.test") == {"a.test": ("b.test",), "b.test": ("a.test",)}
    assert tables("a.test", "*.test", "") == {
        "a.test": ("*",),
        "*.test": ("a.test", "*"),
        "*": ("*.test", "a.test"),
    }
    assert tables("a.x.test", "*.x.test", "b.test") == {
        "a.x.test": ("*.x.test", "b.test"),
        "*.x.test": ("a.x.test", "b.test"),
        "b.test": ("*.x.test", "a.x.test"),
    }


def test_many_misdirected_hostnames_are_not_listed():
    many = tables("a.x.test", "*.x.test", *(f"h{i}.test" for i in range(10)), limit=10)
    assert many["h0.test"] == ("*",)
    assert many["*.x.test"] == ("a.x.test", *sorted(f"h{i}.test" for i in range(10)))
    many = tables("a.x.test", "*.x.test", *(f"h{i}.test" for i in range(11)), limit=10)
    assert many["*.x.test"] == ("a.x.test", "*")


def test_private_keys_stay_out_of_representations():
    world = World()
    world.secret("certificate", "cert", b"chain", b"very secret")
    resource = world.resources()[SECRET, "certificate/default/cert"]
    assert b"very secret" in resource.body
    assert "very secret" not in repr(resource)
