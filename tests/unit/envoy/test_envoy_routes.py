"""Pure parts of routes: matches, paths, redirects, headers, retries, CORS patterns."""

import pytest
import re2
from envoy.config.route.v3 import route_components_pb2 as route_pb
from hypothesis import given, settings
from hypothesis import strategies as st

from propylon import api
from propylon.envoy import names
from propylon.envoy.header_mutation import apply_header_filters
from propylon.envoy.http_filters.cors import origin_pattern
from propylon.envoy.http_filters.ext_authz import all_but
from propylon.envoy.http_filters.mirror import fraction
from propylon.envoy.matcher import build_route_match
from propylon.envoy.path import build_regex_rewrite
from propylon.envoy.redirect import Location, Place, locate
from propylon.envoy.retry import build_retry_policy
from propylon.envoy.route import build_routes
from propylon.graph.model import (
    Finding,
    Match,
    Mirror,
    Redirect,
    RequestHeaders,
    Retry,
    Rewrite,
    Rule,
    Timeouts,
    ValueMatch,
)
from support.envoy_world import entry, ref

PLACE = Place("http", 80, 0, "example.test")


def test_a_match_needs_all_its_conditions():
    match = Match(
        "/a", method="GET", headers=(ValueMatch("host", "x"),), query=(ValueMatch("q", ".", "RegularExpression"),)
    )
    out = build_route_match(match)
    assert out.path_separated_prefix == "/a"
    assert [(h.name, h.string_match.exact) for h in out.headers] == [(":method", "GET"), (":authority", "x")]
    assert [(q.name, q.string_match.safe_regex.regex) for q in out.query_parameters] == [("q", ".")]


@pytest.mark.parametrize(
    ("path", "kind", "field", "value"),
    [
        ("/", "PathPrefix", "prefix", "/"),
        ("/a/", "PathPrefix", "path_separated_prefix", "/a"),
        ("/a/", "Exact", "path", "/a/"),
    ],
)
def test_path_specifiers(path, kind, field, value):
    out = build_route_match(Match(path, kind))
    assert (out.WhichOneof("path_specifier"), getattr(out, field)) == (field, value)


segments = st.lists(st.text("ab.+*(%\\$^~-_", min_size=1, max_size=4), max_size=4)


def rewritten(path, modifier, match):
    rewrite = build_regex_rewrite(modifier, match)
    if rewrite is None:
        return path
    return re2.compile(rewrite.pattern.regex).sub(rewrite.substitution, path)


@given(prefix=segments, rest=segments, new=segments, slash=st.booleans(), new_slash=st.booleans(), end=st.booleans())
@settings(max_examples=100, deadline=None)
def test_prefixes_are_replaced_by_segments(prefix, rest, new, slash, new_slash, end):
    """Whatever the prefix and the replacement, exactly one slash joins the replacement and the rest."""
    path = "/" + "/".join([*prefix, *rest]) + ("/" if end and (prefix or rest) else "")
    matched = "/" + "/".join(prefix) + ("/" if slash and prefix else "")
    replacement = "/" + "/".join(new) + ("/" if new_slash and new else "")
    modifier = api.HTTPPathModifier("ReplacePrefixMatch", replace_prefix_match=replacement)
    kept = path[len("/" + "/".join(prefix)) :] if prefix else path
    expected = replacement.rstrip("/") + kept
    assert rewritten(path, modifier, Match(matched)) == (expected or "/")


@given(path=segments, new=segments)
@settings(max_examples=100, deadline=None)
def test_full_paths_are_replaced_whole(path, new):
    modifier = api.HTTPPathModifier("ReplaceFullPath", replace_full_path="/" + "/".join(new))
    assert rewritten("/" + "/".join(path), modifier, Match()) == "/" + "/".join(new)


HTTPS = Place("https", 443, 0, "example.test")


