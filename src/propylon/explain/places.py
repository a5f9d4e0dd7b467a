"""The way to a virtual host: which Gateway, port, listener, and which host of its table."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from propylon import api
from propylon.explain.model import Gate, Outcome
from propylon.explain.request import Asked, ExplainError, host_of, is_address
from propylon.graph import Graph
from propylon.graph.hostnames import ancestors, covers, normalized
from propylon.graph.model import L4Key, L4Route, Listener, Port, PortKey, RouteTableKey, VirtualHostKey

MISDIRECTED_LIMIT = 128
"""With more foreign HTTPS hostnames on a port than this, unknown hosts answer 421 as well (see `EnvoySettings`)."""


class Arrival(NamedTuple):
    """Where a connection arrived."""

    port: Port
    gates: tuple[Gate, ...]


class End(NamedTuple):
    """A request that got no further."""

    outcome: Outcome
    status: int | None
    summary: str
    gates: tuple[Gate, ...] = ()


class Chosen(NamedTuple):
    """The listener whose routes count, or the L4 route that won the place."""

    table: RouteTableKey | None
    listener: Listener | None
    route: L4Route | None
    gates: tuple[Gate, ...]


def listener_name(listener: Listener) -> str:
    """`shop/edge https`, with the ListenerSet if one holds it."""
    key = listener.key
    holder = f" of ListenerSet {key.namespace}/{key.name}" if key.kind == "ListenerSet" else ""
    return f"{key.section}{holder}"


def listener_text(listener: Listener) -> str:
    """`https (HTTPS 443, *.example.com)`."""
    return f"{listener_name(listener)} ({listener.protocol} {listener.port}, {listener.hostname or 'every host'})"


def arrive(graph: Graph, asked: Asked) -> Arrival | End:
    """Find the port that a client reaches. Raises ExplainError if there is no Gateway, or if several fit."""
    gateways = _gateways(graph, asked)
    transport = "UDP" if asked.scheme == "udp" else "TCP"
    ports = [
        port
        for key, port in graph.ports.items()
        if key.gateway in gateways and key.transport == transport and asked.port in {port.bound_port, key.port}
    ]
    # A port that is bound with an offset is known by both its numbers, the one on the wire first.
    exact = [port for port in ports if port.bound_port == asked.port]
    ports = exact or ports
    by_address = [port for port in ports if asked.host in port.addresses]
    ports = by_address or ports
    if not ports:
        return End(
            "refused", None, f"nothing listens on {transport} port {asked.port}: {_ports_there(graph, gateways)}"
        )
    if len(ports) == 1:
        only = "the only one" if len(gateways) == 1 else f"the only one with {transport} port {asked.port}"
        why = "as asked" if asked.gateway else (f"has the address {asked.host}" if by_address else only)
        return Arrival(ports[0], (_gateway_gate(ports[0], why),))
    fitting = [port for port in ports if any(_takes(listener, asked) for listener in port.listeners)]
    if len(fitting) == 1:
        why = f"the only one on port {asked.port} with a listener for {asked.host}"
        return Arrival(fitting[0], (_gateway_gate(fitting[0], why),))
    names = ", ".join(str(port.key.gateway) for port in (fitting or ports))
    raise ExplainError(f"several Gateways fit ({names}): choose one by --from NAMESPACE/NAME, or by its address")


def _gateways(graph: Graph, asked: Asked) -> set[api.ObjectKey]:
    known = {key for key, _ in graph.gateways.items()}
    if not known:
        raise ExplainError("there is no Gateway whose GatewayClass is there and adopted")
    wanted = asked.gateway
    if not wanted:
        return known
    if is_address(wanted):
        found = {key for key, gateway in graph.gateways.items() if wanted in {a.value for a in gateway.addresses}}
        found |= {key.gateway for key, port in graph.ports.items() if wanted in port.addresses}
    else:
        found = {key for key in known if wanted in {str(key), key.name}}
    if not found:
        raise ExplainError(f"there is no Gateway {wanted}; there is {', '.join(map(str, sorted(known)))}")
    if len(found) > 1:
        raise ExplainError(f"{wanted} fits {', '.join(map(str, sorted(found)))}: write NAMESPACE/NAME")
    return found


def _takes(listener: Listener, asked: Asked) -> bool:
    name = host_of(asked.authority) if asked.scheme == "http" else asked.sni
    return listener.protocol in {"TCP", "UDP"} or covers(normalized(listener.hostname), name or "*")


def _ports_there(graph: Graph, gateways: Iterable[api.ObjectKey]) -> str:
    found = sorted({(k.transport, p.bound_port) for k, p in graph.ports.items() if k.gateway in gateways})
    if not found:
        return "no listener can be served"
    return "there is " + ", ".join(f"{transport} {number}" for transport, number in found)


def _gateway_gate(port: Port, why: str) -> Gate:
    offset = f", bound on {port.bound_port}" if port.bound_port != port.key.port else ""
    where = ", ".join(port.addresses)
    return Gate("Gateway", str(port.key.gateway), f"{why}; port {port.key.port}{offset} on {where}")


# --- filter chains ----------------------------------------------------------------------------------------------------


def choose_listener(graph: Graph, asked: Asked, port: Port) -> Chosen | End:
    """Find the filter chain: by SNI where TLS is spoken, else the port's only one."""
    routes = dict(l4_routes(graph, port.key))
    protocols = {listener.protocol for listener in port.listeners}
    if asked.scheme == "udp" or protocols <= {"TCP", "UDP"}:
        if asked.scheme in {"http", "https", "tls", "tcp"} or "UDP" in protocols:
            return _l4(port, routes.get(""), port.listeners[0], "the port is one listener's")
        return End("closed", None, "the listener of this port is no UDP listener")
    tls = [listener for listener in port.listeners if listener.tls is not None]
    if not tls:
        if asked.scheme != "http":
            what = "TLS" if asked.scheme in {"https", "tls"} else "bytes other than HTTP"
            return End("closed", None, f"port {port.key.port} is plain HTTP: a client that sends {what} is cut off")
        table = port.listeners[0].route_table
        return Chosen(table, None, None, ())
    return _by_sni(asked, port, routes)


