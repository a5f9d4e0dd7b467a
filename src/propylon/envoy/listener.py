"""Listener: one per port and transport of a Gateway, on all its addresses."""

from collections.abc import Iterable
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2, socket_option_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from propylon import api
from propylon.envoy import names
from propylon.envoy.endpoint import socket_address
from propylon.envoy.resource import ads, pack, serialize
from propylon.envoy.udp_proxy import build_udp_proxy
from propylon.graph.model import L4Route, PortKey
from propylon.wire_format import embed

_FILTER_CHAINS = listener_pb2.Listener.DESCRIPTOR.fields_by_name["filter_chains"].number
_CHAIN_PATIENCE = 60.0
"""Seconds. A filter chain that does not come must not keep the others of its port from serving for ever. Thousands take
a while: a new proxy that gave up on some would turn away connections that its predecessor served.
"""

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


class PortHead(msgspec.Struct, frozen=True):
    """What a Listener has to know of its port apart from filter chains."""

    key: PortKey
    addresses: tuple[str, ...]
    bound_port: int
    tls: bool
    """Some listener of the port uses TLS."""
    matched: bool
    """Chains are found through a matcher, and some may be discovered."""
    origins: tuple[api.ObjectRef, ...]


def build_listener(port: PortHead, udp_route: L4Route | None) -> Any:
    """Envoy's Listener without its filter chains, which are appended to it serialized."""
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
        out.listener_filters.append(build_udp_proxy(udp_route))
        return out
    out.socket_options.extend(_keepalive())
    if port.tls:
        out.listener_filters.append(
            listener_components_pb2.ListenerFilter(
                name=names.TLS_INSPECTOR, typed_config=pack(tls_inspector_pb2.TlsInspector())
            )
        )
    if port.matched:
        # Even if there is nothing to be discovered: it cannot come later without draining every connection.
        out.fcds_config.name = names.listener(port.key)
        out.fcds_config.config_source.CopyFrom(ads(_CHAIN_PATIENCE))
        # Envoy replaces a Listener in place, without draining what did not change, only if it has a chain inside.
        out.filter_chains.add(name=names.NO_FILTER_CHAIN)
    return out


def join_listener(listener: Any, chains: Iterable[bytes]) -> bytes:
    """Serialize a Listener with the chains inside it (each serialized). Its matcher is appended (`build_matcher`)."""
    return b"".join([serialize(listener), *(embed(_FILTER_CHAINS, chain) for chain in chains)])


def _keepalive() -> list[Any]:
    return [
        socket_option_pb2.SocketOption(
            level=level, name=name, int_value=value, state=socket_option_pb2.SocketOption.STATE_PREBIND
        )
        for level, name, value in _KEEPALIVE
    ]
