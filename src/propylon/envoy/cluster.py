"""Cluster: a backend as the proxies speak to it.

Requests go to the less busy of two endpoints chosen at random: one slow endpoint then does not hold up a share of all
requests as it would in turn-taking, and with equal load the outcome is even. Datagrams have no end that could be
counted, so they take turns.
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, extension_pb2, protocol_pb2
from envoy.extensions.network.dns_resolver.getaddrinfo.v3 import getaddrinfo_dns_resolver_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from propylon.envoy import names
from propylon.envoy.endpoint import build_load_assignment
from propylon.envoy.resource import ads, pack, seconds, serialize
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.tls import build_upstream_socket
from propylon.graph.model import ApplicationProtocol, BackendKey, Cluster, Endpoint
from propylon.wire_format import Tag, tag

UNLIMITED = 2**32 - 1
_NAME, _EDS, _ALT_STAT_NAME, _SERVICE_NAME = Tag(1), 3, Tag(28), Tag(2)
"""Fields of Cluster and, the last, of its EdsClusterConfig (envoy/config/cluster/v3/cluster.proto)."""
_HTTP = frozenset({"HTTP", "HTTP2", "GRPC"})
_BUFFER_LIMIT = 32 * 1024
_IDLE_TIMEOUT = 50.0
"""Seconds. Below the minute after which common servers close idle connections, so that none is closed under a
request."""


def build_cluster(cluster: Cluster, endpoints: Sequence[Endpoint], settings: EnvoySettings) -> Any:
    """Envoy's Cluster. `endpoints` are those of a backend that is found by DNS; others get theirs by EDS, if none of
    them has a name."""
    backend = cluster.backend
    out = cluster_pb2.Cluster()
    out.CopyFrom(_template(cluster.key.protocol, settings))
    out.name = names.cluster(cluster.key)
    if cluster.key.protocol in _HTTP:
        # A backend and its twin for gRPC calls are one thing to whoever reads stats, and Envoy makes them once.
        out.alt_stat_name = names.cluster_load_assignment(backend.key)
    if backend.discovery == "DNS" or endpoints:
        _discover_by_dns(out, endpoints or (Endpoint(backend.dns_name, backend.key.port),))
    else:
        _discover_by_eds(out, names.cluster_load_assignment(backend.key))
    if backend.tls is not None and cluster.key.protocol != "UDP":
        out.transport_socket.CopyFrom(build_upstream_socket(cluster, backend.tls, settings))
    return out


def named_bodies(
    backend: BackendKey, clusters: Iterable[Cluster], endpoints: Sequence[Endpoint], settings: EnvoySettings
) -> list[tuple[str, bytes]]:
    """Names and bytes of `build_cluster` for clusters of one backend, as there are tens of thousands.

    Where a cluster has nothing of its own but names, its bytes are put together from parts. Fields stand in another
    order then, which means nothing.
    """
    service = names.cluster_load_assignment(backend)
    service_name = service.encode()
    size = len(service_name)
    by_eds = _eds_head(size) + service_name
    found = []
    for each in clusters:
        protocol, its = each.key.protocol, each.backend
        name = names.cluster_at(service, protocol)
        if its.discovery == "DNS" or endpoints or its.tls is not None:
            body = serialize(build_cluster(each, endpoints, settings))
        else:
            text = name.encode()
            parts = _template_body(protocol, settings), _NAME[len(text)], text, by_eds
            body = b"".join((*parts, _ALT_STAT_NAME[size], service_name) if protocol in _HTTP else parts)
        found.append((name, body))
    return found


@lru_cache
def _template_body(protocol: ApplicationProtocol, settings: EnvoySettings) -> bytes:
    out = cluster_pb2.Cluster()
    out.CopyFrom(_template(protocol, settings))
    out.type = cluster_pb2.Cluster.EDS
    return serialize(out)


@cache
def _eds_head(size: int) -> bytes:
    """`eds_cluster_config` up to the service's name, which has that size and ends it."""
    config = serialize(cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads())) + _SERVICE_NAME[size]
    return tag(_EDS, len(config) + size) + config


