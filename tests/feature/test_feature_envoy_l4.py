"""TLSRoute, TCPRoute and UDPRoute in real Envoy: bytes and datagrams."""

import contextlib
import socket
import ssl

import pytest

from propylon.envoy import EnvoySettings
from propylon.graph.model import BackendTls, ListenerTls
from support.envoy_backends import TcpBackend, UdpBackend
from support.envoy_certificates import Authority
from support.envoy_proxy import Proxy, free_port, wait_for
from support.envoy_world import World, entry, listener, ref

pytestmark = pytest.mark.feature

CA = Authority()
CLIENT = CA.client()


class L4Site:
    """A proxy, and backends that say who they are."""

    def __init__(self):
        self.world = World(EnvoySettings(access_log=False))
        self.backends = {name: TcpBackend(name) for name in "abc"}
        for name, backend in self.backends.items():
            self.world.backend(name, backend.port, protocol="TCP")
        self.world.backend("empty", protocol="TCP")
        self.proxy = Proxy()

    def close(self):
        self.proxy.close()
        for backend in self.backends.values():
            backend.close()


@pytest.fixture(scope="module")
def site():
    each = L4Site()
    yield each
    each.close()


def to(name, weight=1, protocol="TCP"):
    return ref(name, weight, protocol=protocol)


