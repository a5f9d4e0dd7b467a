"""tcp_proxy: bytes passed on to weighted backends (TCPRoute, TLSRoute)."""

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from propylon.envoy import names
from propylon.envoy.resource import pack, seconds
from propylon.graph.model import L4Route


def build_tcp_proxy(route: L4Route) -> list[Any]:
    """The network filters of a chain: none if there is no backend at all, so that Envoy closes at once.

    What passes through encrypted goes to clusters of its own, which never encrypt again (a BackendTLSPolicy may ask
    for that where TLS ends at the Gateway). The share of a backend that leads nowhere is closed too. Connections may be
    silent without end; TCP keep-alive finds those whose peer is gone.
    """
    live = [ref for ref in route.backends if ref.weight > 0]
    if all(ref.cluster is None for ref in live):
        return []
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.l4_filter_chain(route.key), idle_timeout=seconds(0))
    name_of = names.passthrough_cluster if route.tls_mode == "Passthrough" else names.cluster
    targets = [(name_of(ref.cluster) if ref.cluster else names.UNRESOLVED, ref.weight) for ref in live]
    if len(targets) == 1:
        proxy.cluster = targets[0][0]
    else:
        for name, weight in targets:
            proxy.weighted_clusters.clusters.add(name=name, weight=weight)
    return [listener_components_pb2.Filter(name=names.TCP_PROXY, typed_config=pack(proxy))]
