"""RouteMatch: path, method, headers and query parameters of one match (HTTPRouteMatch, GRPCRouteMatch)."""

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from propylon.graph.model import Match, ValueMatch


def exact(value: str) -> Any:
    """A StringMatcher that takes this value only."""
    return string_pb2.StringMatcher(exact=value)


def regex(pattern: str) -> Any:
    """A StringMatcher that takes what the pattern matches as a whole (RE2)."""
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=pattern))


def build_route_match(match: Match) -> Any:
    """Envoy's RouteMatch of a Gateway API match; all conditions must hold."""
    out = build_path_match(match)
    if match.method is not None:
        out.headers.append(header(":method", exact(match.method)))
    out.headers.extend(build_header_match(h) for h in match.headers)
    out.query_parameters.extend(build_query_match(q) for q in match.query)
    return out


def build_path_match(match: Match) -> Any:
    """The path condition alone.

    Prefixes match whole path segments, with or without a trailing slash (HTTPPathMatch.type PathPrefix).
    """
    if match.path_type == "Exact":
        return route_pb.RouteMatch(path=match.path)
    if match.path_type == "RegularExpression":
        return route_pb.RouteMatch(safe_regex=regex_pb2.RegexMatcher(regex=match.path))
    prefix = match.path.rstrip("/")
    if not prefix:
        return route_pb.RouteMatch(prefix="/")
    return route_pb.RouteMatch(path_separated_prefix=prefix)


def build_header_match(match: ValueMatch) -> Any:
    """A header condition. Of a header that is repeated in a request one line has to match (Envoy's way; the Gateway API
    leaves it open)."""
    return header(header_name(match.name), _value(match))


def build_query_match(match: ValueMatch) -> Any:
    """A query parameter condition; of a repeated parameter the first counts."""
    return route_pb.QueryParameterMatcher(name=match.name, string_match=_value(match))


def header(name: str, value: Any) -> Any:
    """A HeaderMatcher with a StringMatcher."""
    return route_pb.HeaderMatcher(name=name, string_match=value)


def present(name: str) -> Any:
    """A HeaderMatcher that only asks for the header to be there."""
    return route_pb.HeaderMatcher(name=name, present_match=True)


def header_name(name: str) -> str:
    """The name under which Envoy keeps a header: Host is `:authority` whatever the protocol."""
    lower = name.lower()
    return ":authority" if lower == "host" else lower


def _value(match: ValueMatch) -> Any:
    return exact(match.value) if match.type == "Exact" else regex(match.value)
