"""RequestRedirect: where Location leads, by the rules for scheme, host and port (HTTPRequestRedirectFilter)."""

from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as route_pb

from propylon import api
from propylon.envoy import matcher
from propylon.envoy.path import build_regex_rewrite
from propylon.graph.model import Match

DEFAULT_PORTS = {"http": 80, "https": 443}
_RESPONSE_CODES = {
    301: route_pb.RedirectAction.MOVED_PERMANENTLY,
    302: route_pb.RedirectAction.FOUND,
    303: route_pb.RedirectAction.SEE_OTHER,
    307: route_pb.RedirectAction.TEMPORARY_REDIRECT,
    308: route_pb.RedirectAction.PERMANENT_REDIRECT,
}


class Place(NamedTuple):
    """Where requests of a virtual host arrive."""

    scheme: str
    """"http" or "https"."""
    port: int
    """The listener's, as the Gateway says."""
    port_offset: int
    """What the bound port is above it."""
    hostname: str
    """Of the virtual host: exact, a wildcard or "*"."""


class Location(NamedTuple):
    """Scheme, host and port that a redirect leads to; "" and 0 stand for "as requested" and "none written"."""

    scheme: str
    host: str
    port: int


def locate(redirect: api.HTTPRequestRedirectFilter, place: Place) -> Location:
    """Scheme, host and port of the Location header.

    Port: the filter's; else the default of the filter's scheme; else the listener's. The default port of the final
    scheme is not written. Where the Gateway's ports are bound with an offset, redirects to its own host follow.
    """
    scheme = redirect.scheme or place.scheme
    if redirect.port is not None:
        port = redirect.port
    elif redirect.scheme:
        port = DEFAULT_PORTS.get(redirect.scheme, place.port)
    else:
        port = place.port
    if not redirect.hostname:
        port += place.port_offset
    host = redirect.hostname or ("" if "*" in place.hostname else place.hostname)
    return Location(scheme, host, 0 if port == DEFAULT_PORTS.get(scheme) else port)


def build_redirect_routes(base: Any, redirect: api.HTTPRequestRedirectFilter, match: Match, place: Place) -> list[Any]:
    """Route messages that redirect what `base` matches.

    Envoy keeps the port of the request's Host unless told one. So where the port must vanish and the host is only known
    from the request, requests whose Host has a port (or may have: the listener's is not the default) are told apart.
    """
    location = locate(redirect, place)
    action = route_pb.RedirectAction(
        scheme_redirect=location.scheme,
        host_redirect=location.host,
        port_redirect=location.port,
        response_code=_RESPONSE_CODES.get(redirect.status_code or 302, route_pb.RedirectAction.FOUND),
    )
    _redirect_path(action, redirect.path, match)
    base.redirect.CopyFrom(action)
    if location.port or location.host:
        return [base]
    with_port = type(base)()
    with_port.CopyFrom(base)
    with_port.match.headers.append(matcher.header(":authority", matcher.regex(r".*[^:\]]:[0-9]+|\[.*\]:[0-9]+")))
    with_port.redirect.port_redirect = DEFAULT_PORTS[location.scheme]
    return [with_port, base]


def _redirect_path(action: Any, modifier: api.HTTPPathModifier | None, match: Match) -> None:
    if modifier is None:
        return
    if modifier.type == "ReplaceFullPath":
        action.path_redirect = modifier.replace_full_path or "/"
        return
    rewrite = build_regex_rewrite(modifier, match)
    if rewrite is not None:
        action.regex_rewrite.CopyFrom(rewrite)
