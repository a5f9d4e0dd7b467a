"""Clusters put together from parts are the clusters that are built."""

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from propylon.envoy import EnvoySettings
from propylon.envoy.cluster import build_cluster, cluster_body
from propylon.graph.model import Backend, BackendKey, BackendTls, Cluster, ClusterKey, Endpoint, SecretKey

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
        body = cluster_body(cluster, endpoints, settings)
        assert cluster_pb2.Cluster.FromString(body) == build_cluster(cluster, endpoints, settings)
