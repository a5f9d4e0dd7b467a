"""HTTP filters in real Envoy: CORS, sessions, external authorization."""

from concurrent import futures

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2

from propylon import api
from propylon.graph.model import Cors, Match, Redirect, Session
from support.authorizers import HttpAuthorizer, external
from support.envoy_proxy import wait_for
from support.envoy_site import Site, a, b
from support.envoy_world import entry, ref

pytestmark = pytest.mark.feature


@pytest.fixture(scope="module")
def site():
    each = Site()
    yield each
    each.close()


# --- CORS -------------------------------------------------------------------------------------------------------------


def cors(*origins, **more):
    return Cors(api.HTTPCORSFilter(allow_origins=origins, **more))


def preflight(site, host, origin, path="/", method="GET", headers=""):
    sent = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        sent["Access-Control-Request-Headers"] = headers
    return site.ask(host, path, "OPTIONS", sent)


def allowed(answer):
    """The CORS headers of an answer, without their prefix."""
    start = "access-control-"
    return {name.removeprefix(start): value for name, value in answer.headers.items() if name.startswith(start)}


def test_preflight_of_listed_things(site):
    host = site.serve(
        entry(
            filters=(
                cors(
                    "https://www.foo.com",
                    "https://*.bar.com",
                    allow_credentials=True,
                    allow_methods=("GET", "PUT"),
                    allow_headers=("X-One", "X-Two"),
                    expose_headers=("X-Three",),
                    max_age=3600,
                ),
            ),
            backends=(a,),
        )
    )
    before = len(site.backends["a"].requests)
    for origin in ("https://www.foo.com", "https://www.bar.com", "https://x.y.bar.com", "https://x.bar.com:443"):
        answer = preflight(site, host, origin)
        assert answer.status == 204
        assert allowed(answer) == {
            "allow-origin": origin,
            "allow-methods": "GET, PUT",
            "allow-headers": "X-One, X-Two",
            "expose-headers": "X-Three",
            "max-age": "3600",
            "allow-credentials": "true",
        }
    for origin in ("https://foobar.com", "http://www.foo.com", "https://bar.com", "https://www.foo.com:8443", "null"):
        answer = preflight(site, host, origin)
        assert (answer.status, allowed(answer)) == (204, {}), origin
    assert len(site.backends["a"].requests) == before


def test_actual_requests(site):
    host = site.serve(
        entry(
            filters=(cors("https://*.bar.com", allow_credentials=True, expose_headers=("X-Three", "X-Four")),),
            backends=(a,),
        )
    )
    answer = site.ask(host, headers={"Origin": "https://x.bar.com"})
    assert answer.seen["backend"] == "a"
    assert allowed(answer) == {
        "allow-origin": "https://x.bar.com",
        "allow-credentials": "true",
        "expose-headers": "X-Three, X-Four",
    }
    assert answer.headers["vary"] == "Origin"
    other = site.ask(host, headers={"Origin": "https://foobar.com"})
    assert (other.seen["backend"], allowed(other)) == ("a", {})
    assert allowed(site.ask(host)) == {}


def test_everything_is_answered_with_what_was_asked_for(site):
    star = {"allow_methods": ("*",), "allow_headers": ("*",), "expose_headers": ("*",)}
    host = site.serve(
        entry(Match("/credentials"), filters=(cors("*", allow_credentials=True, **star),), backends=(a,)),
        entry(filters=(cors("*", **star),), backends=(a,)),
    )
    answer = allowed(preflight(site, host, "https://o.test:81", "/credentials", "PUT", "x-a, x-b"))
    assert answer == {
        "allow-origin": "https://o.test:81",
        "allow-methods": "PUT",
        "allow-headers": "x-a, x-b",
        "max-age": "5",
        "allow-credentials": "true",
    }
    answer = allowed(preflight(site, host, "https://o.test", "/credentials", "PUT"))
    assert "allow-headers" not in answer
    answer = allowed(preflight(site, host, "https://o.test", method="PUT", headers="x-a"))
    assert (answer["allow-methods"], answer["allow-headers"], answer["expose-headers"]) == ("PUT", "x-a", "*")
    assert "allow-credentials" not in answer
    assert allowed(site.ask(host, headers={"Origin": "https://o.test"}))["allow-origin"] == "https://o.test"


def test_preflight_finds_the_rule_of_the_method_it_announces(site):
    host = site.serve(
        entry(Match(method="GET"), filters=(cors("https://get.test"),), backends=(a,)),
        entry(Match(method="PUT"), filters=(cors("https://put.test"),), backends=(b,)),
    )
    assert allowed(preflight(site, host, "https://put.test", method="PUT"))["allow-origin"] == "https://put.test"
    assert allowed(preflight(site, host, "https://put.test", method="GET")) == {}
    assert preflight(site, host, "https://put.test", method="DELETE").status == 404


