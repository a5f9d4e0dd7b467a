"""Clusters put together from parts are the clusters that are built."""

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from propylon.envoy import EnvoySettings
from propylon.envoy.cluster import build_cluster, named_bodies
from propylon.envoy.endpoint import build_load_assignment, load_assignment_body
from propylon.envoy.resource import serialize
from propylon.graph.model import Backend, BackendKey, BackendTls, Cluster, ClusterKey, Endpoint, SecretKey
from propylon.wire_format import Tag, embed, tag, varint

TLS = BackendTls("shop.test", SecretKey("validation", "shop", "ca"))


@pytest.mark.parametrize("name", ["s", "x" * 120, "x" * 253])
@pytest.mark.parametrize("protocol", ["HTTP", "HTTP2", "TCP", "UDP"])
@pytest.mark.parametrize(
    ("discovery", "endpoints", "tls"),
    [("EDS", (), None), ("EDS", (Endpoint("name.test", 80),), None), ("DNS", (), None), ("EDS", (), TLS)],
)
def test_the_body_says_what_the_message_says(name, protocol, discovery, endpoints, tls):
    for settings in (EnvoySettings(), EnvoySettings(connect_timeout=3.0)):
        key = BackendKey("Service", "shop", name, 8080)
        dns_name = "name.test" if discovery == "DNS" else ""
        cluster = Cluster(ClusterKey(key, protocol), Backend(key, None, discovery, dns_name, tls))
        twin = Cluster(ClusterKey(key, "GRPC"), cluster.backend)
        found = named_bodies(key, [cluster, twin], endpoints, settings)
        built = [build_cluster(each, endpoints, settings) for each in (cluster, twin)]
        assert [cluster_pb2.Cluster.FromString(body) for _, body in found] == built
        assert [name for name, _ in found] == [each.name for each in built]


@pytest.mark.parametrize("number", [0, 1, 2, 40])
@pytest.mark.parametrize("name", ["s", "x" * 300])
def test_the_assignment_has_the_same_bytes(number, name):
    for port in (0, 1, 127, 128, 65535):
        for draining in (lambda _: False, lambda i: i % 2 == 0, lambda _: True):
            endpoints = [Endpoint(f"10.0.0.{i}", port, draining(i)) for i in range(number)]
            endpoints += [Endpoint("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", port)] * (number // 2)
            assert load_assignment_body(name, endpoints) == serialize(build_load_assignment(name, endpoints))


@pytest.mark.parametrize("field", [1, 15, 16, 28, 2000])
def test_embedded_bodies_of_any_length(field):
    for length in (0, 1, 127, 128, 300, 16383, 16384, 70_000):
        head = varint(field << 3 | 2) + varint(length)
        assert embed(field, b"x" * length) == head + b"x" * length
        assert Tag(field)[length] == head
        tags = Tag(2, field, 1)
        for _ in range(2):  # made, and remembered
            assert tags[length] + b"x" * length == embed(2, embed(field, embed(1, b"x" * length)))
        assert tag(field, length) == head
    assert varint(300) == b"\xac\x02"  # the example in Protocol Buffers' description of its encoding


def test_clusters_of_one_backend_of_which_one_has_tls():
    key = BackendKey("Service", "shop", "s", 8443)
    plain, with_tls = Backend(key, None, "EDS"), Backend(key, None, "EDS", tls=TLS)
    clusters = [Cluster(ClusterKey(key, "PASSTHROUGH"), plain), Cluster(ClusterKey(key, "HTTP"), with_tls)]
    found = [cluster_pb2.Cluster.FromString(body) for _, body in named_bodies(key, clusters, (), EnvoySettings())]
    assert found == [build_cluster(each, (), EnvoySettings()) for each in clusters]
    assert [each.HasField("transport_socket") for each in found] == [False, True]
