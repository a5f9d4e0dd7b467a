"""Discovered filter chains in real Envoy: they answer as chains inside the Listener do, and change alone."""

import contextlib
import http.client
import random
import socket
import ssl
from hashlib import sha256
from types import SimpleNamespace

import pytest

from propylon import api
from propylon.envoy import EnvoySettings
from propylon.envoy.resource import FILTER_CHAIN
from propylon.graph.model import ClientValidation, L4Key, ListenerTls, Redirect, SecretKey
from propylon.xds import FCDS
from support.envoy_backends import TcpBackend
from support.envoy_certificates import Authority
from support.envoy_proxy import Proxy, free_port, wait_for
from support.envoy_world import GATEWAY, World, entry, listener, ref

pytestmark = pytest.mark.feature

CA = Authority()
CLIENT = CA.client(verify=False, alpn=("http/1.1",))
KNOWN_CLIENT = CA.client(CA.issue("client.test"), verify=False, alpn=("http/1.1",))
STRANGE_CLIENT = CA.client(Authority("strange").issue("client.test"), verify=False, alpn=("http/1.1",))
DRAIN_SECONDS = 1

# --- asking -----------------------------------------------------------------------------------------------------------


def connect(port, sni, context=CLIENT):
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname=sni)
    except BaseException:
        plain.close()
        raise


