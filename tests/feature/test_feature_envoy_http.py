"""HTTP routing in real Envoy: matching, backends and weights, headers, rewrites, redirects, limits."""

import http.client
import re
import socket
import time

import pytest

from propylon import api
from propylon.envoy import EnvoySettings
from propylon.graph.model import (
    BackendRef,
    Endpoint,
    Finding,
    Match,
    Mirror,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Retry,
    Rewrite,
    Timeouts,
    ValueMatch,
)
from support.envoy_proxy import free_port, wait_for
from support.envoy_site import Site, a, b, c, nowhere
from support.envoy_world import cluster_key, entry, listener, ref

pytestmark = pytest.mark.feature


@pytest.fixture(scope="module")
def site():
    each = Site(EnvoySettings(access_log=True, connect_timeout=0.5))
    yield each
    each.close()


def modifier(set=(), add=(), remove=()):  # noqa: A002
    pairs = [tuple(api.HTTPHeader(k, v) for k, v in part) for part in (set, add)]
    return api.HTTPHeaderFilter(set=pairs[0], add=pairs[1], remove=tuple(remove))


def within(count, times, share):
    """Six standard deviations: one false alarm in 10^9."""
    return abs(count - times * share) <= 6 * (times * share * (1 - share)) ** 0.5


# --- matching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "taken", "refused"),
    [
        (Match("/a"), ["/a", "/a/", "/a/b", "/a?q=1", "/a/../a/x"], ["/", "/ab", "/A", "/b/a"]),
        (Match("/a/"), ["/a", "/a/", "/a/b"], ["/ab"]),
        (Match("/"), ["/", "/x", "//x", "/x%2Fy"], []),
        (Match("/a.b(c"), ["/a.b(c/d"], ["/aXb(c"]),
        (Match("/a", "Exact"), ["/a", "/a?q=1"], ["/a/", "/A", "/a/b"]),
        (Match("/a/[0-9]+", "RegularExpression"), ["/a/12", "/a/1?x=y"], ["/a/", "/a/1x", "/x/a/1"]),
    ],
)
def test_paths(site, match, taken, refused):
    host = site.serve(entry(match, backends=(a,)))
    assert {path: site.ask(host, path).status for path in taken + refused} == {
        **dict.fromkeys(taken, 200),
        **dict.fromkeys(refused, 404),
    }


def test_method_headers_and_query_must_all_hold(site):
    match = Match(
        "/",
        method="GET",
        headers=(ValueMatch("x-one", "1"), ValueMatch("x-two", "b+", "RegularExpression")),
        query=(ValueMatch("q", "v"), ValueMatch("r", "[0-9]", "RegularExpression")),
    )
    host = site.serve(entry(match, backends=(a,)))
    good = {"X-One": "1", "X-Two": "bb"}

    def status(path="/?q=v&r=1", headers=good, method="GET"):
        return site.ask(host, path, method, headers).status

    assert status() == 200
    assert status(method="HEAD") == status(method="POST") == 404
    assert status(headers={"X-One": "1"}) == status(headers={**good, "X-Two": "bbc"}) == 404
    assert status(headers={**good, "X-One": "12"}) == 404
    assert status("/?q=v") == status("/?q=V&r=1") == status("/?q=v&r=11") == 404


def test_of_repeated_headers_one_has_to_match(site):
    host = site.serve(entry(Match(headers=(ValueMatch("x-one", "2"),)), backends=(a,)))
    assert site.ask(host, headers=[("X-One", "1"), ("X-One", "2")]).status == 200
    assert site.ask(host, headers=[("X-One", "1")]).status == 404


def test_a_host_header_can_be_matched(site):
    match = Match(headers=(ValueMatch("host", ".*:81", "RegularExpression"),))
    host = site.serve(entry(match, backends=(a,)), entry(backends=(b,)))
    assert site.ask(f"{host}:81").seen["backend"] == "a"
    assert site.ask(host).seen["backend"] == "b"


def test_first_entry_wins_even_if_it_leads_nowhere(site):
    host = site.serve(entry(backends=(nowhere,)), entry(backends=(a,)))
    assert site.ask(host).status == 500


