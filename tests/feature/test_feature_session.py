"""A session with everything in it: manifests in a directory, requests to real Envoy, every protocol and filter once.

The corner cases of each stand in the suites of `graph` and `envoy`; here the parts meet.
"""

# ruff: noqa: E501 - one rule a line reads better than YAML folded to fit
import datetime as dt
import http.server
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.sync.client import connect

from propylon.certificates.local_authority import LocalAuthority
from support.backends import Backend
from support.instance import Instance, eventually
from support.manifests import OFFSET, service, write

pytestmark = [pytest.mark.feature, pytest.mark.timeout(180)]

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: any}
spec: {controllerName: example.net/whatever}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: all, namespace: default}
spec:
  gatewayClassName: any
  allowedListeners: {namespaces: {from: Same}}
  tls:
    frontend:
      default: {}
      perPort:
        - port: 6443
          tls: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: clients}]}}
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: https, port: 443, protocol: HTTPS, hostname: "*.example.com", tls: {certificateRefs: [{name: wild}]}}
    - {name: other, port: 443, protocol: HTTPS, hostname: other.example.org, tls: {certificateRefs: [{name: other}]}}
    - {name: mutual, port: 6443, protocol: HTTPS, tls: {certificateRefs: [{name: wild}]}}
    - {name: pass, port: 8443, protocol: TLS, hostname: "*.pass.example.com", tls: {mode: Passthrough}}
    - {name: term, port: 8443, protocol: TLS, hostname: term.example.com, tls: {certificateRefs: [{name: wild}]}}
    - {name: tcp, port: 9000, protocol: TCP}
    - {name: udp, port: 5300, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: default}
spec:
  parentRef: {name: all}
  listeners: [{name: extra, port: 8081, protocol: HTTP}]
