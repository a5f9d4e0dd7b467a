"""gRPC and HTTP/2 through real Envoy."""

from concurrent import futures

import grpc
import httpx
import pytest

from propylon import api
from propylon.graph.model import BackendTls, Match, RequestHeaders, Retry, ValueMatch
from support.envoy_certificates import Authority
from support.envoy_proxy import wait_for
from support.envoy_site import Site, a, nowhere
from support.envoy_world import entry, ref

pytestmark = pytest.mark.feature

CA = Authority()
UNAVAILABLE, UNIMPLEMENTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED


class Echo(grpc.GenericRpcHandler):
    """Answers any unary call with its method and, as metadata, what reached it; fails the first `failures` calls."""

    def __init__(self):
        self.failures = 0
        self.calls = 0

    def service(self, details):
        def answer(request, context):
            self.calls += 1
            if self.failures > 0:
                self.failures -= 1
                context.abort(UNAVAILABLE, "later")
            seen = [(f"seen-{k}", v) for k, v in context.invocation_metadata() if k.startswith("x-")]
            context.send_initial_metadata(seen)
            return details.method.encode() + b" " + request

        return grpc.unary_unary_rpc_method_handler(answer)


class GrpcBackend:
    def __init__(self, pair=None):
        self.handler = Echo()
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((self.handler,))
        if pair is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            credentials = grpc.ssl_server_credentials([(pair.private_key, pair.chain)])
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()


@pytest.fixture(scope="module")
def backends():
    each = {"plain": GrpcBackend(), "tls": GrpcBackend(CA.issue("grpc.test"))}
    yield each
    for backend in each.values():
        backend.server.stop(0)


@pytest.fixture(scope="module")
def site(backends):
    each = Site()
    each.world.backend("plain", backends["plain"].port, protocol="HTTP2")
    validation = each.world.secret("validation", "grpc", CA.chain)
    each.world.backend("tls", backends["tls"].port, protocol="HTTP2", tls=BackendTls("grpc.test", validation))
    each.world.backend("liar", backends["tls"].port, protocol="HTTP2", tls=BackendTls("liar.test", validation))
    each.world.backend("empty", protocol="HTTP2")
    yield each
    each.close()


def rpc(match=None, **rule):
    return entry(match, kind="GRPCRoute", **rule)


def h2(name, weight=1):
    return ref(name, weight, protocol="HTTP2")


def call(site, host, method="/echo.Echo/Say", metadata=()):
    """(answer, metadata) of a unary call, or the status it failed with."""
    options = [("grpc.default_authority", host), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{site.port}", options) as channel:
        try:
            answer, done = channel.unary_unary(method).with_call(b"hi", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
        return answer, dict(done.initial_metadata())


def test_methods(site):
    method = Match("/echo.Echo/Say", "Exact", headers=(ValueMatch("x-who", "me"),))
    service = Match("/other.Other/", "PathPrefix")
    any_service = Match("/[^/]+/Ping", "RegularExpression")
    host = site.serve(*(rpc(match, backends=(h2("plain"),)) for match in (method, service, any_service)))
    assert call(site, host, metadata=[("x-who", "me")])[0] == b"/echo.Echo/Say hi"
    assert call(site, host, "/other.Other/Anything")[0] == b"/other.Other/Anything hi"
    assert call(site, host, "/what.Ever/Ping")[0] == b"/what.Ever/Ping hi"
    assert call(site, host) == UNIMPLEMENTED
    assert call(site, host, "/other.OtherOne/Say") == UNIMPLEMENTED
    assert call(site, "nobody.test") == UNIMPLEMENTED


def test_metadata_is_changed(site):
    change = api.HTTPHeaderFilter(
        set=(api.HTTPHeader("X-Set", "new"),), add=(api.HTTPHeader("X-Add", "two"),), remove=("X-Gone",)
    )
    host = site.serve(rpc(filters=(RequestHeaders(change),), backends=(h2("plain"),)))
    _, seen = call(site, host, metadata=[("x-set", "old"), ("x-gone", "1"), ("x-kept", "1")])
    assert (seen["seen-x-set"], seen["seen-x-add"], seen["seen-x-kept"]) == ("new", "two", "1")
    assert "seen-x-gone" not in seen


def test_nowhere_to_go_is_unavailable(site):
    for refs in ((), (nowhere,), (h2("empty"),), (h2("plain", 0),), (h2("liar"),)):
        host = site.serve(rpc(backends=refs))
        for _ in range(3):
            assert call(site, host) == UNAVAILABLE


def test_a_share_that_leads_nowhere_is_unavailable(site):
    host = site.serve(rpc(backends=(h2("plain"), nowhere)))
    found = set()
    wait_for(lambda: found.add(r if (r := call(site, host)) == UNAVAILABLE else "ok") or len(found) == 2, "both")
    assert found == {UNAVAILABLE, "ok"}


def test_tls_backends_speak_http2(site):
    host = site.serve(rpc(backends=(h2("tls"),)))
    assert call(site, host)[0] == b"/echo.Echo/Say hi"


def test_unavailable_is_retried(site, backends):
    handler = backends["plain"].handler
    host = site.serve(rpc(retry=Retry(2, (), 0.01), backends=(h2("plain"),)))
    handler.failures, handler.calls = 2, 0
    assert call(site, host)[0] == b"/echo.Echo/Say hi"
    assert handler.calls == 3


def test_http2_with_prior_knowledge_to_an_http1_backend(site):
    host = site.serve(entry(backends=(a,)))
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.get(f"http://127.0.0.1:{site.port}/x", headers={"host": host})
    assert (answer.http_version, answer.json()["path"]) == ("HTTP/2", "/x")