def test_hosts(site):
    """Port and case do not matter and reach the backend as sent; exact, then the longest wildcard, then nothing."""
    site.serve(entry(backends=(a,)), host="exact.example.test")
    site.serve(entry(backends=(b,)), host="*.example.test")
    site.serve(entry(backends=(c,)), host="*.deep.example.test")
    answers = {
        host: site.ask(host)
        for host in ("exact.example.test:1234", "EXACT.example.test", "x.example.test", "y.x.example.test")
    }
    assert [answer.seen["backend"] for answer in answers.values()] == ["a", "a", "b", "b"]
    assert [answer.seen["headers"]["host"] for answer in answers.values()] == list(answers)
    assert site.ask("z.deep.example.test").seen["backend"] == "c"
    assert site.ask("exact.example.test.").seen["backend"] == "a"
    assert site.ask("example.test").status == 404
    assert site.ask("elsewhere.test").status == 404


def test_an_empty_virtual_host_hides_a_wider_one(site):
    site.serve(entry(backends=(a,)), host="*.wide.test")
    site.serve(host="narrow.wide.test")
    assert site.ask("narrow.wide.test").status == 404
    assert site.ask("other.wide.test").status == 200


def test_listener_isolation_without_routes():
    """A hostname that a listener claims answers 404 although a wider listener of the port has routes."""
    port = free_port()
    each = Site()
    try:
        wide, narrow = listener("wide", "HTTP", port), listener("narrow", "HTTP", port, "narrow.test")
        each.world.port(wide, narrow)
        each.world.host(wide, "*", entry(backends=(a,)))
        each.proxy.apply(each.world)
        each.port = port
        assert each.ask("narrow.test").status == 404
        assert each.ask("other.test").status == 200
    finally:
        each.close()


# --- backends and weights ---------------------------------------------------------------------------------------------


def test_weights_with_a_share_that_leads_nowhere(site):
    host = site.serve(entry(backends=(ref("a", 5), ref("b", 3), ref(None, 2), ref("c", 0))))
    counts = site.counts(host, 500)
    assert set(counts) == {"a", "b", 500}
    assert within(counts["a"], 500, 0.5)
    assert within(counts["b"], 500, 0.3)
    assert within(counts[500], 500, 0.2)


def test_no_backend_is_500_and_no_endpoint_503(site):
    site.world.backend("empty")
    assert site.ask(site.serve(entry(backends=()))).status == 500
    assert site.ask(site.serve(entry(backends=(ref("a", 0),)))).status == 500
    assert site.ask(site.serve(entry(backends=(nowhere,)))).status == 500
    assert site.ask(site.serve(entry(backends=(ref("empty"),)))).status == 503
    finding = Finding("Accepted", "UnsupportedValue", "")
    assert site.ask(site.serve(entry(backends=(a,), finding=finding))).status == 500


def test_endpoints_change_alone(site):
    site.world.backend("moving", site.backends["a"].port)
    host = site.serve(entry(backends=(ref("moving"),)))
    assert site.ask(host).seen["backend"] == "a"
    site.world.backend("moving", site.backends["b"].port)
    site.proxy.apply(site.world)
    wait_for(lambda: site.ask(host).seen["backend"] == "b", "the new endpoint")


def test_draining_endpoints_serve_only_if_nothing_else_is_left(site):
    key = site.world.backend("draining").backend
    ports = {name: backend.port for name, backend in site.backends.items()}
    drain_a, drain_b = (Endpoint("127.0.0.1", ports[name], draining=True) for name in "ab")
    site.world.graph.endpoints.set(key, (drain_a, Endpoint("127.0.0.1", ports["c"])))
    host = site.serve(entry(backends=(ref("draining"),)))
    assert site.counts(host, 20) == {"c": 20}
    site.world.graph.endpoints.set(key, (drain_a, drain_b))
    site.proxy.apply(site.world)
    wait_for(lambda: set(site.counts(host, 20)) == {"a", "b"}, "draining endpoints to take over")


def test_a_backend_by_name(site):
    site.world.backend("by-name", discovery="DNS", dns_name="localhost", port=site.backends["a"].port)
    host = site.serve(entry(backends=(BackendRef(1, cluster_key("by-name", port=site.backends["a"].port)),)))
    answer = wait_for(lambda: (r := site.ask(host)).status == 200 and r, "name resolution")
    assert answer.seen["headers"]["host"] == host


