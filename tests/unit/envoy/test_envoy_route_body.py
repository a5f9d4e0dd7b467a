"""Virtual hosts put together from parts have the very bytes of those that are built."""

import pytest

from propylon import api
from propylon.envoy.redirect import Place
from propylon.envoy.route_body import _forms_of
from propylon.envoy.virtual_host import as_fragment, build_virtual_host, virtual_host_fragments
from propylon.graph.model import (
    Cors,
    Finding,
    Match,
    Redirect,
    RequestHeaders,
    Retry,
    Rewrite,
    Session,
    Timeouts,
    ValueMatch,
    VirtualHost,
    VirtualHostKey,
)
from support.diff_generator import PORTS, certificate, snapshot
from support.envoy_world import entry, listener, ref, table_of
from support.explain_generator import Generator

PLACES = (Place("http", 8080, 0, "shop.test"), Place("https", 443, 10_000, "*.test"))
HEADERS = api.HTTPHeaderFilter(set=(api.HTTPHeader("x-a", "1"),), remove=("x-b",))
FILTERS = (
    (),
    (RequestHeaders(HEADERS),),
    (Redirect(api.HTTPRequestRedirectFilter(hostname="other.test")),),
    (Redirect(api.HTTPRequestRedirectFilter(scheme="https")),),
    (Rewrite(api.HTTPURLRewriteFilter(path=api.HTTPPathModifier("ReplacePrefixMatch", replace_prefix_match="/b"))),),
    (Rewrite(api.HTTPURLRewriteFilter(hostname="other.test")),),
    (Cors(api.HTTPCORSFilter(allow_origins=("https://a.test",))),),
)
BACKENDS = (
    (),
    (ref("s"),),
    (ref("s" * 120),),
    (ref("s", protocol="HTTP2"),),
    (ref("s", weight=0),),
    (ref("s", filters=(RequestHeaders(HEADERS),)),),
    (ref("s", weight=3), ref("t", weight=7)),
)
RULES = (
    {},
    {"timeouts": Timeouts(1.5, 0.5)},
    {"retry": Retry(2, (500, 503), 0.1)},
    {"session": Session("Cookie", "c")},
    {"finding": Finding("ResolvedRefs", "InvalidKind", "no")},
)
MATCHES = (
    Match(),
    Match("/a"),
    Match("/a" * 100, "Exact", "POST", (ValueMatch("x", "1"),), (ValueMatch("q", "a.*", "RegularExpression"),)),
)


def agree(host, place):
    made = virtual_host_fragments(host, place, (False, True))
    assert made == [as_fragment(build_virtual_host(host, place, final=final)) for final in (False, True)]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("backends", BACKENDS)
def test_every_kind_of_rule(filters, backends):
    at = listener("http", "HTTP", 80)
    for kind in ("HTTPRoute", "GRPCRoute"):
        for place in PLACES:
            entries = tuple(
                entry(match, kind, f"r{number}", filters=filters, backends=backends, **rule)
                for match in MATCHES
                for number, rule in enumerate(RULES)
            )
            agree(VirtualHost(VirtualHostKey(table_of(at), place.hostname), entries), place)


@pytest.mark.parametrize("seed", range(20))
def test_random_worlds(seed, tmp_path):
    documents = Generator(seed, PORTS, wide=True).manifests(certificate())
    for key, host in snapshot(documents, tmp_path).graph.virtual_hosts.items():
        agree(host, Place("https" if key.table.listener else "http", key.table.port, 0, key.hostname))


def test_names_alone_differ_in_most_routes():
    for filters in FILTERS[:-1]:
        for backends in BACKENDS[:3]:
            assert _forms_of(entry(filters=filters, backends=backends), PLACES[0]) is not None
