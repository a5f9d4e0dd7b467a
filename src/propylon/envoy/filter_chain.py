"""FilterChain: which connection of a port is served how, chosen by SNI on TLS ports.

Envoy reads a Listener as a whole: one changed among 5,000 HTTPS listeners inside it takes more than a second. So on TLS
ports the chains of what there may be many of (listeners of ListenerSets, hostnames of TLSRoutes) are resources of their
own, discovered by name (FCDS), and the Listener only says which SNI leads to which name (`filter_chain_matcher`). A
Gateway's own listeners, 64 at most, stay inside. Who is inside does not depend on how many there are, so a Gateway that
grows changes nothing about the connections it has.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
from envoy.config.listener.v3 import listener_components_pb2

from propylon import api
from propylon.envoy import names
from propylon.envoy.http_connection_manager import build_http_connection_manager
from propylon.envoy.http_filters.ext_authz import AuthorizationFilter
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.tcp_proxy import build_tcp_proxy
from propylon.envoy.tls import HTTP_ALPN, build_downstream_socket, handshake_timeout
from propylon.graph.model import (
    BoundPort,
    L4Key,
    L4Route,
    Listener,
    ListenerTls,
    PortKey,
    RouteTableKey,
    SecretKey,
)


class ChainKey(NamedTuple):
    """A chain by what leads to it: the port, and the SNI ("" for every other one, "*.example.com" for a wildcard)."""

    port: PortKey
    sni: str


class ChainPlan(msgspec.Struct, frozen=True):
    """Who is served by a chain."""

    listener: Listener
    route: L4Route | None = None
    """The TLSRoute or TCPRoute, if it is one that answers."""
    discovered: bool = False
    """A resource of its own instead of a part of its Listener."""

    @property
    def route_table(self) -> RouteTableKey | None:
        """Where its virtual hosts live; None if it has none."""
        return self.listener.route_table if self.listener.protocol in {"HTTP", "HTTPS"} else None

    @property
    def tls(self) -> ListenerTls | None:
        """TLS that ends here."""
        ends = self.listener.protocol == "HTTPS" or (self.route is not None and self.route.tls_mode == "Terminate")
        return self.listener.tls if ends else None

    @property
    def secrets(self) -> tuple[SecretKey, ...]:
        """What it has to have from SDS."""
        if self.tls is None:
            return ()
        validation = self.tls.client_validation
        return (*self.tls.certificates, *((validation.secret,) if validation is not None else ()))


class FilterChain(msgspec.Struct, frozen=True):
    """A chain ready to be sent, or to be joined into its Listener."""

    name: str
    body: bytes
    discovered: bool
    origins: tuple[api.ObjectRef, ...]


def is_matched(port: BoundPort, settings: EnvoySettings) -> bool:
    """Whether the Listener of a port finds its chains through a matcher, and some of them may be discovered."""
    return settings.discover_chains and port.tls


def listener_chain(port: PortKey, listener: Listener) -> ChainKey:
    """The chain that a listener of a TCP port is served by, unless a route has one of its own there."""
    return ChainKey(port, "" if listener.protocol == "HTTP" else _sni(listener.hostname))


def route_chain(key: L4Key) -> ChainKey:
    """The chain of a TLSRoute's hostname, or of a TCPRoute."""
    return ChainKey(PortKey(key.gateway, key.port, key.transport), _sni(key.hostname))


def plan_chain(
    key: ChainKey, listeners: Sequence[Listener], routes: Sequence[tuple[L4Route, Listener]], *, matched: bool
) -> ChainPlan | None:
    """Who is served by a chain, given the listeners that it stands for, the most specific hostname first, and the L4
    routes with their listeners.

    An SNI that nothing serves finds no chain, and Envoy closes. A TLS or TCP listener without a route has a chain
    without filters for its hostname, which closes too and keeps a wider listener's routes off.
    """
    route: L4Route | None = None
    https = [each for each in listeners if each.protocol == "HTTPS"]
    if https:
        listener = https[-1]
    elif routes:
        route, listener = routes[-1]
    elif listeners:
        listener = listeners[0]
    else:
        return None
    own = listener.key.kind == "Gateway" and key.sni == _sni(listener.hostname)
    return ChainPlan(listener, route, matched and not own)


def build_filter_chain(
    key: ChainKey,
    plan: ChainPlan,
    authorization: Collection[AuthorizationFilter],
    settings: EnvoySettings,
    *,
    scoped: bool = False,
) -> Any:
    """Envoy's FilterChain; `scoped` says that its route table is read as scopes.

    The SNI is stated even where a matcher chooses the chain: TLS sessions are resumed within the same server names.
    """
    chain = listener_components_pb2.FilterChain(name=names.filter_chain(key.port, key.sni))
    if key.sni:
        chain.filter_chain_match.server_names.append(key.sni)
    table = plan.route_table
    if table is not None:
        chain.filters.append(build_http_connection_manager(table, authorization, settings, scoped=scoped))
    elif plan.route is not None:
        chain.filters.extend(build_tcp_proxy(plan.route))
    if plan.tls is not None and chain.filters:
        alpn = HTTP_ALPN if table is not None else ()
        chain.transport_socket.CopyFrom(build_downstream_socket(plan.tls, alpn))
        chain.transport_socket_connect_timeout.CopyFrom(handshake_timeout())
    return chain


def _sni(hostname: str) -> str:
    """The SNI pattern of a hostname: "" for every one."""
    return "" if hostname == "*" else hostname