def test_endpoints_given_by_name(site):
    """Such as `--backend` takes; back to IPs the cluster is discovered again."""
    port = site.backends["a"].port
    site.world.backend("given", ("localhost", port))
    host = site.serve(entry(backends=(ref("given"),)))
    wait_for(lambda: site.ask(host).status == 200, "name resolution")
    site.world.backend("given", site.backends["b"].port)
    site.proxy.apply(site.world)
    wait_for(lambda: site.ask(host).seen["backend"] == "b", "the endpoint by IP")


# --- headers ----------------------------------------------------------------------------------------------------------


def test_request_headers(site):
    change = modifier(
        set=[("X-Set", "new"), ("X-Percent", "100%"), ("Host", "evil.test")], add=[("X-Add", "two")], remove=["X-Gone"]
    )
    host = site.serve(entry(filters=(RequestHeaders(change),), backends=(a,)))
    sent = [("X-Set", "old"), ("X-Add", "one"), ("X-Gone", "1"), ("X-Kept", "1")]
    seen = site.ask(host, headers=sent).seen["headers"]
    assert (seen["x-set"], seen["x-add"], seen["x-percent"], seen["x-kept"]) == ("new", "one,two", "100%", "1")
    assert "x-gone" not in seen
    assert seen["host"] == host
    seen = site.ask(host).seen["headers"]
    assert (seen["x-set"], seen["x-add"]) == ("new", "two")


def test_impossible_headers_cost_nobody_the_table(site):
    """Envoy would refuse the whole RouteConfiguration."""
    change = modifier(
        set=[("X-Break", "a\nb"), ("X Y", "1"), (":path", "/"), ("X-Good", "1")], remove=["host", ":method"]
    )
    host = site.serve(entry(filters=(RequestHeaders(change), ResponseHeaders(change)), backends=(a,)))
    answer = site.ask(host)
    assert (answer.headers["x-good"], answer.seen["headers"]["x-good"]) == ("1", "1")


def test_response_headers(site):
    change = modifier(set=[("X-Backend", "hidden")], add=[("X-Add", "two"), ("X-New", "n")], remove=["Server"])
    host = site.serve(entry(filters=(ResponseHeaders(change),), backends=(a,)))
    headers = site.ask(host, "/?header=X-Add:one").headers
    assert (headers["x-backend"], headers["x-add"], headers["x-new"]) == ("hidden", "one, two", "n")
    assert "server" not in headers


def test_headers_of_one_backend_have_the_last_word(site):
    of_rule = RequestHeaders(modifier(set=[("X-Who", "rule")], add=[("X-All", "rule")]))
    of_a = RequestHeaders(modifier(set=[("X-Who", "backend")], add=[("X-All", "backend")]))
    answers_of_a = ResponseHeaders(modifier(set=[("X-From", "a")]))
    host = site.serve(entry(filters=(of_rule,), backends=(ref("a", 1, (of_a, answers_of_a)), b)))
    found = {}
    wait_for(lambda: found.update({(r := site.ask(host)).seen["backend"]: r}) or len(found) == 2, "both backends")
    seen = {name: answer.seen["headers"] for name, answer in found.items()}
    assert (seen["a"]["x-who"], seen["a"]["x-all"]) == ("backend", "rule,backend")
    assert (seen["b"]["x-who"], seen["b"]["x-all"]) == ("rule", "rule")
    assert found["a"].headers["x-from"] == "a"
    assert "x-from" not in found["b"].headers
    alone = site.serve(entry(filters=(of_rule,), backends=(ref("a", 1, (of_a,)),)))
    assert site.ask(alone).seen["headers"]["x-who"] == "backend"


# --- rewrites ---------------------------------------------------------------------------------------------------------


def full(path):
    return api.HTTPPathModifier("ReplaceFullPath", replace_full_path=path)


def prefix(path):
    return api.HTTPPathModifier("ReplacePrefixMatch", replace_prefix_match=path)