@pytest.mark.parametrize(
    ("redirect", "place", "location"),
    [
        ({}, PLACE, ("http", "example.test", 0)),
        ({}, HTTPS, ("https", "example.test", 0)),
        ({}, PLACE._replace(port=8080), ("http", "example.test", 8080)),
        ({}, PLACE._replace(hostname="*.test"), ("http", "", 0)),
        ({"scheme": "https"}, PLACE, ("https", "example.test", 0)),
        ({"scheme": "https"}, PLACE._replace(port=8080), ("https", "example.test", 0)),
        ({"scheme": "http"}, HTTPS, ("http", "example.test", 0)),
        ({"scheme": "https", "port": 80}, PLACE, ("https", "example.test", 80)),
        ({"port": 443}, PLACE, ("http", "example.test", 443)),
        ({"port": 443}, HTTPS, ("https", "example.test", 0)),
        ({"hostname": "o.test"}, PLACE._replace(port=8080), ("http", "o.test", 8080)),
        ({"scheme": "https"}, PLACE._replace(port_offset=8000), ("https", "example.test", 8443)),
        ({"scheme": "https", "hostname": "o.test"}, PLACE._replace(port_offset=8000), ("https", "o.test", 0)),
    ],
)
def test_where_redirects_lead(redirect, place, location):
    assert locate(api.HTTPRequestRedirectFilter(**redirect), place) == Location(*location)


def test_a_port_is_taken_off_where_the_host_is_known_from_the_request_only():
    redirect = Redirect(api.HTTPRequestRedirectFilter(scheme="https"))
    routes = build_routes(entry(filters=(redirect,)), PLACE._replace(hostname="*", port=8080))
    assert [(r.redirect.port_redirect, len(r.match.headers)) for r in routes] == [(443, 1), (0, 0)]
    pattern = re2.compile(routes[0].match.headers[0].string_match.safe_regex.regex)
    assert [bool(pattern.fullmatch(h)) for h in ("a.test:8080", "[::1]:80", "a.test", "[::1]")] == [
        True,
        True,
        False,
        False,
    ]


def test_an_earlier_filters_header_can_be_removed_by_a_later_one():
    route = route_pb.Route()
    first = api.HTTPHeaderFilter(set=(api.HTTPHeader("X-A", "1"), api.HTTPHeader("X-B", "50%")))
    apply_header_filters(route, [RequestHeaders(first), RequestHeaders(api.HTTPHeaderFilter(remove=("x-a", "Host")))])
    assert [(h.header.key, h.header.value) for h in route.request_headers_to_add] == [("x-b", "50%%")]
    assert list(route.request_headers_to_remove) == ["x-a"]


def test_shares_are_cumulative():
    filters = (Rewrite(api.HTTPURLRewriteFilter(hostname="x.test")),)
    backends = (ref("a", 1, filters), ref("b", 1), ref("c", 0), ref("d", 2))
    routes = build_routes(entry(match=Match(path="/a"), backends=backends), PLACE)
    assert [r.match.runtime_fraction.default_value.numerator for r in routes] == [250_000, 500_000, 0]
    assert not routes[-1].match.HasField("runtime_fraction")
    assert [r.route.cluster for r in routes] == [names.cluster(each.cluster) for each in backends if each.weight]
    assert [r.route.host_rewrite_literal for r in routes] == ["x.test", "", ""]


def test_a_rule_that_cannot_be_served_answers_500_or_unavailable():
    finding = Finding("Accepted", "UnsupportedValue", "")
    for kind, status in (("HTTPRoute", 500), ("GRPCRoute", 503)):
        (route,) = build_routes(entry(kind=kind, backends=(ref("a"),), finding=finding), PLACE)
        assert route.direct_response.status == status
        (route,) = build_routes(entry(kind=kind, backends=(ref(None),)), PLACE)
        assert route.direct_response.status == status


def test_there_is_no_time_limit_unless_asked_for():
    (route,) = build_routes(entry(match=Match(path="/a"), backends=(ref("a"),)), PLACE)
    assert route.route.HasField("timeout")
    assert (route.route.timeout.seconds, route.route.HasField("retry_policy")) == (0, False)


