"""TLS in real Envoy: SNI, misdirected requests, client certificates, rotation, TLS towards backends."""

import contextlib
import http.client
import socket
import ssl

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from propylon import api
from propylon.envoy import EnvoySettings
from propylon.graph.model import BackendTls, ClientValidation, ListenerTls, Redirect, Session, SubjectAltName
from support.envoy_backends import HttpBackend
from support.envoy_certificates import Authority
from support.envoy_proxy import Proxy, free_port, wait_for
from support.envoy_site import Answer, Site
from support.envoy_world import World, entry, listener, ref

pytestmark = pytest.mark.feature

CA = Authority()
OTHER_CA = Authority("another authority")
HTTP1 = CA.client(verify=False, alpn=("http/1.1",))


def ask(port, sni, host, path="/", context=HTTP1):
    """GET over HTTP/1.1 with an SNI and a Host of their own."""
    with connect(port, sni, context) as secure:
        connection = http.client.HTTPConnection("unused")
        connection.sock = secure
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


def connect(port, sni, context=HTTP1):
    """A TLS connection."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname=sni)
    except BaseException:
        plain.close()
        raise


def closed(port, sni, context=HTTP1):
    """Whether the connection is closed in the handshake without an alert of TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            context.wrap_socket(plain, server_hostname=sni)
        except ssl.SSLEOFError:
            return True
        except (ConnectionResetError, BrokenPipeError):
            return True
        except ssl.SSLError:
            return False
    return False


class TlsSite:
    """HTTPS listeners on three ports."""

    def __init__(self):
        self.world = World(EnvoySettings(access_log=False))
        self.backend = HttpBackend("a")
        self.world.backend("a", self.backend.port)
        self.port, self.bare, self.mutual, self.insecure = (free_port() for _ in range(4))
        self.world.secret("validation", "clients", CA.chain)
        names = ("one.test", "two.test", "*.wild.test", "four.wild.test", "")
        self.listeners = {name: self.listen(self.port, name) for name in names}
        self.world.port(*self.listeners.values())
        bare = [self.listen(self.bare, name) for name in ("one.test", "two.test")]
        self.world.port(*bare)
        for port, required in ((self.mutual, True), (self.insecure, False)):
            validation = ClientValidation(self.world.secret("validation", "clients", CA.chain), required)
            each = self.listen(port, "one.test", client_validation=validation)
            self.world.port(each)
            self.world.host(each, "one.test", entry(backends=(ref("a"),)))
        for each in (*self.listeners.values(), *bare):
            hostname = each.hostname or "*"
            self.world.host(each, hostname, entry(route=each.key.section, backends=(ref("a"),)))
        self.proxy = Proxy()
        self.proxy.apply(self.world)

    def listen(self, port, hostname, **more):
        name = hostname.replace("*", "any") or "all"
        pair = CA.issue(hostname or "all.test")
        key = self.world.secret("certificate", f"{name}-{port}", pair.chain, pair.private_key)
        return listener(f"{name}-{port}", "HTTPS", port, hostname, ListenerTls("Terminate", (key,), **more))

    def close(self):
        self.proxy.close()
        self.backend.close()


@pytest.fixture(scope="module")
def site():
    each = TlsSite()
    yield each
    each.close()


@pytest.mark.parametrize(
    ("sni", "host", "status"),
    [
        ("one.test", "one.test", 200),
        ("one.test", "ONE.test:443", 200),
        ("one.test", "two.test", 421),
        ("one.test", "x.wild.test", 421),
        ("one.test", "four.wild.test", 421),
        ("one.test", "unknown.test", 421),
        ("two.test", "one.test", 421),
        ("three.wild.test", "three.wild.test", 200),
        ("three.wild.test", "five.wild.test", 200),
        ("three.wild.test", "four.wild.test", 421),
        ("three.wild.test", "two.test", 421),
        ("three.wild.test", "unknown.test", 421),
        ("four.wild.test", "four.wild.test", 200),
        ("four.wild.test", "five.wild.test", 421),
        ("unknown.test", "unknown.test", 200),
        ("unknown.test", "two.test", 421),
        ("unknown.test", "x.wild.test", 421),
        (None, "unknown.test", 200),
    ],
)
def test_misdirected_requests(site, sni, host, status):
    assert ask(site.port, sni, host).status == status


def test_without_a_listener_for_every_host(site):
    """Foreign hosts are told from unknown ones, and an unknown SNI is closed without an alert."""
    assert ask(site.bare, "one.test", "one.test").status == 200
    assert ask(site.bare, "one.test", "two.test").status == 421
    assert ask(site.bare, "one.test", "unknown.test").status == 404
    assert closed(site.bare, "unknown.test")
    assert closed(site.bare, None)