@pytest.mark.parametrize(
    ("matched", "path", "sent", "received"),
    [
        ("/full", full("/one"), "/full/a/b?q=1", "/one?q=1"),
        ("/p", prefix("/q"), "/p/a", "/q/a"),
        ("/p", prefix("/q"), "/p", "/q"),
        ("/p", prefix("/q"), "/p?x=/p", "/q?x=/p"),
        ("/p", prefix("/q/"), "/p/a", "/q/a"),
        ("/p/", prefix("/q"), "/p/a", "/q/a"),
        ("/strip", prefix("/"), "/strip/a", "/a"),
        ("/strip", prefix("/"), "/strip", "/"),
        ("/strip", prefix("/"), "/strip/", "/"),
        ("/strip", prefix(""), "/strip/a", "/a"),
        ("/", prefix("/base"), "/a", "/base/a"),
        ("/", prefix("/base"), "/", "/base/"),
        ("/a.b+c", prefix("/x\\1"), "/a.b+c/d", "/x\\1/d"),
        ("/same", prefix("/same"), "/same/d", "/same/d"),
        ("/enc", prefix("/e"), "/enc/a%2Fb//c", "/e/a%2Fb//c"),
    ],
)
def test_path_rewrite(site, matched, path, sent, received):
    host = site.serve(entry(Match(matched), filters=(Rewrite(api.HTTPURLRewriteFilter(path=path)),), backends=(a,)))
    assert site.ask(host, sent).seen["path"] == received


def test_host_rewrite(site):
    host = site.serve(
        entry(filters=(Rewrite(api.HTTPURLRewriteFilter(hostname="one.example.org", path=full("/x"))),), backends=(a,))
    )
    seen = site.ask(host, "/y").seen
    assert (seen["headers"]["host"], seen["path"]) == ("one.example.org", "/x")


def test_rewrites_of_single_backends_keep_the_weights(site):
    """Envoy's weighted cluster cannot rewrite paths."""
    filters = [(Rewrite(api.HTTPURLRewriteFilter(path=full(f"/{n}"))),) for n in "ab"]
    set_header = RequestHeaders(modifier(add=[("X-Once", "1")]))
    host = site.serve(
        entry(
            Match("/p"),
            backends=(
                ref("a", 5, filters[0]),
                ref("b", 2, filters[1]),
                ref("c", 2, (set_header,)),
                ref(None, 1, filters[0]),
            ),
        )
    )
    counts = {}
    for _ in range(500):
        answer = site.ask(host, "/p/z")
        key = (answer.seen["backend"], answer.seen["path"]) if answer.status == 200 else answer.status
        counts[key] = counts.get(key, 0) + 1
        if answer.status == 200 and answer.seen["backend"] == "c":
            assert answer.seen["headers"]["x-once"] == "1"
    assert set(counts) == {("a", "/a"), ("b", "/b"), ("c", "/p/z"), 500}
    shares = [(("a", "/a"), 0.5), (("b", "/b"), 0.2), (("c", "/p/z"), 0.2), (500, 0.1)]
    assert all(within(counts[key], 500, share) for key, share in shares), counts


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirect", "sent", "location"),
    [
        ({}, "/a?q=1", "http://HOST:PORT/a?q=1"),
        ({"scheme": "https"}, "/a", "https://HOST/a"),
        ({"scheme": "https", "port": 8443}, "/a", "https://HOST:8443/a"),
        ({"port": 80}, "/a", "http://HOST/a"),
        ({"port": 8080, "hostname": "x.org"}, "/a", "http://x.org:8080/a"),
        ({"hostname": "x.org"}, "/a", "http://x.org:PORT/a"),
        ({"hostname": "x.org", "scheme": "https", "port": 443}, "/a", "https://x.org/a"),
        ({"path": full("/new")}, "/p/a?q=1", "http://HOST:PORT/new?q=1"),
        ({"path": prefix("/")}, "/p/a?q=1", "http://HOST:PORT/a?q=1"),
        ({"path": prefix("/")}, "/p", "http://HOST:PORT/"),
        ({"path": prefix("/n"), "scheme": "https"}, "/p/a", "https://HOST/n/a"),
    ],
)
@pytest.mark.parametrize("wildcard", [False, True])
def test_redirect(site, redirect, sent, location, wildcard):
    matched = "/p" if "path" in redirect else "/"
    rule = entry(Match(matched), filters=(Redirect(api.HTTPRequestRedirectFilter(**redirect)),))
    if wildcard:
        site.serve(rule, host="*.redirect.test")
        host = "www.redirect.test"
    else:
        host = site.serve(rule)
    expected = location.replace("HOST", host).replace("PORT", str(site.port))
    for asked in (f"{host}:{site.port}", host):
        answer = site.ask(asked, sent)
        assert answer.status == 302
        # Of a host known from the request alone the port can be replaced, not taken away.
        superfluous = re.sub(
            r"^(http://[^:/]+):80(?=/)|^(https://[^:/]+):443(?=/)", r"\1\2", answer.headers["location"]
        )
        assert (superfluous if wildcard and asked != host else answer.headers["location"]) == expected


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_codes(site, code):
    filters = (Redirect(api.HTTPRequestRedirectFilter(hostname="x.org", status_code=code)),)
    assert site.ask(site.serve(entry(filters=filters))).status == code


