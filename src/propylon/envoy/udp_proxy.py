"""udp_proxy: datagrams passed on, one session per client address and port (UDPRoute)."""

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from xds.type.matcher.v3 import matcher_pb2

from propylon.envoy import names
from propylon.envoy.resource import pack
from propylon.graph.model import BackendRef, L4Route


def live_backends(route: L4Route) -> list[BackendRef]:
    """Those that take part."""
    return [ref for ref in route.backends if ref.weight > 0]


def weighted(route: L4Route) -> bool:
    """Whether several backends share the datagrams, at least one of which leads somewhere."""
    live = live_backends(route)
    return len(live) > 1 and any(ref.cluster is not None for ref in live)


def build_udp_proxy(route: L4Route | None) -> Any:
    """The listener filter. Without a usable backend it drops every datagram."""
    cluster = _cluster(route)
    proxy = udp_proxy_pb2.UdpProxyConfig(stat_prefix=names.l4_filter_chain(route.key) if route else "udp/none")
    action = matcher_pb2.Matcher.OnMatch()
    action.action.name = "route"
    action.action.typed_config.CopyFrom(pack(route_pb2.Route(cluster=cluster)))
    proxy.matcher.on_no_match.CopyFrom(action)
    return listener_components_pb2.ListenerFilter(name=names.UDP_PROXY, typed_config=pack(proxy))


def _cluster(route: L4Route | None) -> str:
    if route is None:
        return names.UNRESOLVED
    if weighted(route):
        return names.weighted_udp_cluster(route.key)
    clusters = [ref.cluster for ref in live_backends(route) if ref.cluster is not None]
    return names.cluster(clusters[0]) if clusters else names.UNRESOLVED