def test_each_listener_shows_its_own_certificate(site):
    context = CA.client()
    for name in ("one.test", "two.test", "four.wild.test", "x.wild.test"):
        assert ask(site.port, name, name, context=context).status == 200


def test_several_certificates_of_one_listener(site):
    """The one that fits the name is shown."""
    port = free_port()
    keys = []
    for name in ("first.many.test", "second.many.test"):
        pair = CA.issue(name)
        keys.append(site.world.secret("certificate", name, pair.chain, pair.private_key))
    site.world.port(listener(f"many-{port}", "HTTPS", port, "*.many.test", ListenerTls("Terminate", tuple(keys))))
    site.proxy.apply(site.world)
    for name in ("first.many.test", "second.many.test"):
        assert ask(port, name, name, context=CA.client()).status == 404


def test_session_cookies_are_secure(site):
    port = free_port()
    each = site.listen(port, "stay.test")
    site.world.port(each)
    site.world.host(each, "stay.test", entry(session=Session("Cookie", "stay"), backends=(ref("a"),)))
    site.proxy.apply(site.world)
    cookie = ask(port, "stay.test", "stay.test").headers["set-cookie"]
    assert sorted(part.strip() for part in cookie.split(";")[1:]) == ["HttpOnly", "Path=/", "Secure"]


def test_redirects_of_an_https_listener(site):
    port = free_port()
    each = site.listen(port, "*.moved.test")
    site.world.port(each)
    redirect = Redirect(api.HTTPRequestRedirectFilter(path=api.HTTPPathModifier("ReplaceFullPath", "/new")))
    site.world.host(each, "*.moved.test", entry(filters=(redirect,)))
    site.proxy.apply(site.world)
    for host in ("x.moved.test", f"x.moved.test:{port}"):
        assert ask(port, "x.moved.test", host).headers["location"] == f"https://x.moved.test:{port}/new"


def test_http2_by_alpn(site):
    with httpx.Client(http2=True, verify=CA.client(verify=False)) as client:
        answer = client.get(f"https://127.0.0.1:{site.port}/x", headers={"host": "unknown.test"})
    assert answer.http_version == "HTTP/2"
    assert answer.json()["headers"]["x-forwarded-proto"] == "https"


def test_old_tls_is_refused(site):
    context = CA.client(verify=False)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        ask(site.port, "one.test", "one.test", context=context)


def test_plain_http_gets_no_answer(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert s.recv(100) == b""


def test_client_certificates(site):
    good, bad = CA.issue("client"), OTHER_CA.issue("client")
    contexts = {
        "none": CA.client(verify=False),
        "good": CA.client(good, verify=False),
        "bad": CA.client(bad, verify=False),
    }
    assert ask(site.mutual, "one.test", "one.test", context=contexts["good"]).status == 200
    for name in ("none", "bad"):
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            ask(site.mutual, "one.test", "one.test", context=contexts[name])
    for context in contexts.values():
        assert ask(site.insecure, "one.test", "one.test", context=context).status == 200


def test_rotation_drains_nothing(site):
    """A kept connection outlives a new certificate, which new connections see."""

    def serial():
        with connect(site.port, "two.test", CA.client()) as secure:
            return secure.getpeercert()["serialNumber"]

    before = serial()
    with connect(site.port, "two.test") as secure:
        kept = http.client.HTTPConnection("unused")
        kept.sock = secure
        kept.request("GET", "/", headers={"Host": "two.test"})
        kept.getresponse().read()
        pair = CA.issue("two.test")
        site.world.secret("certificate", f"two.test-{site.port}", pair.chain, pair.private_key)
        site.proxy.apply(site.world)
        wait_for(lambda: serial() != before, "the new certificate")
        kept.request("GET", "/", headers={"Host": "two.test"})
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, None)


def test_a_secret_that_envoy_cannot_use_costs_its_own_listener_only(site):
    """RSA keys below 2,048 bits: Envoy acknowledges the resource, logs that it cannot use it, and serves the others."""
    port = free_port()
    good = site.listen(port, "good.test")
    weak = CA.issue("weak.test", key=rsa.generate_private_key(65537, 1024))
    key = site.world.secret("certificate", "weak", weak.chain, weak.private_key)
    bad = listener(f"bad-{port}", "HTTPS", port, "weak.test", ListenerTls("Terminate", (key,)))
    site.world.port(good, bad)
    site.world.host(good, "good.test", entry(backends=(ref("a"),)))
    site.proxy.apply(site.world)
    assert ask(port, "good.test", "good.test").status == 200
    with pytest.raises((ssl.SSLError, OSError)):
        ask(port, "weak.test", "weak.test")
    pair = CA.issue("weak.test")
    site.world.secret("certificate", "weak", pair.chain, pair.private_key)
    site.proxy.apply(site.world)
    wait_for(lambda: not closed(port, "weak.test"), "the better certificate")
    assert ask(port, "weak.test", "weak.test").status == 404