# --- mirrors ----------------------------------------------------------------------------------------------------------


def mirrored(backend, host):
    return sum(1 for _, _, headers in backend.requests if headers["host"] == host)


def test_mirrors(site):
    """Several, shares of requests, one that leads nowhere; the copies carry the same host."""
    some = Mirror(b, 1, 4)
    host = site.serve(entry(filters=(some, Mirror(c), Mirror(nowhere)), backends=(a,)))
    assert site.counts(host, 200) == {"a": 200}
    wait_for(lambda: mirrored(site.backends["c"], host) == 200, "every copy")
    assert within(mirrored(site.backends["b"], host), 200, 0.25)


def test_mirrors_of_one_backend(site):
    host = site.serve(entry(backends=(ref("a", 1, (Mirror(c),)), ref("b", 1))))
    counts = site.counts(host, 100)
    wait_for(lambda: mirrored(site.backends["c"], host) >= counts["a"], "copies of a's requests")
    assert mirrored(site.backends["c"], host) == counts["a"]


# --- time limits and retries ------------------------------------------------------------------------------------------


def test_timeouts(site):
    limited = site.serve(entry(timeouts=Timeouts(request=0.2), backends=(a,)))
    per_try = site.serve(entry(timeouts=Timeouts(backend_request=0.2), backends=(a,)))
    off = site.serve(entry(timeouts=Timeouts(request=0.0, backend_request=0.0), backends=(a,)))
    assert site.ask(limited, "/?delay=2").status == 504
    assert site.ask(limited).status == 200
    assert site.ask(per_try, "/?delay=2").status == 504
    assert site.ask(off, "/?delay=0.5").status == 200


def tries(site, host, name="a"):
    return mirrored(site.backends[name], host)


def test_retries_of_codes(site):
    host = site.serve(entry(retry=Retry(3, (500, 503), 0.01), backends=(a,)))
    assert site.ask(host, "/?status=500&fail=3&id=r1").status == 200
    assert tries(site, host) == 4
    assert site.ask(host, "/?status=503").status == 503
    assert tries(site, host) == 8
    assert site.ask(host, "/?status=502").status == 502
    assert tries(site, host) == 9


def test_no_retries(site):
    host = site.serve(entry(retry=Retry(0, (500,)), backends=(a,)))
    assert site.ask(host, "/?status=500").status == 500
    assert tries(site, host) == 1