def banner(port, sni=None, context=None):
    """What is said first, "" if the connection is closed before; then an echo is checked."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            connection = context.wrap_socket(plain, server_hostname=sni) if context else plain
            first = connection.recv(100).decode().strip()
            if first:
                connection.sendall(b"ping")
                assert connection.recv(4) == b"ping"
            return first
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
        return ""


# --- TCP --------------------------------------------------------------------------------------------------------------


def tcp(site, *refs):
    port = free_port()
    at = listener(f"tcp-{port}", "TCP", port)
    site.world.port(at)
    if refs:
        site.world.l4(at, *refs)
    site.proxy.apply(site.world)
    return at.port


def test_tcp(site):
    port = tcp(site, to("a"))
    assert banner(port) == "a"


def test_tcp_without_anywhere_to_go_closes(site):
    for refs in ((), (to("empty"),), (to(None),), (to("a", 0),)):
        assert banner(tcp(site, *refs)) == ""


def test_tcp_weights(site):
    port = tcp(site, to("a", 5), to("b", 3), to(None, 2), to("c", 0))
    counts = {}
    for _ in range(400):
        who = banner(port)
        counts[who] = counts.get(who, 0) + 1
    assert set(counts) == {"a", "b", ""}
    for who, share in (("a", 0.5), ("b", 0.3), ("", 0.2)):
        assert abs(counts[who] - 400 * share) <= 6 * (400 * share * (1 - share)) ** 0.5


def test_tcp_on_several_addresses(site):
    port = free_port()
    at = listener(f"tcp-{port}", "TCP", port)
    site.world.port(at, addresses=("127.0.0.1", "127.0.0.3"))
    site.world.l4(at, to("a"))
    site.proxy.apply(site.world)
    for address in ("127.0.0.1", "127.0.0.3"):
        with socket.create_connection((address, at.port), timeout=10) as s:
            assert s.recv(10) == b"a\n"


def test_a_tcp_connection_outlives_another_ports_change(site):
    port = tcp(site, to("a"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        assert s.recv(10) == b"a\n"
        tcp(site, to("b"))
        s.sendall(b"still")
        assert s.recv(10) == b"still"


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(site):
    """TLS backends s and t, for names of their own."""
    backends = {name: TcpBackend(name, CA.server(CA.issue(f"{name}.test", f"*.{name}.test"))) for name in "st"}
    for name, backend in backends.items():
        site.world.backend(name, backend.port, protocol="TCP")
    yield backends
    for backend in backends.values():
        backend.close()


def passthrough(name, port, hostname):
    return listener(f"{name}-{port}", "TLS", port, hostname, ListenerTls("Passthrough"))


def test_passthrough_by_sni(site, secure):
    """The most specific hostname wins; a listener without a route closes, as an unknown SNI does."""
    port = free_port()
    wide, deep = passthrough("wide", port, "*.s.test"), passthrough("deep", port, "t.test")
    lonely = passthrough("lonely", port, "lonely.s.test")
    site.world.port(wide, deep, lonely)
    site.world.l4(wide, to("s"), hostname="*.s.test", mode="Passthrough", kind="TLSRoute")
    site.world.l4(deep, to("t"), hostname="t.test", mode="Passthrough", kind="TLSRoute")
    site.proxy.apply(site.world)
    assert banner(port, "x.s.test", CLIENT) == "s"
    assert banner(port, "t.test", CLIENT) == "t"
    for sni in ("lonely.s.test", "unknown.test", "s.test"):
        assert banner(port, sni, CLIENT) == ""


def test_what_passes_through_is_not_encrypted_again(site, secure):
    """A BackendTLSPolicy is for connections whose TLS ends at the Gateway; both kinds can share the backend."""
    validation = site.world.secret("validation", "inner", CA.chain)
    site.world.backend("both", secure["s"].port, protocol="TCP", tls=BackendTls("s.test", validation))
    port = free_port()
    through, ended = passthrough("through", port, "s.test"), terminate(site, "ended", port, "ended.test")
    site.world.port(through, ended)
    site.world.l4(through, to("both"), hostname="s.test", mode="Passthrough", kind="TLSRoute")
    site.world.l4(ended, to("both"), hostname="ended.test", mode="Terminate", kind="TLSRoute")
    site.proxy.apply(site.world)
    assert banner(port, "s.test", CLIENT) == "s"
    assert banner(port, "ended.test", CLIENT) == "s"


def test_passthrough_without_anywhere_to_go_closes_without_alert(site, secure):
    for target in (to("empty"), to(None)):
        port = free_port()
        at = passthrough("all", port, "")
        site.world.port(at)
        site.world.l4(at, target, hostname="*", mode="Passthrough", kind="TLSRoute")
        site.proxy.apply(site.world)
        assert banner(port, "any.test", CLIENT) == ""


def terminate(site, name, port, hostname):
    pair = CA.issue(hostname)
    key = site.world.secret("certificate", f"{name}-{port}", pair.chain, pair.private_key)
    return listener(f"{name}-{port}", "TLS", port, hostname, ListenerTls("Terminate", (key,)))


def test_terminate(site):
    port = free_port()
    at, bad = terminate(site, "good", port, "good.test"), terminate(site, "bad", port, "bad.test")
    site.world.port(at, bad)
    site.world.l4(at, to("a"), to("b"), hostname="good.test", mode="Terminate", kind="TLSRoute")
    site.world.l4(bad, to(None), hostname="bad.test", mode="Terminate", kind="TLSRoute")
    site.proxy.apply(site.world)
    found = set()
    wait_for(lambda: found.add(banner(port, "good.test", CLIENT)) or found == {"a", "b"}, "both backends")
    assert banner(port, "bad.test", CLIENT) == ""


def test_terminate_and_encrypt_again(site):
    backend = TcpBackend("again", CA.server(CA.issue("inner.test")))
    try:
        validation = site.world.secret("validation", "inner", CA.chain)
        site.world.backend("again", backend.port, protocol="TCP", tls=BackendTls("inner.test", validation))
        site.world.backend("liar", backend.port, protocol="TCP", tls=BackendTls("liar.test", validation))
        port = free_port()
        one, two = terminate(site, "one", port, "one.test"), terminate(site, "two", port, "two.test")
        site.world.port(one, two)
        site.world.l4(one, to("again"), hostname="one.test", mode="Terminate", kind="TLSRoute")
        site.world.l4(two, to("liar"), hostname="two.test", mode="Terminate", kind="TLSRoute")
        site.proxy.apply(site.world)
        assert banner(port, "one.test", CLIENT) == "again"
        assert banner(port, "two.test", CLIENT) == ""
    finally:
        backend.close()


def test_every_kind_of_tls_on_one_port(site, secure):
    port = free_port()
    pair = CA.issue("web.test")
    key = site.world.secret("certificate", f"web-{port}", pair.chain, pair.private_key)
    web = listener(f"web-{port}", "HTTPS", port, "web.test", ListenerTls("Terminate", (key,)))
    through, ended = passthrough("through", port, "s.test"), terminate(site, "ended", port, "ended.test")
    site.world.port(web, through, ended)
    site.world.host(web, "web.test", entry(backends=()))
    site.world.l4(through, to("s"), hostname="s.test", mode="Passthrough", kind="TLSRoute")
    site.world.l4(ended, to("a"), hostname="ended.test", mode="Terminate", kind="TLSRoute")
    site.proxy.apply(site.world)
    assert banner(port, "s.test", CLIENT) == "s"
    assert banner(port, "ended.test", CLIENT) == "a"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        connection = CLIENT.wrap_socket(plain, server_hostname="web.test")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 500")


# --- UDP --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def udp_backends(site):
    backends = {name: UdpBackend(name) for name in ("ua", "ub")}
    for name, backend in backends.items():
        site.world.backend(name, backend.port, protocol="UDP")
    site.world.backend("uempty", protocol="UDP")
    yield backends
    for backend in backends.values():
        backend.close()


def udp(site, *refs):
    port = free_port(socket.SOCK_DGRAM)
    at = listener(f"udp-{port}", "UDP", port)
    site.world.port(at, transport="UDP")
    if refs:
        site.world.l4(at, *refs, transport="UDP", kind="UDPRoute")
    site.proxy.apply(site.world)
    return at.port


def exchange(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.sendto(b"ping", ("127.0.0.1", port))
        return s.recv(100).decode()


def test_udp(site, udp_backends):
    port = udp(site, to("ua", protocol="UDP"))
    assert exchange(port) == "ua"


def test_udp_sessions_stay(site, udp_backends):
    port = udp(site, to("ua", protocol="UDP"), to("ub", protocol="UDP"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        answers = set()
        for _ in range(10):
            s.sendto(b"ping", ("127.0.0.1", port))
            answers.add(s.recv(100))
        assert len(answers) == 1


def test_udp_weights(site, udp_backends):
    """Each new session goes by weight; the share that leads nowhere is dropped."""
    names = [("ua", 4), ("ub", 3), (None, 2), ("uempty", 1)]
    port = udp(site, *(to(name, weight, "UDP") for name, weight in names))
    before = {name: backend.received for name, backend in udp_backends.items()}
    times = 400
    with contextlib.ExitStack() as stack:
        for i in range(times):
            s = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            s.sendto(b"ping", ("127.0.0.1", port))
            # In step with the proxy, or the sockets' buffers overflow.
            sent = site.proxy.stat
            if i % 50 == 49:
                wait_for(
                    lambda i=i, sent=sent: sent(f"cluster.weighted/udp/{port}.udp.sess_tx_datagrams") == i + 1,
                    "datagrams",
                )
        for name, backend in udp_backends.items():
            # Queues keep their order: once this one is answered, all that Envoy sent has been counted.
            assert exchange(backend.port) == name
    counts = {name: backend.received - before[name] - 1 for name, backend in udp_backends.items()}
    for name, share in (("ua", 0.4), ("ub", 0.3)):
        assert abs(counts[name] - times * share) <= 6 * (times * share * (1 - share)) ** 0.5, counts


def test_udp_endpoints_of_a_weighted_route_change(site, udp_backends):
    port = udp(site, to("ua", 1, "UDP"), to("uempty", 1, "UDP"))
    site.world.backend("uempty", udp_backends["ub"].port, protocol="UDP")
    site.proxy.apply(site.world)
    try:
        found = set()
        wait_for(lambda: found.add(exchange(port)) or found == {"ua", "ub"}, "the new endpoint")
    finally:
        site.world.backend("uempty", protocol="UDP")
        site.proxy.apply(site.world)


def test_udp_without_anywhere_to_go_is_dropped(site, udp_backends):
    for refs in ((), (to(None, protocol="UDP"),), (to("uempty", protocol="UDP"),)):
        port = udp(site, *refs)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("127.0.0.1", port))
            s.settimeout(0.2)
            s.send(b"ping")
            with pytest.raises(TimeoutError):
                s.recv(10)