def retry_policy(grpc=False, **rule):
    return build_retry_policy(Rule(0, None, (), **rule), grpc=grpc)


def test_retry_policies():
    assert retry_policy() is None
    assert retry_policy(retry=Retry(0, (500,))) is None
    assert retry_policy(timeouts=Timeouts(backend_request=0.0)) is None
    limit = retry_policy(timeouts=Timeouts(backend_request=1.5))
    assert (limit.per_try_timeout.nanos, limit.num_retries.value, limit.retry_on) == (500_000_000, 0, "")
    codes = retry_policy(retry=Retry(3, (500, 502), 0.1))
    assert codes.retry_on == "connect-failure,refused-stream,retriable-status-codes"
    assert (list(codes.retriable_status_codes), codes.num_retries.value) == ([500, 502], 3)
    assert codes.retry_back_off.base_interval.nanos == 100_000_000
    assert retry_policy(retry=Retry(3)).retry_on == "connect-failure,refused-stream"
    assert retry_policy(grpc=True, retry=Retry(3)).retry_on.endswith(",unavailable")
    both = retry_policy(retry=Retry(1, (504,)), timeouts=Timeouts(backend_request=1))
    assert both.retry_on.endswith(",reset")
    assert "reset" not in retry_policy(retry=Retry(1, (504,))).retry_on


@pytest.mark.parametrize(
    ("origins", "taken", "refused"),
    [
        (("*",), ["https://a.test", "http://b:81", "null"], []),
        (
            ("https://a.test",),
            ["https://a.test", "https://a.test:443"],
            ["https://a.test:444", "https://aXtest", "http://a.test"],
        ),
        (("http://a.test:81",), ["http://a.test:81"], ["http://a.test", "http://a.test:8"]),
        (
            ("https://*.a.test",),
            ["https://x.a.test", "https://x.y.a.test"],
            ["https://a.test", "https://evil/.a.test", "https://evil:1.a.test"],
        ),
        (("https://*",), ["https://a.test", "https://a.test:81"], ["http://a.test"]),
        (("https://*:81",), ["https://a.test:81"], ["https://a.test"]),
        (("http://a.test", "https://b.test"), ["http://a.test", "https://b.test"], ["https://a.test"]),
    ],
)
def test_origins(origins, taken, refused):
    pattern = re2.compile(origin_pattern(origins))
    assert [o for o in taken + refused if pattern.fullmatch(o)] == taken


@given(st.text("acehnopstu-:", max_size=8))
@settings(max_examples=60, deadline=None)
def test_all_headers_but_some(name):
    excluded = ("host", "te", "content", "connection")
    pattern = re2.compile(all_but(excluded))
    for each in (name, *(word + name for word in excluded), *(word[:-1] for word in excluded)):
        assert bool(pattern.fullmatch(each)) == (each not in excluded and not each.startswith(":") and each != "")


def test_fractions_have_millionths():
    assert (fraction(1, 3).numerator, fraction(5, 2).numerator, fraction(0, 1).numerator) == (333_333, 1_000_000, 0)
    (route,) = build_routes(entry(match=Match(path="/a"), filters=(Mirror(ref(None)),), backends=(ref("a"),)), PLACE)
    assert not route.route.request_mirror_policies


def test_grpc_calls_by_an_http_route_go_over_http2():
    calls, pages = build_routes(entry(backends=(ref("a"),)), PLACE)
    assert [(h.name, h.string_match.prefix) for h in calls.match.headers] == [("content-type", "application/grpc")]
    assert calls.route.cluster.endswith("/GRPC")
    assert pages.route.cluster.endswith("/HTTP")
    assert not pages.match.headers
    assert set(calls.typed_per_filter_config) == {names.ON_DEMAND}
    assert not pages.typed_per_filter_config