def test_another_listener_on_the_port_closes_nothing(site):
    """Filter chains that did not change keep their connections."""
    with connect(site.bare, "one.test") as secure:
        kept = http.client.HTTPConnection("unused")
        kept.sock = secure
        kept.request("GET", "/", headers={"Host": "one.test"})
        kept.getresponse().read()
        port = next(p for k, p in site.world.graph.ports.items() if k.port == site.bare)
        new = site.listen(site.bare, "new.test")
        site.world.port(*port.listeners, new)
        site.world.host(new, "new.test", entry(backends=(ref("a"),)))
        site.proxy.apply(site.world)
        wait_for(lambda: not closed(site.bare, "new.test"), "the new listener")
        kept.request("GET", "/", headers={"Host": "one.test"})
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, None)
        answer.read()
        assert ask(site.bare, "one.test", "new.test").status == 421


# --- towards backends -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An HTTP site whose system trusts CA."""
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_bytes(CA.chain)
    each = Site(EnvoySettings(access_log=False, system_ca_file=str(file)))
    yield each
    each.close()


@pytest.fixture(scope="module")
def secure():
    """A backend with two names and a URI, that wants no client certificate."""
    pair = CA.issue("backend.test", "*.many.test", uris=("spiffe://cluster/backend",))
    each = HttpBackend("secure", CA.server(pair, alpn=("http/1.1",)))
    yield each
    each.close()


def san(value, type_="DNS"):
    return SubjectAltName(type_, value)


@pytest.mark.parametrize(
    ("name", "server_name", "sans", "status"),
    [
        ("exact", "backend.test", (), 200),
        ("wildcard", "x.many.test", (), 200),
        ("wrong", "other.test", (), 503),
        ("san", "other.test", (san("backend.test"),), 200),
        ("uri", "other.test", (san("spiffe://cluster/backend", "URI"),), 200),
        ("some", "other.test", (san("nobody.test"), san("spiffe://cluster/backend", "URI")), 200),
        ("wrong-san", "backend.test", (san("nobody.test"),), 503),
        ("wrong-uri", "backend.test", (san("spiffe://cluster/other", "URI"),), 503),
    ],
)
@pytest.mark.parametrize("system", [False, True])
def test_backend_identity(plain, secure, name, server_name, sans, status, system):
    validation = None if system else plain.world.secret("validation", "backends", CA.chain)
    name = f"{name}-{system}"
    plain.world.backend(name, secure.port, tls=BackendTls(server_name, validation, sans))
    answer = plain.ask(plain.serve(entry(backends=(ref(name),))))
    assert answer.status == status
    if status == 200:
        assert answer.seen["alpn"] == "http/1.1"


def test_backend_of_a_foreign_authority(plain, secure):
    validation = plain.world.secret("validation", "foreign", OTHER_CA.chain)
    plain.world.backend("foreign", secure.port, tls=BackendTls("backend.test", validation))
    host = plain.serve(entry(backends=(ref("foreign"),)))
    assert plain.ask(host).status == 503
    plain.world.secret("validation", "foreign", CA.chain)
    plain.proxy.apply(plain.world)
    wait_for(lambda: plain.ask(host).status == 200, "the corrected authority")


def test_unverified_backend(plain, secure):
    plain.world.backend("unverified", secure.port, tls=BackendTls("whatever.test", None, verify=False))
    assert plain.ask(plain.serve(entry(backends=(ref("unverified"),)))).status == 200


def test_client_certificate_towards_backends(plain):
    """The Gateway's own, unless the backend has one; without any the backend refuses."""
    backend = HttpBackend("mutual", CA.server(CA.issue("backend.test"), clients=OTHER_CA))
    try:
        pair = OTHER_CA.issue("gateway")
        own = plain.world.secret("certificate", "gateway", pair.chain, pair.private_key)
        wrong = CA.issue("wrong")
        other = plain.world.secret("certificate", "wrong", wrong.chain, wrong.private_key)
        validation = plain.world.secret("validation", "backends", CA.chain)
        tls = BackendTls("backend.test", validation)
        plain.world.backend("without", backend.port, tls=tls)
        plain.world.backend("gateways", backend.port, tls=tls, client_certificate=own)
        tls = BackendTls("backend.test", validation, client_certificate=own)
        plain.world.backend("backends", backend.port, tls=tls, client_certificate=other)
        statuses = {
            name: plain.ask(plain.serve(entry(backends=(ref(name),)))).status
            for name in ("without", "gateways", "backends")
        }
        assert statuses == {"without": 503, "gateways": 200, "backends": 200}
    finally:
        backend.close()
