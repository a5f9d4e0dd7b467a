"""VirtualHost: one hostname of a route table."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.config.route.v3 import route_pb2

from propylon import api
from propylon.envoy.http_filters import ext_authz
from propylon.envoy.path_tree import LARGE, build_path_tree
from propylon.envoy.redirect import Place
from propylon.envoy.resource import serialize, unique
from propylon.envoy.route import build_routes, direct_response
from propylon.envoy.route_body import route_bodies
from propylon.envoy.scope import build_not_found
from propylon.graph.model import Filter, Match, VirtualHost
from propylon.wire_format import Tag

_HOST_NAME, _DOMAINS, _ROUTES, _VIRTUAL_HOSTS = Tag(1), Tag(2), Tag(3), Tag(2)
"""Fields of VirtualHost and, the last, of RouteConfiguration (envoy/config/route/v3)."""


def build_virtual_host(host: VirtualHost, place: Place, *, final: bool = False) -> Any:
    """Envoy's VirtualHost. One without entries answers 404; with `final` it says so by a route (see `scope`)."""
    out = route_pb.VirtualHost(name=host.key.hostname, domains=[host.key.hostname])
    asked = ext_authz.listener_filters(host.filters)
    if all(ext_authz.usable(each.auth) for each in asked):
        # A listener's filters are for every request: what no route matches needs a route to be asked about.
        _fill(out, host, place, final=final or bool(asked))
        if asked:
            ext_authz.stand_by(out, (each for each in ext_authz.filters_of(host) if not each.before_routing))
            ext_authz.enable(out, asked)
    else:
        out.routes.append(_refused())
    return out


def _refused() -> Any:
    """Nobody is let past an authorizer that cannot be asked."""
    return direct_response(route_pb.Route(name="refused", match=route_pb.RouteMatch(prefix="")), 500)


def _fill(out: Any, host: VirtualHost, place: Place, *, final: bool) -> None:
    routes = [build_routes(entry, place) for entry in host.entries]
    if len(routes) >= LARGE:
        matches = [entry.match for entry in host.entries]
        if final:
            matches.append(Match(".*", "RegularExpression"))
            routes.append([build_not_found()])
        tree = build_path_tree(matches, routes)
        if tree is not None:
            out.matcher.CopyFrom(tree)
            return
    elif final:
        routes.append([build_not_found()])
    for each in routes:
        out.routes.extend(each)


def empty_virtual_host(hostname: str, filters: Sequence[Filter] = ()) -> Any:
    """A hostname that a listener (with these filters) claims and no route serves: 404, no other listener's routes."""
    out = route_pb.VirtualHost(name=hostname, domains=[hostname])
    asked = ext_authz.listener_filters(filters)
    if asked:
        out.routes.append(build_not_found() if all(ext_authz.usable(each.auth) for each in asked) else _refused())
        ext_authz.enable(out, asked)
    return out


def misdirected_virtual_host(hostnames: list[str]) -> Any:
    """Hosts that another listener serves: 421, so that the client asks again on a connection of its own."""
    route = direct_response(route_pb.Route(name="misdirected", match=route_pb.RouteMatch(prefix="/")), 421)
    return route_pb.VirtualHost(name="misdirected", domains=hostnames, routes=[route])


def as_fragment(host: Any) -> bytes:
    """A VirtualHost as the bytes of a RouteConfiguration that has only it.

    Serialized messages merge by concatenation (protobuf encoding, "last one wins" and repeated fields), so a
    RouteConfiguration of thousands of unchanged hosts costs a copy of bytes.
    """
    return serialize(route_pb2.RouteConfiguration(virtual_hosts=[host]))


def virtual_host_fragments(host: VirtualHost, place: Place, forms: Iterable[bool]) -> list[bytes]:
    """The fragment of `build_virtual_host` for each `final` in `forms`.

    Those that are a plain list of routes are put together from parts, as there are tens of thousands: the same bytes.
    """
    if len(host.entries) >= LARGE or host.filters:
        return [as_fragment(build_virtual_host(host, place, final=final)) for final in forms]
    name = host.key.hostname.encode()
    parts = [_HOST_NAME[len(name)], name, _DOMAINS[len(name)], name]
    for entry in host.entries:
        for route in route_bodies(entry, place):
            parts += (_ROUTES[len(route)], route)
    body = b"".join(parts)
    bodies = [body + _not_found() if final else body for final in forms]
    return [_VIRTUAL_HOSTS[len(each)] + each for each in bodies]


@cache
def _not_found() -> bytes:
    route = serialize(build_not_found())
    return _ROUTES[len(route)] + route


def origins_of(host: VirtualHost) -> tuple[api.ObjectRef, ...]:
    """The routes that speak under this hostname."""
    return unique(entry.route for entry in host.entries)