def test_options_that_are_no_preflight_reach_the_backend(site):
    host = site.serve(entry(filters=(cors("*"),), backends=(a,)))
    assert site.ask(host, method="OPTIONS").seen["method"] == "OPTIONS"


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(site):
    """A Service with three endpoints."""
    site.world.backend("three", *(backend.port for backend in site.backends.values()))
    return ref("three")


def test_cookie_sessions(site, three):
    host = site.serve(entry(session=Session("Cookie", "stay", "/app"), backends=(three,)))
    for _ in range(3):
        first = site.ask(host, "/app/x")
        cookie, *attributes = first.headers["set-cookie"].split(";")
        assert cookie.startswith("stay=")
        assert {x.strip() for x in attributes} == {"Path=/app", "HttpOnly"}
        for _ in range(6):
            again = site.ask(host, "/app", headers={"Cookie": f"other=1; {cookie}"})
            assert again.seen["backend"] == first.seen["backend"]
            assert "set-cookie" not in again.headers
    assert set(site.counts(host, 30)) == {"a", "b", "c"}


def test_permanent_cookies(site, three):
    host = site.serve(entry(session=Session("Cookie", "stay", "/", 90.0, permanent=True), backends=(three,)))
    assert "Max-Age=90" in site.ask(host).headers["set-cookie"]


def test_sessions_stay_with_the_backend_that_a_split_gave_them(site):
    """Weights are for new sessions; a backend that is taken out gives up its own."""
    session = Session("Cookie", "stay", "/", 60.0, permanent=True)
    backends = (ref("a", 1), ref("b", 1), ref("c", 0))
    host = site.serve(entry(session=session, backends=backends))
    pinned = {}

    def both_have_kept_a_session():
        first = site.ask(host)
        assert first.headers["set-cookie"].count("Max-Age=60") == 2
        cookies = "; ".join(each.split(";")[0] for each in first.headers["set-cookie"].split(", "))
        pinned[first.seen["backend"]] = cookies
        for _ in range(4):
            again = site.ask(host, headers={"Cookie": cookies})
            assert again.seen["backend"] == first.seen["backend"]
            assert "set-cookie" not in again.headers
        return set(pinned) == {"a", "b"}

    wait_for(both_have_kept_a_session, "a session on each backend")
    site.serve(entry(session=session, backends=(ref("a", 0), ref("b", 1))), host=host)
    assert site.ask(host, headers={"Cookie": pinned["a"]}).seen["backend"] == "b"


def test_header_sessions(site, three):
    host = site.serve(entry(session=Session("Header", "X-Session"), backends=(three,)))
    first = site.ask(host)
    session = first.headers["x-session"]
    for _ in range(10):
        assert site.ask(host, headers={"X-Session": session}).seen["backend"] == first.seen["backend"]


def test_a_session_ends_with_its_endpoint(site):
    ports = [site.backends[name].port for name in "ab"]
    site.world.backend("two", *ports)
    host = site.serve(entry(session=Session("Cookie", "stay"), backends=(ref("two"),)))
    first = wait_for(lambda: (r := site.ask(host)).seen["backend"] == "a" and r, "a session on a")
    cookie = first.headers["set-cookie"].split(";")[0]
    site.world.backend("two", ports[1])
    site.proxy.apply(site.world)
    again = wait_for(
        lambda: (r := site.ask(host, headers={"Cookie": cookie})).seen["backend"] == "b" and r, "the other endpoint"
    )
    assert again.headers["set-cookie"].startswith("stay=")
    assert site.ask(host, headers={"Cookie": "stay=garbage"}).seen["backend"] == "b"


# --- external authorization -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authorizer(site):
    each = HttpAuthorizer()
    site.world.backend("auth", each.port)
    yield each
    each.close()


def test_authorization_over_http(site, authorizer):
    host = site.serve(
        entry(Match("/a"), filters=(external("auth", path="/check", allowed_headers=("X-Pass",)),), backends=(a,)),
        entry(backends=(b,)),
    )
    refused = site.ask(host, "/a/x?q=1", headers={"X-Pass": "no", "X-Secret": "1", "Authorization": "no"})
    assert (refused.status, refused.body) == (401, b"who are you")
    assert refused.headers["set-cookie"] == "login=1"
    method, path, headers, body = authorizer.asked[-1]
    assert (method, path, body) == ("GET", "/check/a/x?q=1", "")
    assert headers["host"] == host
    assert headers["authorization"] == "no"
    assert headers.get("content-length", "0") == "0"
    assert "x-secret" not in headers
    passed = site.ask(host, "/a", headers={"X-Pass": "yes"})
    assert passed.seen["headers"]["x-user"] == "somebody"
    assert passed.seen["headers"]["host"] == host
    assert site.ask(host, "/b").seen["backend"] == "b"


