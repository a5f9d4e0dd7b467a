"""Listener: one per port and transport of a Gateway, on all its addresses."""

from collections.abc import Collection, Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2, socket_option_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from propylon.envoy import names
from propylon.envoy.endpoint import socket_address
from propylon.envoy.filter_chain import Authorizations, build_filter_chains
from propylon.envoy.resource import pack
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.udp_proxy import build_udp_proxy
from propylon.graph.model import L4Route, Port, RouteTableKey

_BUFFER_LIMIT = 32 * 1024
_SOL_SOCKET, _SO_KEEPALIVE = 1, 9
_IPPROTO_TCP, _TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT = 6, 4, 5, 6
_KEEPALIVE = (
    (_SOL_SOCKET, _SO_KEEPALIVE, 1),
    (_IPPROTO_TCP, _TCP_KEEPIDLE, 60),
    (_IPPROTO_TCP, _TCP_KEEPINTVL, 10),
    (_IPPROTO_TCP, _TCP_KEEPCNT, 6),
)
"""Linux socket options (level, name, value): a client gone without a word is noticed within two minutes."""


def build_listener(
    port: Port,
    l4_routes: Sequence[L4Route],
    authorizations: Authorizations,
    settings: EnvoySettings,
    scoped: Collection[RouteTableKey] = (),
) -> Any | None:
    """Envoy's Listener, or None if there is no address to listen on or nothing to serve."""
    if not port.addresses or not port.listeners:
        return None
    udp = port.key.transport == "UDP"
    first, *others = (socket_address(address, port.bound_port, udp=udp) for address in port.addresses)
    out = listener_pb2.Listener(
        name=names.listener(port.key),
        stat_prefix=names.listener(port.key),
        address=first,
        additional_addresses=[listener_pb2.AdditionalAddress(address=address) for address in others],
        traffic_direction=base_pb2.INBOUND,
    )
    out.per_connection_buffer_limit_bytes.value = _BUFFER_LIMIT
    if udp:
        out.udp_listener_config.SetInParent()
        out.listener_filters.append(build_udp_proxy(l4_routes[0] if l4_routes else None))
        return out
    out.socket_options.extend(_keepalive())
    if any(listener.tls is not None for listener in port.listeners):
        out.listener_filters.append(
            listener_components_pb2.ListenerFilter(
                name=names.TLS_INSPECTOR, typed_config=pack(tls_inspector_pb2.TlsInspector())
            )
        )
    out.filter_chains.extend(build_filter_chains(port, l4_routes, authorizations, settings, scoped))
    return out


def _keepalive() -> list[Any]:
    return [
        socket_option_pb2.SocketOption(
            level=level, name=name, int_value=value, state=socket_option_pb2.SocketOption.STATE_PREBIND
        )
        for level, name, value in _KEEPALIVE
    ]