def build_passthrough_cluster(cluster: Cluster, endpoints: Sequence[Endpoint], settings: EnvoySettings) -> Any:
    """The same backend for bytes that are TLS already."""
    plain = msgspec.structs.replace(cluster, backend=msgspec.structs.replace(cluster.backend, tls=None))
    out = build_cluster(plain, endpoints, settings)
    out.name = names.passthrough_cluster(cluster.key)
    return out


@lru_cache
def _template(protocol: ApplicationProtocol, settings: EnvoySettings) -> Any:
    """What all clusters of a protocol have in common; built once, for there are thousands."""
    out = _base("", settings)
    out.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN if protocol == "UDP" else cluster_pb2.Cluster.LEAST_REQUEST
    if protocol in _HTTP:
        out.typed_extension_protocol_options[names.HTTP_PROTOCOL_OPTIONS].CopyFrom(
            pack(_http_options(http2=protocol != "HTTP"))
        )
    if protocol != "UDP":
        # Silent death of an endpoint must not hold connections that have no time limit.
        out.upstream_connection_options.tcp_keepalive.CopyFrom(_tcp_keepalive(idle=60, interval=10, probes=6))
    return out


def build_weighted_udp_cluster(name: str, settings: EnvoySettings) -> Any:
    """The cluster that weighted datagram backends make up together: Envoy's udp_proxy knows no weights, but the load
    balancer does, by locality."""
    out = _base(name, settings)
    out.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    out.common_lb_config.locality_weighted_lb_config.SetInParent()
    _discover_by_eds(out, name)
    return out


def _tcp_keepalive(*, idle: int, interval: int, probes: int) -> Any:
    """TcpKeepalive: seconds of silence, seconds between probes, and how many may go unanswered."""
    out = address_pb2.TcpKeepalive()
    out.keepalive_time.value, out.keepalive_interval.value, out.keepalive_probes.value = idle, interval, probes
    return out


def _base(name: str, settings: EnvoySettings) -> Any:
    unlimited = circuit_breaker_pb2.CircuitBreakers.Thresholds()
    for limit in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
        getattr(unlimited, limit).value = UNLIMITED
    out = cluster_pb2.Cluster(
        name=name,
        connect_timeout=seconds(settings.connect_timeout),
        # Endpoints come and go by the Graph's word alone; nothing watches their health here.
        ignore_health_on_host_removal=True,
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[unlimited]),
    )
    out.per_connection_buffer_limit_bytes.value = _BUFFER_LIMIT
    out.common_lb_config.healthy_panic_threshold.value = 0
    return out


def _discover_by_eds(out: Any, service_name: str) -> None:
    out.type = cluster_pb2.Cluster.EDS
    out.eds_cluster_config.CopyFrom(cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads(), service_name=service_name))


def _discover_by_dns(out: Any, endpoints: Sequence[Endpoint]) -> None:
    out.type = cluster_pb2.Cluster.STRICT_DNS
    out.dns_lookup_family = cluster_pb2.Cluster.ALL
    out.respect_dns_ttl = True
    # The system's resolver: /etc/hosts, search domains and all else that people expect a name to go through.
    out.typed_dns_resolver_config.CopyFrom(
        extension_pb2.TypedExtensionConfig(
            name="envoy.network.dns_resolver.getaddrinfo",
            typed_config=pack(getaddrinfo_dns_resolver_pb2.GetAddrInfoDnsResolverConfig()),
        )
    )
    out.load_assignment.CopyFrom(build_load_assignment(out.name, endpoints))


def _http_options(*, http2: bool) -> Any:
    out = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=seconds(_IDLE_TIMEOUT))
    )
    if http2:
        options = out.explicit_http_config.http2_protocol_options
        options.initial_stream_window_size.value = 1 << 20
        options.initial_connection_window_size.value = 1 << 24
    else:
        out.explicit_http_config.http_protocol_options.SetInParent()
    return out