def test_only_allowed_headers_of_the_answer_are_passed_on(site, authorizer):
    filters = (external("auth", allowed_response_headers=("X-User",)),)
    host = site.serve(entry(filters=filters, backends=(a,)))
    assert site.ask(host, headers={"X-Pass": "yes"}).status == 401
    seen = site.ask(host, headers={"Authorization": "yes"}).seen["headers"]
    assert seen["x-user"] == "somebody"
    assert "x-other" not in seen


def test_bodies_are_forwarded_up_to_a_size(site, authorizer):
    host = site.serve(entry(filters=(external("auth", body=10),), backends=(a,)))
    answer = site.ask(host, "/", "POST", {"Authorization": "yes"}, b"0123456789")
    assert answer.seen["body"] == "0123456789"
    assert authorizer.asked[-1][3] == "0123456789"
    assert site.ask(host, "/", "POST", {"Authorization": "yes"}, b"0123456789A").status == 413


def test_without_its_authorizer_nothing_passes(site):
    site.world.backend("no-auth")
    assert site.ask(site.serve(entry(filters=(external("no-auth"),), backends=(a,)))).status == 503
    assert site.ask(site.serve(entry(filters=(external(None),), backends=(a,)))).status == 500
    host = site.serve(entry(backends=(a,)), filters=(external(None),))
    assert site.ask(host).status == 500


def test_redirects_are_authorized_too(site, authorizer):
    redirect = Redirect(api.HTTPRequestRedirectFilter(hostname="x.org"))
    host = site.serve(entry(filters=(external("auth"), redirect)))
    assert site.ask(host).status == 401
    assert site.ask(host, headers={"Authorization": "yes"}).status == 302


def test_filters_of_a_listener_come_before_those_of_a_route(site, authorizer):
    host = site.serve(
        entry(Match("/both"), filters=(external("auth", path="/second", allowed_headers=("x-other",)),), backends=(a,)),
        entry(backends=(a,)),
        filters=(external("auth", path="/first"),),
    )
    start = len(authorizer.asked)
    assert site.ask(host, "/one", headers={"Authorization": "yes"}).status == 200
    assert site.ask(host, "/both", headers={"Authorization": "yes"}).status == 200
    assert [path for _, path, _, _ in authorizer.asked[start:]] == ["/first/one", "/first/both", "/second/both"]
    assert authorizer.asked[-1][2]["x-other"] == "1"
    assert site.ask(host, "/both").status == 401
    assert authorizer.asked[-1][1] == "/first/both"


def test_authorization_over_grpc(site):
    asked = []

    def check(request, _):
        attributes = request.attributes.request.http
        asked.append(attributes)
        response = external_auth_pb2.CheckResponse()
        if attributes.headers.get("x-pass") == "yes":
            response.ok_response.headers.append(
                base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key="x-user", value="grpc"))
            )
        else:
            response.status.code = 7
            response.denied_response.status.code = 402
        return response

    handler = grpc.method_handlers_generic_handler(
        "envoy.service.auth.v3.Authorization",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                check, external_auth_pb2.CheckRequest.FromString, external_auth_pb2.CheckResponse.SerializeToString
            )
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        site.world.backend("grpc-auth", port, protocol="HTTP2")
        everything = external("grpc-auth", "GRPC", "HTTP2")
        some = external("grpc-auth", "GRPC", "HTTP2", allowed_headers=("X-Pass",))
        host = site.serve(
            entry(Match("/some"), filters=(some,), backends=(a,)), entry(filters=(everything,), backends=(a,))
        )
        assert site.ask(host, "/x", headers={"X-Pass": "no", "X-Other": "1"}).status == 402
        assert (asked[-1].headers["x-other"], asked[-1].path, asked[-1].host) == ("1", "/x", host)
        assert site.ask(host, "/some", headers={"X-Pass": "yes", "X-Other": "1"}).seen["headers"]["x-user"] == "grpc"
        assert "x-other" not in asked[-1].headers
    finally:
        server.stop(0)


def test_a_filter_of_one_listener_is_not_that_of_another(site, authorizer):
    """Two HTTP listeners of a port share an Envoy listener, not their filters."""
    guarded = site.serve(entry(backends=(a,)), host="guarded.test", filters=(external("auth"),))
    open_ = site.serve(entry(backends=(a,)), host="open.test")
    assert site.ask(guarded).status == 401
    assert site.ask(open_).status == 200
