"""CORS (GEP-1767).

Preflights are routes of their own that answer directly: a preflight carries neither the method nor the headers that
the rule matches, it must never reach a backend, and its answer may have to repeat what was asked for. Envoy's cors
filter adds the headers to the answers of actual requests.
"""

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb

from propylon import api
from propylon.envoy import matcher, names
from propylon.envoy.header_mutation import add_header, set_header
from propylon.envoy.resource import pack
from propylon.graph.model import Match

ORIGIN = "origin"
REQUEST_METHOD = "access-control-request-method"
REQUEST_HEADERS = "access-control-request-headers"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[^:/]+)(?::(?P<port>[0-9]+))?")


def build_filter() -> Any:
    """The HttpFilter: does nothing on routes without a policy."""
    return hcm_pb.HttpFilter(name=names.CORS, typed_config=pack(cors_pb2.Cors()))


def configure_route(route: Any, cors: api.HTTPCORSFilter) -> None:
    """Let the answers of this route's actual requests carry the CORS headers."""
    policy = cors_pb2.CorsPolicy(allow_origin_string_match=origin_matchers(cors.allow_origins))
    policy.forward_not_matching_preflights.value = False
    expose = _exposed(cors)
    if expose:
        policy.expose_headers = expose
    if cors.allow_credentials:
        policy.allow_credentials.value = True
    route.typed_per_filter_config[names.CORS].CopyFrom(pack(policy))
    # The answer depends on who asks: caches must know (Fetch standard, "CORS protocol and HTTP caches").
    route.response_headers_to_add.append(add_header("vary", "Origin"))


def build_preflight_routes(name: str, match: Match, cors: api.HTTPCORSFilter) -> list[Any]:
    """Routes that answer preflights: with the CORS headers for an allowed origin, without them for any other."""
    denied = _preflight_route(name, match)
    denied.response_headers_to_add.append(add_header("vary", "Origin"))
    if not cors.allow_origins:
        return [denied]
    allowed = _preflight_route(name, match)
    pattern = origin_pattern(cors.allow_origins)
    allowed.match.headers.append(matcher.header(ORIGIN, matcher.regex(pattern)))
    headers = [("access-control-allow-origin", "%REQ(origin)%")]
    methods = _listed(cors.allow_methods, REQUEST_METHOD)
    if methods:
        headers.append(("access-control-allow-methods", methods))
    allow_headers = _listed(cors.allow_headers, REQUEST_HEADERS)
    if allow_headers:
        headers.append(("access-control-allow-headers", allow_headers))
    expose = _exposed(cors)
    if expose:
        headers.append(("access-control-expose-headers", expose))
    headers.append(("access-control-max-age", str(cors.max_age)))
    if cors.allow_credentials:
        headers.append(("access-control-allow-credentials", "true"))
    headers.append(("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"))
    allowed.response_headers_to_add.extend(set_header(key, value) for key, value in headers)
    return [allowed, denied]


def origin_matchers(origins: tuple[str, ...]) -> list[Any]:
    """StringMatchers of which one must take the Origin header."""
    return [matcher.regex(origin_pattern(origins))] if origins else []


def origin_pattern(origins: tuple[str, ...]) -> str:
    """RE2 pattern of the origins: a wildcard takes any number of labels, a default port may be written or not."""
    return "|".join(_origin_pattern(origin) for origin in origins)


def _origin_pattern(origin: str) -> str:
    if origin == "*":
        return ".*"
    parts = _ORIGIN.fullmatch(origin)
    if parts is None:
        return re.escape(origin)
    host = parts["host"].lower()
    if host == "*":
        host_pattern = r"[^/]*" if parts["port"] is None else r"[^/:]*"
        if parts["port"] is None:
            return f"{parts['scheme']}://{host_pattern}"
    else:
        host_pattern = re.escape(host).replace(r"\*", "[^/:]*")
    default = _DEFAULT_PORTS[parts["scheme"]]
    port = f"(?::{default})?" if parts["port"] in (None, default) else f":{parts['port']}"
    return f"{parts['scheme']}://{host_pattern}{port}"


def _preflight_route(name: str, match: Match) -> Any:
    """A direct answer to OPTIONS with Origin and a requested method, where the rule would match that method."""
    route = route_pb.Route(name=f"{name}/preflight", match=matcher.build_path_match(match))
    route.match.headers.append(matcher.header(":method", matcher.exact("OPTIONS")))
    if match.method is None or match.method == "OPTIONS":
        route.match.headers.append(matcher.present(REQUEST_METHOD))
    else:
        route.match.headers.append(matcher.header(REQUEST_METHOD, matcher.exact(match.method)))
    route.match.headers.append(matcher.present(ORIGIN))
    route.match.query_parameters.extend(matcher.build_query_match(q) for q in match.query)
    route.direct_response.status = 204
    return route


def _listed(values: tuple[str, ...], requested: str) -> str:
    """What is allowed; of "everything" just what was asked for, which is right with credentials too."""
    return f"%REQ({requested})%" if "*" in values else ", ".join(values)


def _exposed(cors: api.HTTPCORSFilter) -> str:
    if "*" in cors.expose_headers and cors.allow_credentials:
        return ""  # With credentials "*" would be a header of that name (Fetch standard).
    return ", ".join(cors.expose_headers)
