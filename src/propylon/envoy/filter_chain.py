"""FilterChain: which connection of a port is served how, chosen by SNI on TLS ports."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2

from propylon.envoy import names
from propylon.envoy.http_connection_manager import build_http_connection_manager
from propylon.envoy.http_filters.ext_authz import AuthorizationFilter
from propylon.envoy.settings import EnvoySettings
from propylon.envoy.tcp_proxy import build_tcp_proxy
from propylon.envoy.tls import HTTP_ALPN, build_downstream_socket, handshake_timeout
from propylon.graph.model import L4Route, Listener, Port, RouteTableKey

Authorizations = Mapping[RouteTableKey, tuple[AuthorizationFilter, ...]]


def build_filter_chains(
    port: Port,
    l4_routes: Sequence[L4Route],
    authorizations: Authorizations,
    settings: EnvoySettings,
    scoped: Collection[RouteTableKey] = (),
) -> list[Any]:
    """The chains of a TCP port, by SNI where listeners use TLS; `scoped` are the route tables that are scopes.

    An SNI that nothing serves finds no chain, and Envoy closes. A TLS or TCP listener without a route has a chain
    without filters for its hostname, which closes too and keeps a wider listener's routes off.
    """

    def manager(listener: Listener) -> Any:
        table = listener.route_table
        return build_http_connection_manager(table, authorizations.get(table, ()), settings, scoped=table in scoped)

    chains: dict[str, Any] = {}
    by_key = {listener.key: listener for listener in port.listeners}
    for route in l4_routes:
        listener = by_key.get(route.listener)
        if listener is not None:
            chains.setdefault(_sni(route.key.hostname), _l4_chain(route, listener))
    for listener in port.listeners:
        sni = _sni(listener.hostname)
        if listener.protocol == "HTTPS":
            chains[sni] = _https_chain(listener, manager(listener))
        elif listener.protocol == "HTTP":
            chains.setdefault("", _http_chain(listener, manager(listener)))
        else:
            chains.setdefault(sni, _closing_chain(listener, sni))
    return [chains[sni] for sni in sorted(chains)]


def _http_chain(listener: Listener, manager: Any) -> Any:
    return listener_components_pb2.FilterChain(name=names.route_configuration(listener.route_table), filters=[manager])


def _https_chain(listener: Listener, manager: Any) -> Any:
    chain = _chain(names.filter_chain(listener.key), _sni(listener.hostname), [manager])
    if listener.tls is not None:
        chain.transport_socket.CopyFrom(build_downstream_socket(listener.tls, HTTP_ALPN))
        chain.transport_socket_connect_timeout.CopyFrom(handshake_timeout())
    return chain


def _l4_chain(route: L4Route, listener: Listener) -> Any:
    chain = _chain(names.l4_filter_chain(route.key), _sni(route.key.hostname), build_tcp_proxy(route))
    if route.tls_mode == "Terminate" and listener.tls is not None and chain.filters:
        chain.transport_socket.CopyFrom(build_downstream_socket(listener.tls))
        chain.transport_socket_connect_timeout.CopyFrom(handshake_timeout())
    return chain


def _closing_chain(listener: Listener, sni: str) -> Any:
    return _chain(names.filter_chain(listener.key), sni, [])


def _chain(name: str, sni: str, filters: Sequence[Any]) -> Any:
    chain = listener_components_pb2.FilterChain(name=name, filters=filters)
    if sni:
        chain.filter_chain_match.server_names.append(sni)
    return chain


def _sni(hostname: str) -> str:
    """The SNI pattern of a hostname: "" for every one."""
    return "" if hostname == "*" else hostname