def l4_routes(graph: Graph, key: PortKey) -> Iterator[tuple[str, L4Route]]:
    """The TLS, TCP and UDP routes of a port by hostname."""
    if key.transport == "UDP" or any(p in {"TLS", "TCP"} for p in _protocols(graph, key)):
        for l4_key, route in graph.l4_routes.items():
            if L4Key(key.gateway, key.port, key.transport, l4_key.hostname) == l4_key:
                yield l4_key.hostname, route


def _protocols(graph: Graph, key: PortKey) -> set[str]:
    port = graph.ports.get(key)
    return {listener.protocol for listener in port.listeners} if port is not None else set()


def _by_sni(asked: Asked, port: Port, routes: dict[str, L4Route]) -> Chosen | End:
    by_host = {normalized(listener.hostname): listener for listener in port.listeners}
    sni = asked.sni if asked.scheme in {"https", "tls"} else ""
    for name in ancestors(sni or "*"):
        listener, route = by_host.get(name), routes.get(name)
        if listener is None and route is None:
            continue
        why = f"the most specific for SNI {sni}" if sni else "takes clients that name no server"
        if listener is not None and listener.protocol == "HTTPS":
            if asked.scheme == "http":
                return End("closed", None, _needs_tls(port))
            if asked.scheme in {"tls", "https"}:
                return Chosen(listener.route_table, listener, None, (Gate("listener", listener_text(listener), why),))
        if route is not None:
            owner = next((each for each in port.listeners if each.key == route.listener), None)
            if asked.scheme in {"http", "tcp"} and route.tls_mode == "Terminate":
                return End("closed", None, _needs_tls(port))
            return _l4(port, route, owner, why)
        if listener is not None:
            return End(
                "closed", None, f"no TLSRoute is attached to listener {listener_text(listener)} for {sni or '*'}"
            )
    if asked.scheme in {"http", "tcp"}:
        return End("closed", None, _needs_tls(port))
    names = ", ".join(sorted(by_host))
    named = f"SNI {sni}" if sni else "a client without SNI"
    return End("closed", None, f"no listener of port {port.key.port} takes {named}: they take {names}")


def _needs_tls(port: Port) -> str:
    return f"port {port.key.port} speaks TLS: a client that does not is cut off; ask by https://"


def _l4(port: Port, route: L4Route | None, listener: Listener | None, why: str) -> Chosen | End:
    gates = (Gate("listener", listener_text(listener), why),) if listener is not None else ()
    if route is None:
        kind = "UDPRoute" if port.key.transport == "UDP" else "TCPRoute"
        return End("closed", None, f"no {kind} is attached to port {port.key.port}", gates)
    return Chosen(None, listener, route, gates)


# --- virtual hosts ----------------------------------------------------------------------------------------------------


def choose_host(
    graph: Graph, asked: Asked, port: Port, chosen: Chosen, misdirected_limit: int
) -> tuple[VirtualHostKey, tuple[Gate, ...]] | End:
    """Find the virtual host of a table for the Host header: exact, then the longest wildcard."""
    assert chosen.table is not None
    table, host = chosen.table, host_of(asked.authority)
    if chosen.listener is not None:
        own = {normalized(chosen.listener.hostname)}
        claimed = [each for each in port.listeners if each.protocol == "HTTPS"]
        foreign = {normalized(each.hostname) for each in claimed} - own
    else:
        claimed = [each for each in port.listeners if each.protocol == "HTTP"]
        own, foreign = {normalized(each.hostname) for each in claimed}, set()
    for name in ancestors(host):
        key = VirtualHostKey(table, name)
        if name in own or key in graph.virtual_hosts:
            return key, (*_listener_gate(chosen, claimed, host), Gate("host", name, _why_host(name, host)))
        if name in foreign:
            return _misdirected(chosen, host, f"another listener of the port is for {name}")
    if chosen.listener is not None and _too_many(next(iter(own)), foreign, misdirected_limit):
        return _misdirected(chosen, host, "the port has too many hostnames to tell unknown ones apart")
    hosts = ", ".join(sorted(own)[:8])
    return End(
        "answered", 404, f"404: no listener of this connection takes host {host}: it takes {hosts}", chosen.gates
    )


def _too_many(own: str, foreign: set[str], limit: int) -> bool:
    inside = sum(1 for name in foreign if covers(own, name))
    return own != "*" and len(foreign) - inside > limit


def _misdirected(chosen: Chosen, host: str, why: str) -> End:
    summary = (
        f"421: host {host} does not belong to the listener that this TLS connection was made to (SNI): {why}. "
        "Browsers ask again on a connection of their own"
    )
    return End("answered", 421, summary, chosen.gates)


def _why_host(name: str, host: str) -> str:
    if name == host:
        return "its exact hostname"
    return "takes every host" if name == "*" else f"the most specific wildcard for {host}"


def _listener_gate(chosen: Chosen, claimed: list[Listener], host: str) -> tuple[Gate, ...]:
    if chosen.gates:
        return chosen.gates
    by_host = {normalized(listener.hostname): listener for listener in claimed}
    found = next((by_host[name] for name in ancestors(host) if name in by_host), None)
    return (Gate("listener", listener_text(found), f"the most specific for host {host}"),) if found else ()