def test_retries_where_nobody_listens(site):
    """Two endpoints, of which one refuses: every request succeeds, with no code listed."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        site.world.backend("half", site.backends["a"].port, closed.getsockname()[1])
        host = site.serve(entry(retry=Retry(100), backends=(ref("half"),)))
        assert site.counts(host, 20) == {"a": 20}


def test_retries_within_the_time_limit(site):
    host = site.serve(entry(retry=Retry(5, (500,), 0.01), timeouts=Timeouts(request=0.5), backends=(a,)))
    assert site.ask(host, "/?status=500&fail=1&id=r2").status == 200
    assert site.ask(host, "/?status=500&delay=0.3").status == 504


def test_retries_of_tries_that_took_too_long(site):
    limits = Timeouts(request=15, backend_request=0.2)
    host = site.serve(entry(retry=Retry(2, (504,), 0.01), timeouts=limits, backends=(a,)))
    assert site.ask(host, "/?delay=3").status == 504
    assert tries(site, host) == 3


# --- the edge ---------------------------------------------------------------------------------------------------------


def test_nobody_outside_is_internal(site):
    """Envoy's own headers neither reach the backend nor command the proxy."""
    host = site.serve(entry(backends=(a,)))
    forged = {
        "X-Envoy-Internal": "true",
        "X-Envoy-Upstream-Rq-Timeout-Ms": "100",
        "X-Envoy-Retry-On": "5xx",
        "X-Envoy-Max-Retries": "5",
        "X-Envoy-Original-Path": "/forged",
        "X-Envoy-Decorator-Operation": "forged",
    }
    answer = site.ask(host, "/?delay=0.4", headers=forged)
    assert answer.status == 200
    received = {name for name in answer.seen["headers"] if name.startswith("x-envoy")}
    assert received <= {"x-envoy-external-address"}
    before = tries(site, host)
    assert site.ask(host, "/?status=503", headers=forged).status == 503
    assert tries(site, host) == before + 1
    assert not [name for name in answer.headers if name.startswith("x-envoy")]


def test_what_a_backend_learns_of_the_client(site):
    host = site.serve(entry(backends=(a,)))
    answer = site.ask(
        host, headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Request-Id": "mine"}
    )
    seen = answer.seen["headers"]
    assert seen["x-forwarded-for"] == "127.0.0.1", "what the client claims is gone"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-request-id"] == "mine"
    assert answer.headers["server"] == "test-backend"
    assert re.fullmatch("[-0-9a-f]{36}", site.ask(host).seen["headers"]["x-request-id"])


def test_paths_arrive_as_sent_but_for_dots(site):
    host = site.serve(entry(Match("/admin"), backends=(b,)), entry(backends=(a,)))
    assert site.ask(host, "/a//b%2Fc;d=e?x=%20").seen["path"] == "/a//b%2Fc;d=e?x=%20"
    seen = site.ask(host, "/x/../admin/y").seen
    assert (seen["backend"], seen["path"]) == ("b", "/admin/y")
    assert site.ask(host, "/x/%2e%2e/admin").seen["backend"] == "b"


def test_names_with_underscores_pass(site):
    host = site.serve(entry(Match(headers=(ValueMatch("x_y", "1"),)), backends=(a,)))
    assert site.ask(host, headers={"X_Y": "1"}).seen["headers"]["x_y"] == "1"


def test_one_access_log_line_a_request(site):
    host = site.serve(entry(backends=(a,)))
    site.ask(host, "/logged?x=1")
    line = wait_for(
        lambda: next((line for line in site.proxy.log.read_text().splitlines() if host in line), None), "the line", 30
    )
    assert f"GET {host} /logged?x=1 HTTP/1.1 200 - 0 " in line
    assert "HTTPRoute/default/route/0" in line


def test_websockets(site):
    host = site.serve(entry(timeouts=Timeouts(request=0.2), backends=(a,)))
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as s:
        s.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
        assert head.startswith(b"HTTP/1.1 101")
        for message in (b"one", b"two"):
            s.sendall(message)
            assert s.recv(10) == message
            # Longer than the request's limit, which is not for what an upgrade becomes.
            time.sleep(0.25)


def test_connections_are_kept(site):
    host = site.serve(entry(backends=(a,)))
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.connect()
    own = connection.sock.getsockname()
    for _ in range(3):
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().read()
        assert connection.sock.getsockname() == own
    connection.close()


def test_thousands_of_virtual_hosts():
    each = Site()
    try:
        for i in range(2000):
            each.world.host(each.listener, f"h{i}.example.test", entry(Match(f"/{i}"), backends=(a,)))
        each.proxy.apply(each.world)
        assert each.ask("h0.example.test", "/0").status == 200
        assert each.ask("h1999.example.test", "/1999/x").status == 200
        assert each.ask("h1999.example.test", "/0").status == 404
    finally:
        each.close()