"""

HEAD = "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec:\n"


def a_route(kind: str, name: str, section: str, rules: str, hostnames: str = "", parent: str = "{name: all") -> str:
    hosts = f"  hostnames: [{hostnames}]\n" if hostnames else ""
    return f"{HEAD.format(kind=kind, name=name)}  parentRefs: [{parent}, sectionName: {section}}}]\n{hosts}  rules:\n{rules}"


FILTERS = """\
    - matches: [{path: {type: Exact, value: /redirect}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, path: {type: ReplaceFullPath, replaceFullPath: /to}, statusCode: 302}}]
    - matches: [{path: {value: /old}}]
      filters: [{type: URLRewrite, urlRewrite: {hostname: inside.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
      backendRefs: [{name: a, port: 80}]
    - matches: [{path: {value: /headers}}]
      filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: s}], add: [{name: X-Add, value: new}], remove: [X-Gone]}}
        - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Answer, value: "42"}], remove: [Content-Type]}}
      backendRefs: [{name: a, port: 80}]
    - matches: [{path: {value: /mirror}}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: mirrored, port: 80}, percent: 50}}]
      backendRefs: [{name: a, port: 80}]
    - matches: [{path: {value: /split}}]
      backendRefs: [{name: a, port: 80, weight: 3}, {name: b, port: 80, weight: 1}]
    - matches: [{path: {value: /slow}}]
      timeouts: {request: 300ms}
      backendRefs: [{name: echo, port: 80}]
    - matches: [{path: {value: /cors}}]
      filters: [{type: CORS, cors: {allowOrigins: ["https://*.example.com"], allowMethods: [PUT], allowHeaders: [X-A], maxAge: 60}}]
      backendRefs: [{name: a, port: 80}]
    - matches: [{path: {value: /session}}]
      sessionPersistence: {type: Cookie, cookie: {name: stick}}
      backendRefs: [{name: pair, port: 80}]
    - matches: [{path: {value: /tls}}]
      backendRefs: [{name: secure, port: 443}]
    - matches: [{path: {value: /half}}]
      backendRefs: [{name: a, port: 80}, {name: nowhere, port: 80}]
    - matches: [{path: {value: /grpc-less}}]
      backendRefs: [{name: h2c, port: 80}]
    - matches: [{method: DELETE, headers: [{name: X-Kind, value: "a|b", type: RegularExpression}], queryParams: [{name: q, value: "1"}]}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{path: {type: RegularExpression, value: "/v[0-9]+/.*"}}]
      backendRefs: [{name: b, port: 80}]
    - matches: [{path: {value: /ws}}]
      backendRefs: [{name: echo, port: 80}]
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An HTTPS backend whose certificate names secure.internal."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"secure")

        def log_message(self, *_: object) -> None:
            pass

    chain, key = authority.issue(["secure.internal"])
    pem = tmp_path_factory.mktemp("secure") / "both.pem"
    pem.write_bytes(chain + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def config_map(name: str, pem: bytes) -> str:
    lines = "\n".join("    " + line for line in pem.decode().splitlines())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata:\n  ca.crt: |\n{lines}\n"


def endpoint_slice(name: str, *ports: int) -> str:
    """One slice per endpoint: they differ in port."""
    parts = [
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{port}, namespace: default, "
        f"labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n"
        f"endpoints: [{{addresses: [127.0.0.1]}}]\n"
        for port in ports
    ]
    return "---\n".join(parts)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, authority: LocalAuthority, secure: int) -> Iterator[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("session")
    with Backend("a") as a, Backend("b") as b, Backend("mirrored") as mirrored:
        services = [service(n) for n in ("a", "b", "mirrored", "pair", "echo", "v1", "v2")] + [service("secure", 443)]
        h2c = service("h2c").replace("{port: 80}", "{port: 80, appProtocol: kubernetes.io/h2c}")
        udp = service("datagrams", 53).replace("{port: 53}", "{port: 53, protocol: UDP}")
        policy = HEAD.format(kind="BackendTLSPolicy", name="secure") + (
            "  targetRefs: [{group: '', kind: Service, name: secure}]\n"
            "  validation: {hostname: secure.internal, caCertificateRefs: [{group: '', kind: ConfigMap, name: backends}]}\n"
        )
        ca = authority.certificate_pem
        manifests = write(
            directory / "manifests",
            gateway=GATEWAY,
            services="---\n".join([*services, h2c, udp]),
            authorities=config_map("clients", ca) + "---\n" + config_map("backends", ca),
            slices=endpoint_slice("pair", a.port, b.port),
            policy=policy,
            filters=a_route("HTTPRoute", "filters", "http", FILTERS, "f.example.com"),
            https=a_route(
                "HTTPRoute", "https", "https", "    - backendRefs: [{name: a, port: 80}]\n", "www.example.com"
            ),
            calls=a_route(
                "HTTPRoute", "calls", "https", "    - backendRefs: [{name: echo, port: 80}]\n", "calls.example.com"
            ),
            other=a_route("HTTPRoute", "other", "other", "    - backendRefs: [{name: b, port: 80}]\n"),
            mutual=a_route("HTTPRoute", "mutual", "mutual", "    - backendRefs: [{name: a, port: 80}]\n"),
            extra=a_route(
                "HTTPRoute",
                "extra",
                "extra",
                "    - backendRefs: [{name: b, port: 80}]\n",
                parent="{kind: ListenerSet, name: more",
            ),
            passing=a_route(
                "TLSRoute", "pass", "pass", "    - backendRefs: [{name: echo, port: 80}]\n", "x.pass.example.com"
            ),
            term=a_route(
                "TLSRoute", "term", "term", "    - backendRefs: [{name: echo, port: 80}]\n", "term.example.com"
            ),
            tcp=a_route("TCPRoute", "tcp", "tcp", "    - backendRefs: [{name: echo, port: 80}]\n"),
            udp=a_route("UDPRoute", "udp", "udp", "    - backendRefs: [{name: datagrams, port: 53}]\n"),
        )
        overrides = {"a": a.address, "b": b.address, "mirrored": mirrored.address, "secure": f"127.0.0.1:{secure}"}
        flags = [f"--backend=default/{name}={address}" for name, address in overrides.items()]
        with Instance(
            directory, str(manifests), "--echo", "--dev-certs", f"--port-offset={OFFSET}", *flags
        ) as instance:
            code, report = instance.wait()
            wrong = [e for e in report["errors"] if "default/nowhere" not in e["message"]]
            assert (code, wrong) == (1, []), instance.output()
            yield {"instance": instance, "a": a, "b": b, "mirrored": mirrored, "manifests": manifests}


def test_everything_is_programmed(world: dict[str, Any]) -> None:
    report = world["instance"].status()
    (gateway,) = report["gateways"]
    assert gateway["programmed"]
    for listener in gateway["listeners"]:
        states = {c["type"]: c["status"] for c in listener["conditions"]}
        assert states["Programmed"] == "True", listener
        assert listener["attached_routes"] == (2 if listener["name"] == "https" else 1), listener
    assert {entry.get("listener_set") for entry in gateway["listeners"]} == {None, "default/more"}


def test_redirects_and_rewrites(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    answer = client.get("f.example.com", "/redirect?x=y")
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (302, "http://new.example.com/to")
    seen = client.get("f.example.com", "/old/path?x=y").json()
    assert seen["request"] == "GET /new/path?x=y HTTP/1.1"
    assert seen["headers"]["host"] == "inside.example.com"
    assert client.get("f.example.com", "/older").status_code == 404, "prefixes match whole segments"


def test_headers(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    answer = client.get("f.example.com", "/headers", headers={"X-Set": "old", "X-Add": "old", "X-Gone": "1"})
    headers = answer.json()["headers"]
    assert headers["x-set"] == "s"
    assert "new" in headers["x-add"]
    assert "x-gone" not in headers
    assert answer.headers["x-answer"] == "42"
    assert "content-type" not in answer.headers
    forged = client.get(
        "f.example.com", "/headers", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}
    )
    assert forged.json()["headers"]["x-forwarded-proto"] == "http"
    assert "x-envoy-expected-rq-timeout-ms" not in forged.json()["headers"]


def test_mirror_takes_its_share(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    before = world["mirrored"].requests
    for _ in range(200):
        assert client.get("f.example.com", "/mirror").json()["name"] == "a"
    eventually(lambda: 60 <= world["mirrored"].requests - before <= 140, "half of 200, five sigma and more")


def test_weights(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    names = Counter(client.get("f.example.com", "/split").json()["name"] for _ in range(800))
    assert 130 <= names["b"] <= 270, "a quarter of 800, more than five sigma"
    halves = Counter(client.get("f.example.com", "/half").status_code for _ in range(200))
    assert set(halves) == {200, 500}
    assert 60 <= halves[500] <= 140


def test_timeout(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    assert client.get("f.example.com", "/slow").status_code == 200
    assert client.get("f.example.com", "/slow?echo_delay=2s").status_code == 504


def test_cors(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    asked = {"Origin": "https://deep.www.example.com", "Access-Control-Request-Method": "PUT"}
    before = world["a"].requests
    preflight = client.request("OPTIONS", "f.example.com", "/cors", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://deep.www.example.com"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    foreign = client.request("OPTIONS", "f.example.com", "/cors", headers={**asked, "Origin": "https://evil.org"})
    assert "access-control-allow-origin" not in foreign.headers
    assert world["a"].requests == before, "no preflight reaches the backend"


def test_session_persistence(world: dict[str, Any]) -> None:
    address, port = world["instance"].place("default/all", "http")
    met = set()
    for _ in range(8):
        fresh = world["instance"].client("default/all", "http")
        first = fresh.get("f.example.com", "/session")
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("stick=")
        name = first.json()["name"]
        met.add(name)
        again = {fresh.get("f.example.com", "/session", headers={"Cookie": cookie}).json()["name"] for _ in range(5)}
        assert again == {name}
        fresh.close()
    assert met == {"a", "b"}, (address, port)


def test_matches(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    deletion = client.request("DELETE", "f.example.com", "/any?q=1", headers={"X-Kind": "b"})
    assert deletion.json()["name"] == "b"
    assert client.request("DELETE", "f.example.com", "/any?q=1", headers={"X-Kind": "ab"}).status_code == 404
    assert client.request("DELETE", "f.example.com", "/any?q=2", headers={"X-Kind": "b"}).status_code == 404
    assert client.get("f.example.com", "/v12/x").json()["name"] == "b"
    assert client.get("f.example.com", "/v/x").status_code == 404
    assert client.get("elsewhere.org").status_code == 404


def test_backend_protocols(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    assert client.get("f.example.com", "/grpc-less").json()["request"]["protocol"] == "HTTP/2"
    assert client.get("f.example.com", "/tls").text == "secure"


def test_backend_tls_is_verified(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "http")
    file = world["manifests"] / "policy.yaml"
    good = file.read_text()
    file.write_text(good.replace("hostname: secure.internal", "hostname: wrong.internal"))
    eventually(lambda: client.get("f.example.com", "/tls").status_code == 503, "another name is not trusted")
    file.write_text(good)
    eventually(lambda: client.get("f.example.com", "/tls").text == "secure", "and the right one is again")


def test_websocket(world: dict[str, Any]) -> None:
    address, port = world["instance"].place("default/all", "http")
    sock = socket.create_connection((address, port), timeout=10)
    with connect("ws://f.example.com/ws", sock=sock) as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=10) == "hello"


def test_https_sni_and_misdirected(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "https", tls=True)
    assert client.get("www.example.com").json()["headers"]["x-forwarded-proto"] == "https"
    assert client.get("unrouted.example.com").status_code == 404
    assert client.get("other.example.org", sni="www.example.com").status_code == 421
    h2 = world["instance"].client("default/all", "https", tls=True, http2=True)
    answer = h2.get("www.example.com")
    assert answer.http_version == "HTTP/2"
    place = world["instance"].place("default/all", "https")
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(place, timeout=10) as raw:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.wrap_socket(raw, server_hostname="unknown.net")


def test_one_http_route_serves_pages_and_grpc_calls(world: dict[str, Any]) -> None:
    """The Service names no appProtocol: HTTP/1.1 is spoken to it, but to gRPC calls."""
    instance: Instance = world["instance"]
    address, port = instance.place("default/all", "https")
    authority = grpc.ssl_channel_credentials((instance.data_dir / "authority" / "ca.crt").read_bytes())
    options = [("grpc.ssl_target_name_override", "calls.example.com"), ("grpc.default_authority", "calls.example.com")]
    with grpc.secure_channel(f"{address}:{port}", authority, options) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
    page = instance.client("default/all", "https", tls=True, http2=True).get("calls.example.com").json()
    assert page["request"]["protocol"] == "HTTP/1.1"


def test_forwarded_headers_cannot_be_forged(world: dict[str, Any]) -> None:
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "X-Real-Ip")
    client = world["instance"].client("default/all", "https", tls=True)
    seen = client.get("www.example.com", headers={**dict.fromkeys(names, "6.6.6.6"), "X-Forwarded-Proto": "http"})
    headers = seen.json()["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert not [name for name, value in headers.items() if "6.6.6.6" in value]


def test_client_certificates(world: dict[str, Any], authority: LocalAuthority, tmp_path: Path) -> None:
    chain, key = authority.issue(["client"])
    pem = tmp_path / "client.pem"
    pem.write_bytes(chain + key)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    place = world["instance"].place("default/all", "mutual")

    def ask(with_certificate: bool) -> bytes:
        if with_certificate:
            context.load_cert_chain(pem)
        with (
            socket.create_connection(place, timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="m.org") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\nHost: m.org\r\nConnection: close\r\n\r\n")
            return tls.recv(100)

    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert not ask(False), "nothing is answered without a certificate"
        raise ConnectionError
    assert b" 200 " in ask(True)


def test_tls_passthrough_and_terminate_share_a_port(world: dict[str, Any]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def certificate_and_answer(name: str) -> tuple[bytes, bytes]:
        place = world["instance"].place("default/all", "pass")
        with socket.create_connection(place, timeout=10) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
            shown = tls.getpeercert(binary_form=True)
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := tls.recv(65536):
                answer += chunk
            return shown or b"", answer

    passed, behind = certificate_and_answer("x.pass.example.com")
    assert b"propylon development" not in passed, "the backend's own certificate"
    assert json.loads(behind.partition(b"\r\n\r\n")[2])["request"]["tls"] is not None
    terminated, plain = certificate_and_answer("term.example.com")
    assert b"propylon development" in terminated
    assert json.loads(plain.partition(b"\r\n\r\n")[2])["request"]["tls"] is None


def test_tcp_and_udp(world: dict[str, Any]) -> None:
    with socket.create_connection(world["instance"].place("default/all", "tcp"), timeout=10) as connection:
        connection.sendall(b"\x00\x01raw")
        assert connection.recv(100) == b"\x00\x01raw"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(10)
        datagrams.sendto(b"ping", world["instance"].place("default/all", "udp"))
        assert datagrams.recv(100) == b"ping"


def test_listener_set(world: dict[str, Any]) -> None:
    client = world["instance"].client("default/all", "extra")
    assert client.get("anything.org").json()["name"] == "b"


def test_status_times_are_kept(world: dict[str, Any]) -> None:
    stored = json.loads(world["instance"].run("get", "gateway", "all", "-o", "json", check=True).stdout)
    times = [c["lastTransitionTime"] for c in stored["status"]["conditions"]]
    assert all(dt.datetime.fromisoformat(t.replace("Z", "+00:00")) for t in times)
    assert {c["observedGeneration"] for c in stored["status"]["conditions"]} == {stored["metadata"]["generation"]}