class Lasting:
    """A connection of HTTP/1.1 that stays."""

    def __init__(self, port, host, context=CLIENT):
        self.host = host
        self.socket = connect(port, host, context)

    def ask(self):
        """Location of the answer, with "!" if it is the last one of this connection; None if it was closed."""
        try:
            self.socket.sendall(f"GET / HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(self.socket)
            answer.begin()
            answer.read()
        except (OSError, http.client.HTTPException):
            return None
        return answer.getheader("location", str(answer.status)) + ("!" if answer.getheader("connection") else "")

    def close(self):
        self.socket.close()


def outcome(port, sni, host, context):
    """Everything a client can tell: certificate, status and Location, or how it was turned away."""
    try:
        secure = connect(port, sni, context)
    except ssl.SSLEOFError:
        return "closed"
    except ssl.SSLError as error:
        return error.reason
    except OSError:
        return "closed"
    with secure:
        certificate = sha256(secure.getpeercert(binary_form=True)).hexdigest()[:8]
        try:
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = secure.recv(4096).decode("latin-1").replace(f":{port}", "")
        except OSError:
            return certificate, "refused"  # whether the alert comes before the end is a matter of luck
    told = [line for line in answer.split("\r\n") if line.startswith(("HTTP/", "location"))]
    return certificate, told or answer.partition("\n")[0]  # what a TCP backend echoes behind its name may come later


def leads_to(name):
    return entry(
        route=name, filters=(Redirect(api.HTTPRequestRedirectFilter(hostname=f"{name}.chosen", status_code=302)),)
    )


# --- the oracle -------------------------------------------------------------------------------------------------------

HOSTNAMES = (
    "", "*.test", "a.test", "*.a.test", "b.a.test", "*.b.a.test", "c.b.a.test", "other.test", "*.wild.org", "x.wild.org"
)  # fmt: skip
ASKED = (
    *(h for h in HOSTNAMES if "*" not in h and h), "A.Test", "z.a.test", "y.z.a.test", "z.b.a.test", "z.c.b.a.test",
    "test", "deep.er.wild.org", "wild.org", "X.WILD.org", "nobody.example", "a.testing", None
)  # fmt: skip
PAIRS = {hostname: CA.issue(hostname or "any.test") for hostname in HOSTNAMES}


SEEDS = 12


def free_ports(count):
    """Pairs of ports of which no two are the same."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return list(zip(ports[::2], ports[1::2], strict=True))


def random_world(site, dice):
    """Listeners of every kind on one TLS port and a plain port, the same for the same dice."""
    world, (port, plain) = site.world, site.ports.pop()
    for key in list(world.graph.ports):
        world.graph.ports.remove(key)
    for key in list(world.graph.l4_routes):
        world.graph.l4_routes.remove(key)
    listeners = []
    for number, hostname in enumerate(dice.sample(HOSTNAMES, dice.randint(1, len(HOSTNAMES)))):
        kind = dice.choice(["HTTPS", "HTTPS", "mutual", "insecure", "passthrough", "terminate", "lonely"])
        pair = PAIRS[hostname]
        key = world.secret("certificate", f"pair-{hostname.replace('*', 'any') or 'all'}", pair.chain, pair.private_key)
        validation = None
        if kind in {"mutual", "insecure"}:
            validation = ClientValidation(world.secret("validation", "clients", CA.chain), kind == "mutual")
        mode = "Passthrough" if kind == "passthrough" else "Terminate"
        tls = ListenerTls(mode, (key,) if mode == "Terminate" else (), client_validation=validation)
        protocol = "TLS" if kind in {"passthrough", "terminate", "lonely"} else "HTTPS"
        holder = dice.choice([None, "one", "two"])
        each = listener(f"l{number}", protocol, port, hostname, tls, listener_set=holder)
        listeners.append(each)
        if protocol == "HTTPS":
            world.host(each, hostname or "*", leads_to(f"l{number}"))
        elif kind != "lonely":
            narrower = [hostname or "*"]
            if hostname.startswith("*") and dice.random() < 0.5:
                narrower.append(hostname.replace("*", "narrow"))
            for sni in narrower:
                target = ref(dice.choice(["s", "t"]) if mode == "Passthrough" else "p", protocol="TCP")
                world.l4(each, target, hostname=sni, mode=mode, kind="TLSRoute", route=f"r{number}")
    world.port(*listeners)
    web = listener("web", "HTTP", plain)
    world.port(web)
    world.host(web, "a.test", leads_to("plain"))
    site.proxy.apply(world)
    return SimpleNamespace(port=port, plain=plain, listeners=listeners)


@pytest.fixture(scope="module")
def forms():
    """The same worlds, with chains inside Listeners and with discovered ones."""
    backends = {name: TcpBackend(name, CA.server(CA.issue(f"{name}.test"))) for name in "st"}
    backends["p"] = TcpBackend("p")
    sites = []
    for discover in (False, True):
        world = World(EnvoySettings(access_log=False, discover_chains=discover))
        site = SimpleNamespace(world=world, proxy=Proxy(), ports=free_ports(2 * SEEDS))
        for name, backend in backends.items():
            site.world.backend(name, backend.port, protocol="TCP")
        sites.append(site)
    yield sites
    for site in sites:
        site.proxy.close()
    for backend in backends.values():
        backend.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_discovered_chains_answer_as_those_inside(forms, seed):
    worlds = [random_world(site, random.Random(seed)) for site in forms]
    assert not any(type_url == FILTER_CHAIN for type_url, _ in forms[0].proxy.sent)
    dice = random.Random(seed)
    seen = set()
    for sni in ASKED:
        context = dice.choice([CLIENT, CLIENT, KNOWN_CLIENT, STRANGE_CLIENT])
        for host in {sni or "a.test", dice.choice(ASKED[:-1]), "a.test:443"}:
            one, other = (outcome(world.port, sni, host, context) for world in worlds)
            assert one == other, (sni, host, worlds[0].listeners)
            seen.add(str(one))
    for world in worlds:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", world.plain, timeout=10)) as plain:
            plain.request("GET", "/", headers={"Host": "a.test"})
            assert plain.getresponse().getheader("location").startswith("http://plain.chosen")
    assert seen


# --- changes, and who notices -----------------------------------------------------------------------------------------


class Site:
    """HTTPS listeners h0.test, h1.test... of a ListenerSet each; some of the Gateway's own."""

    def __init__(self, count, own=0):
        self.world = World(EnvoySettings(access_log=False))
        self.port = free_port()
        self.backend = TcpBackend("b", CA.server(CA.issue("through.test")))
        self.world.backend("b", self.backend.port, protocol="TCP")
        pair = CA.issue("*.test")
        self.pairs = [self.world.secret("certificate", f"pair{i}", pair.chain, pair.private_key) for i in (0, 1)]
        self.listeners = {f"h{i}.test": self.https(f"h{i}.test", pair=int(i == 1)) for i in range(count)}
        self.listeners |= {f"own{i}.test": self.https(f"own{i}.test", own=True) for i in range(own)}
        self.listeners["*.test"] = self.https("*.test", own=bool(own))
        through = listener("through", "TLS", self.port, "through.test", ListenerTls("Passthrough"), listener_set="t")
        self.listeners["through.test"] = through
        self.world.l4(through, ref("b", protocol="TCP"), hostname="through.test", mode="Passthrough", kind="TLSRoute")
        self.proxy = Proxy("--drain-time-s", str(DRAIN_SECONDS))
        self.apply()

    def https(self, hostname, pair=0, own=False):
        holder = None if own else f"set-{hostname.replace('*', 'any')}"
        tls = ListenerTls("Terminate", (self.pairs[pair],))
        each = listener(hostname.replace("*", "any"), "HTTPS", self.port, hostname, tls, listener_set=holder)
        self.world.host(each, hostname, leads_to(hostname.replace("*.", "any-")))
        return each

    def apply(self):
        """Take over `listeners`; the (kind, name) of resources that were sent or removed."""
        before = dict(self.proxy.sent)
        self.world.port(*self.listeners.values())
        self.proxy.apply(self.world)
        after = self.proxy.sent
        changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
        return sorted((type_url.rpartition(".")[2], name) for type_url, name in changed)

    def chains(self, *names):
        return [("FilterChain", f"tcp/{self.port}/{name}") for name in names]

    def close(self):
        self.proxy.close()
        self.backend.close()


class Others:
    """Connections that must not notice: HTTP on several listeners, a request half sent, bytes passed through."""

    def __init__(self, port, *hosts):
        self.lasting = [Lasting(port, host) for host in hosts]
        self.answers = [each.ask() for each in self.lasting]
        assert all(answer and not answer.endswith("!") for answer in self.answers)
        self.half = Lasting(port, hosts[0])
        self.half.socket.sendall(f"POST / HTTP/1.1\r\nHost: {hosts[0]}\r\nContent-Length: 10\r\n\r\n12345".encode())
        self.stream = connect(port, "through.test")
        assert self.stream.recv(100) == b"b\n"

    def check(self):
        assert [each.ask() for each in self.lasting] == self.answers
        self.stream.sendall(b"still here")
        assert self.stream.recv(100) == b"still here"

    def finish(self):
        self.check()
        self.half.socket.sendall(b"67890")
        assert b"302" in self.half.socket.recv(4096)
        for each in (*self.lasting, self.half):
            each.close()
        self.stream.close()


@pytest.fixture
def site(request):
    each = Site(*request.param) if hasattr(request, "param") else Site(6, own=2)
    yield each
    each.close()


def drained(lasting):
    """Wait until a connection is closed; it is asked, so whatever is left of it is used."""
    wait_for(lambda: lasting.ask() is None, "the connection being closed")
    lasting.close()


def test_one_listener_changes_alone(site):
    """One resource is sent; its own connections are asked to leave and replaced, those of all others stay."""
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    mine = Lasting(site.port, "h5.test")
    assert "h5.test.chosen" in mine.ask()
    site.listeners["h5.test"] = site.https("h5.test", pair=1)
    assert site.apply() == site.chains("h5.test")
    drained(mine)
    others.check()
    assert "h5.test.chosen" in Lasting(site.port, "h5.test").ask()
    others.finish()


def test_a_listener_is_added(site):
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    wide = Lasting(site.port, "new.test")
    site.listeners["new.test"] = site.https("new.test")
    sent = site.apply()
    assert ("Listener", f"tcp/{site.port}") in sent
    assert [each for each in sent if each[0] == "FilterChain"] == site.chains("new.test")
    wait_for(lambda: "new.test.chosen" in Lasting(site.port, "new.test").ask(), "the new listener answering")
    assert wide.ask() is not None, "what was begun under the wildcard stays there"
    others.finish()


def test_a_listener_is_removed_with_its_connections_and_envoy_survives(site):
    """Envoy 1.40 crashes if a chain goes out of its Listener's matcher while it has connections."""
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    mine = Lasting(site.port, "h5.test")
    assert "h5.test.chosen" in mine.ask()
    del site.listeners["h5.test"]
    assert set(site.apply()) >= {*site.chains("h5.test"), ("Listener", f"tcp/{site.port}")}
    wait_for(lambda: "any-test.chosen" in Lasting(site.port, "h5.test").ask(), "the wider listener answering")
    drained(mine)
    for pair in (1, 0):  # what nobody uses any more is freed with the next change of any chain
        site.listeners["h4.test"] = site.https("h4.test", pair)
        site.apply()
        others.check()
    site.listeners["h5.test"] = site.https("h5.test")
    site.apply()
    wait_for(lambda: "h5.test.chosen" in Lasting(site.port, "h5.test").ask(), "the listener being back")
    others.finish()
    assert site.proxy.alive


def test_a_listener_moves_between_its_gateway_and_a_set(site):
    """Its chain goes into the Listener and out again, under the same name; only its own connections notice."""
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    for own in (True, False, True):
        mine = Lasting(site.port, "h5.test")
        site.listeners["h5.test"] = site.https("h5.test", own=own)
        assert set(site.apply()) >= {*site.chains("h5.test"), ("Listener", f"tcp/{site.port}")}
        wait_for(lambda: "h5.test.chosen" in (Lasting(site.port, "h5.test").ask() or ""), "it answers")
        drained(mine)
        others.check()
    others.finish()
    assert site.proxy.alive


@pytest.mark.parametrize("site", [(0, 1)], indirect=True)
def test_a_gateway_grows_and_shrinks_unnoticed(site):
    """From one listener of its own to a hundred more and back: no connection of the others is closed."""
    others = Others(site.port, "own0.test", "else.test")
    for size in (1, 10, 100, 3):
        kept = {name: each for name, each in site.listeners.items() if not name.startswith("h")}
        site.listeners = {**{f"h{i}.test": site.https(f"h{i}.test") for i in range(size)}, **kept}
        site.apply()
        last = f"h{size - 1}.test"
        wait_for(lambda last=last: f"{last}.chosen" in (Lasting(site.port, last).ask() or ""), f"{last} answering")
        others.check()
    others.finish()
    assert site.proxy.alive


def test_a_refused_chain_is_named_and_its_neighbours_go_on(site):
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    broken = site.chains("h3.test")[0][1]
    good = site.proxy.sent[FCDS, site.chains("h2.test")[0][1]]
    changed = site.https("h2.test", pair=1)
    site.listeners["h2.test"] = changed
    site.world.port(*site.listeners.values())
    bodies = {key: resource.body for key, resource in site.world.resources().items() if key[0] == FCDS}
    assert bodies[FCDS, site.chains("h2.test")[0][1]] != good
    refused = b"\x1a\x09\x0a\x07nothing" + bodies[FCDS, broken]  # a network filter that Envoy does not know
    site.proxy.update({**bodies, (FCDS, broken): refused})
    (rejection,) = wait_for(lambda: list(site.proxy.rejected), "the refusal")
    assert rejection.name == (FCDS, broken)
    assert "nothing" in rejection.message
    wait_for(site.proxy.settled, "the others being acknowledged")
    assert "h3.test.chosen" in Lasting(site.port, "h3.test").ask(), "the last good version stays"
    others.finish()


def test_a_chain_without_its_secret_keeps_nobody_waiting(site):
    """Its own SNI is turned away; the Listener goes on, and the chain serves as soon as it can."""
    others = Others(site.port, "h0.test", "h1.test", "own0.test", "else.test")
    pair = CA.issue("late.test")
    late = SecretKey("certificate", "default", "late")
    tls = ListenerTls("Terminate", (late,))
    each = listener("late", "HTTPS", site.port, "late.test", tls, listener_set="late")
    site.world.host(each, "late.test", leads_to("late.test"))
    site.listeners["late.test"] = each
    site.listeners["soon.test"] = site.https("soon.test")
    site.apply()
    wait_for(lambda: "soon.test.chosen" in (Lasting(site.port, "soon.test").ask() or ""), "its neighbour answering")
    with pytest.raises(OSError):
        connect(site.port, "late.test")
    site.world.secret("certificate", "late", pair.chain, pair.private_key)
    site.apply()

    def answers():
        with contextlib.suppress(OSError):
            return "late.test.chosen" in (Lasting(site.port, "late.test").ask() or "")

    wait_for(answers, "the late listener answering")
    del site.listeners["late.test"]
    site.apply()
    others.finish()
    assert site.proxy.alive


def test_a_route_of_a_passthrough_listener_changes_alone(site):
    """TLSRoutes' hostnames are chains of their own, also where the listener is the Gateway's."""
    tls = ListenerTls("Passthrough")
    site.listeners["*.through.org"] = wide = listener("wide", "TLS", site.port, "*.through.org", tls)
    for name in ("one", "two"):
        hostname = f"{name}.through.org"
        site.world.l4(wide, ref("b", protocol="TCP"), hostname=hostname, mode="Passthrough", route=name)
    site.apply()
    stream = connect(site.port, "one.through.org")
    assert stream.recv(100) == b"b\n"
    key = L4Key(GATEWAY, site.port, "TCP", "two.through.org")
    site.world.graph.l4_routes.remove(key)
    sent = site.apply()
    assert site.chains("two.through.org")[0] in sent
    assert site.chains("one.through.org")[0] not in sent
    stream.sendall(b"on")
    assert stream.recv(100) == b"on"
    stream.close()
