"""Scopes in real Envoy: they answer as one RouteConfiguration does, and tables grow into them unnoticed."""

import contextlib
import http.client
import random
import threading

import pytest
from envoy.config.route.v3.scoped_route_pb2 import ScopedRouteConfiguration

from propylon import api
from propylon.envoy import EnvoySettings
from propylon.envoy.path_tree import LARGE
from propylon.envoy.scope import HEADER
from propylon.graph.model import ListenerTls, Match, Redirect, ValueMatch, VirtualHostKey
from propylon.xds import machine
from support.envoy_certificates import Authority
from support.envoy_proxy import free_port, wait_for
from support.envoy_site import Site, a
from support.envoy_world import entry, listener

pytestmark = pytest.mark.feature

CA = Authority()
CLIENT = CA.client(verify=False, alpn=("http/1.1",))
NEVER = 10**9
HOSTS = ("one.test", "two.test", "three.test", "deep.wild.test", "large.test", "backend.test", "*.wild.test", "*")
SPELLINGS = (
    "one.test", "ONE.Test", "one.test:80", "one.test:8080", "one.test.", "One.Test.:81", "one.test:x", "two.test",
    "three.test", "deep.wild.test", "DEEP.wild.test:1", "other.wild.test", "a.b.wild.test", "wild.test", "large.test",
    "LARGE.test", "claimed.test", "nobody.test", "NOBODY.test:9", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80",
    "http", "*", "one.test|",
)  # fmt: skip
PATHS = ("/", "/b", "/b/c", "/bc", "/n/3", "/n/30/x", "/n/30?q=1", "/none", "/%62", "/x/../b")


def leads_to(name, match=None):
    """An entry that says in Location that it was chosen."""
    redirect = api.HTTPRequestRedirectFilter(hostname=f"{name}.chosen", status_code=302)
    return entry(match or Match(), route=name, filters=(Redirect(redirect),))


def entries_of(host):
    name = host.replace("*", "any").replace(".", "-")
    if host == "one.test":
        header = Match("/", headers=(ValueMatch("x-a", "1"),))
        return [leads_to(f"{name}-b", Match("/b")), leads_to(f"{name}-header", header)]
    if host == "two.test":
        return [leads_to(name)]
    if host == "large.test":
        return [leads_to(f"{name}-{i}", Match(f"/n/{i}")) for i in range(LARGE + 10)]
    if host == "backend.test":
        return [entry(route="backend", backends=(a,))]
    return [leads_to(f"{name}-b", Match("/b")), leads_to(name, Match("/x", "Exact"))]


@pytest.fixture(scope="module")
def forms():
    """The same hosts, in one RouteConfiguration and in scopes."""
    sites = []
    for limit in (NEVER, 1):
        site = Site(EnvoySettings(access_log=False, scopes_from=limit))
        site.world.port(site.listener, listener("claiming", "HTTP", site.port, "claimed.test"))
        for host in HOSTS:
            site.world.host(site.listener, host, *entries_of(host))
        site.proxy.apply(site.world)
        sites.append(site)
    yield sites
    for site in sites:
        site.close()


def kinds(site):
    return {type_url.rpartition(".")[2] for type_url, _ in site.proxy.sent}


def test_the_forms_differ(forms):
    assert "RouteConfiguration" in kinds(forms[0])
    assert "ScopedRouteConfiguration" not in kinds(forms[0])
    assert "ScopedRouteConfiguration" in kinds(forms[1])
    assert "RouteConfiguration" not in kinds(forms[1])
    scopes = {name for type_url, name in forms[1].proxy.sent if type_url.endswith(".ScopedRouteConfiguration")}
    assert len(scopes) == len([host for host in HOSTS if "*" not in host]) + 1


def answers(forms, host, path, method="GET", headers=()):
    found = []
    for site in forms:
        answer = site.ask(host, path, method, headers)
        location = answer.headers.get("location", "").replace(f":{site.port}", "")
        found.append((answer.status, location))
    return found


@pytest.mark.parametrize("host", SPELLINGS)
def test_scopes_answer_as_one_route_configuration(forms, host):
    dice = random.Random(host)
    for path in PATHS:
        headers = dice.choice([{}, {"x-a": "1"}, {HEADER: "two.test"}, {HEADER: f"http/{forms[1].port}|two.test"}])
        one, other = answers(forms, host, path, dice.choice(["GET", "POST"]), headers)
        assert one == other, (host, path, headers)


def test_every_kind_of_answer_was_among_them(forms):
    assert answers(forms, "one.test", "/b")[1] == (302, "http://one-test-b.chosen/b")
    assert answers(forms, "ONE.test:7", "/b")[1] == (302, "http://one-test-b.chosen/b")
    assert answers(forms, "one.test", "/x")[1] == (404, ""), "it has routes of its own"
    assert answers(forms, "other.wild.test", "/x")[1] == (302, "http://any-wild-test.chosen/x")
    assert answers(forms, "nobody.test", "/b")[1] == (302, "http://any-b.chosen/b")
    assert answers(forms, "claimed.test", "/b")[1] == (404, "")
    assert answers(forms, "large.test", "/n/30/x")[1] == (302, "http://large-test-30.chosen/n/30/x")


def test_backends_do_not_see_the_scope(forms):
    for site in forms:
        for host in ("backend.test", "BACKEND.test"):
            answer = site.ask(host, "/", headers={"x-mine": "1"})
            assert answer.status == 200
            assert HEADER not in str(answer.body)


def test_ports_and_their_scopes_are_apart(forms):
    site = forms[1]
    second = listener("second", "HTTP", free_port())
    site.world.port(second)
    site.world.host(second, "one.test", leads_to("second"))
    site.proxy.apply(site.world)
    here = http.client.HTTPConnection("127.0.0.1", second.port, timeout=20)
    here.request("GET", "/b", headers={"Host": "one.test"})
    assert here.getresponse().getheader("location").startswith("http://second.chosen")
    here.close()
    assert answers(forms, "one.test", "/b")[1] == (302, "http://one-test-b.chosen/b")


def test_one_host_changes_one_scope(forms):
    site = forms[1]
    before = dict(site.proxy.sent)
    site.world.host(site.listener, "three.test", leads_to("changed"))
    site.proxy.apply(site.world)
    changed = {key for key, body in site.proxy.sent.items() if before.get(key) != body}
    names = [ScopedRouteConfiguration.FromString(site.proxy.sent[key]).route_configuration.name for key in changed]
    assert names == [f"http/{site.port}|three.test"]
    assert site.ask("three.test").headers["location"].startswith("http://changed.chosen")


class Secure(http.client.HTTPConnection):
    """A connection with TLS to 127.0.0.1, as to the host of that name."""

    def __init__(self, port, name):
        super().__init__("127.0.0.1", port, timeout=20)
        self.name = name

    def connect(self):
        super().connect()
        self.sock = CLIENT.wrap_socket(self.sock, server_hostname=self.name)


class Asking:
    """Requests one after the other, on a lasting connection and on new ones, until it ends."""

    def __init__(self, port, host, secure=False):
        self.port, self.host, self.secure = port, host, secure
        self.failures, self.answered = [], 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(lasting,)) for lasting in (True, False)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, lasting):
        plain = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection = Secure(self.port, self.host) if self.secure else plain
        while not self._stop.is_set():
            try:
                connection.request("GET", "/b", headers={"Host": self.host})
                response = connection.getresponse()
                response.read()
                self.answered += 1
                if response.status != 302:
                    self.failures.append(response.status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            if not lasting:
                connection.close()
        connection.close()


def test_a_table_grows_into_scopes_without_a_failed_or_outdated_request():
    site = Site(EnvoySettings(access_log=False, scopes_from=5))
    try:
        site.serve(leads_to("kept", Match("/b")), host="kept.test")
        (table,) = site.world.forms.wanted
        site.world.forms.settled.set(table, "one")
        lasting = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)

        def ask_lasting(host):
            lasting.request("GET", "/b", headers={"Host": host})
            response = lasting.getresponse()
            response.read()
            return response.status

        assert ask_lasting("kept.test") == 302
        with Asking(site.port, "kept.test") as asking:
            for number in range(8):
                site.serve(leads_to(f"h{number}"), host=f"h{number}.test")
                assert site.ask(f"h{number}.test").status == 302
                assert ask_lasting(f"h{number}.test") == 302
            assert {"ScopedRouteConfiguration", "RouteConfiguration"} <= kinds(site)
            asked = asking.answered
            wait_for(lambda: asking.answered > asked + 50, "requests under both forms")
        assert not asking.failures
        lasting.close()
        site.world.forms.settled.set(table, "scopes")  # everything from before is drained
        with Asking(site.port, "kept.test") as asking:
            site.proxy.apply(site.world)
            assert "RouteConfiguration" not in kinds(site)
            for number in range(8):
                site.world.graph.virtual_hosts.remove(VirtualHostKey(table, f"h{number}.test"))
                site.proxy.apply(site.world)
                assert site.ask(f"h{number}.test").status == 404
            assert "RouteConfiguration" not in kinds(site), "what was large once stays as it is"
        assert asking.answered
        assert not asking.failures
    finally:
        site.close()


def test_a_new_proxy_knows_all_hostnames_when_it_begins_to_serve(monkeypatch):
    """As after a hot restart: what it does not know yet it would answer with 404, though its predecessor knew."""
    monkeypatch.setattr(machine, "SCOPES_BYTES", 2000)
    site = Site(EnvoySettings(scopes_from=2))
    try:
        hosts = [f"h{number}.test" for number in range(300)]
        for host in hosts:
            site.world.host(site.listener, host, leads_to("known"))
        answers = []

        def ask():
            while len(answers) < 40:
                try:
                    answers.append(site.ask(hosts[len(answers) * 7 % 300], "/b").status)
                except OSError:
                    continue  # it does not serve yet

        asking = threading.Thread(target=ask)
        asking.start()
        site.proxy.apply(site.world)
        asking.join(30)
        assert answers == [302] * 40
    finally:
        site.close()


def grow(site, listeners, monkeypatch):
    """Make tables of these listeners large while they are asked: they are in many parts on the way."""
    monkeypatch.setattr(machine, "SCOPES_BYTES", 4000)
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(Asking(each.port, "kept.test", each.tls is not None)) for each in listeners]
        wait_for(lambda: all(each.answered > 20 for each in asking), "requests before")
        for number in range(300):
            for each in listeners:
                site.world.host(each, f"h{number}.test", leads_to("grown"))
        site.proxy.apply(site.world)
        asked = [each.answered for each in asking]
        wait_for(
            lambda: all(each.answered > before + 50 for each, before in zip(asking, asked, strict=True)),
            "requests after",
        )
    assert [each.failures for each in asking] == [[] for _ in asking]


@pytest.fixture
def two_tables():
    """A site with two HTTP ports, each with a table in one RouteConfiguration, and the second listener."""
    site = Site(EnvoySettings(access_log=False, scopes_from=5))
    second = listener("second", "HTTP", free_port())
    site.world.port(second)
    for each in (site.listener, second):
        site.world.host(each, "kept.test", leads_to("kept", Match("/b")))
    site.proxy.apply(site.world)
    for table in site.world.forms.wanted:
        site.world.forms.settled.set(table, "one")
    yield site, second
    site.close()


def test_two_tables_grow_at_once_without_a_failed_request(two_tables, monkeypatch):
    """Envoy has one subscription for both, for which only the Listener waits that began it."""
    site, second = two_tables
    grow(site, [site.listener, second], monkeypatch)
    assert "TypedExtensionConfig" in kinds(site)


@pytest.mark.parametrize("listener_set", [None, "set"])
def test_an_https_table_grows_with_the_http_table_beside_it(monkeypatch, listener_set):
    """Its chain is inside the Listener, or a resource of its own."""
    site = Site(EnvoySettings(access_log=False, scopes_from=5))
    try:
        pair = CA.issue("*.test")
        certificate = site.world.secret("certificate", "pair", pair.chain, pair.private_key)
        tls = ListenerTls("Terminate", (certificate,))
        secure = listener("secure", "HTTPS", free_port(), "*.test", tls, listener_set=listener_set)
        site.world.port(secure)
        for each in (site.listener, secure):
            site.world.host(each, "kept.test", leads_to("kept", Match("/b")))
        site.proxy.apply(site.world)
        assert ("FilterChain" in kinds(site)) is bool(listener_set)
        for table in site.world.forms.wanted:
            site.world.forms.settled.set(table, "one")
        grow(site, [site.listener, secure], monkeypatch)
    finally:
        site.close()


def test_a_table_grows_beside_one_that_is_large(two_tables, monkeypatch):
    site, second = two_tables
    grow(site, [site.listener], monkeypatch)
    grow(site, [second], monkeypatch)


def test_a_large_table_comes_and_goes_beside_one_that_is_large(two_tables, monkeypatch):
    site, second = two_tables
    grow(site, [site.listener], monkeypatch)
    third = listener("third", "HTTP", free_port())
    answers = []

    def ask():
        while len(answers) < 40:
            connection = http.client.HTTPConnection("127.0.0.1", third.port, timeout=20)
            try:
                connection.request("GET", "/b", headers={"Host": f"h{len(answers) * 7 % 300}.test"})
                answers.append(connection.getresponse().status)
            except OSError:
                continue  # it does not serve yet
            finally:
                connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    key = site.world.port(third)
    hosts = [site.world.host(third, f"h{number}.test", leads_to("third")) for number in range(300)]
    site.proxy.apply(site.world)
    asking.join(30)
    assert answers == [302] * 40
    with Asking(site.port, "kept.test") as asking, Asking(second.port, "kept.test") as other:
        for host in hosts:
            site.world.graph.virtual_hosts.remove(host)
        site.world.graph.ports.remove(key)
        site.proxy.apply(site.world)
        wait_for(lambda: asking.answered > 50 and other.answered > 50, "requests after")
    assert asking.failures == other.failures == []
    assert len([name for type_url, name in site.proxy.sent if type_url.endswith("TypedExtensionConfig")]) == 1


@pytest.fixture
def sixty():
    """A site of sixty scopes, and what it is to be told, not yet told."""
    site = Site(EnvoySettings(access_log=False, scopes_from=2))
    for number in range(60):
        site.world.host(site.listener, f"h{number}.test", leads_to("known"))
    yield site, {key: resource.body for key, resource in site.world.resources().items()}
    site.close()


def hosts_of(changes):
    """Scope -> its exact hostname, in the order in which they are told."""
    keys = {key: ScopedRouteConfiguration.FromString(body) for key, body in changes.items() if "ScopedRoute" in key[0]}
    hosts = {key: scope.key.fragments[0].string_key.partition("|")[2] for key, scope in keys.items()}
    return {key: host for key, host in hosts.items() if host != "*"}


def altered(body, **fields):
    """A scope with fields of its first route's match or redirect set."""
    scope = ScopedRouteConfiguration.FromString(body)
    route = scope.route_configuration.virtual_hosts[0].routes[0]
    if "regex" in fields:
        route.match.safe_regex.regex = fields["regex"]
    else:
        route.redirect.host_redirect = fields["host"]
    return scope.SerializeToString()


def refuse(site, changes, bad):
    site.proxy.update({**changes, bad: altered(changes[bad], regex="(")})
    wait_for(lambda: site.proxy.rejected and site.proxy.settled(), "the refusal", 30)
    assert {each.name for each in site.proxy.rejected} == {bad}
    await_listener(site)


def await_listener(site):
    """That is there, and everything that it refers to."""
    wait_for(lambda: f"tcp/{site.port}::" in site.proxy.admin("/listeners?format=text"), "the Listener")
    wait_for(site.proxy.settled, "all else", 30)


def locations(site, hosts):
    return {host: site.ask(host, "/b").headers.get("location", "").split("/")[2:3] for host in hosts}


@pytest.mark.parametrize("place", [0, 30, 59])
@pytest.mark.parametrize("size", [4000, machine.SCOPES_BYTES])
def test_a_refused_scope_does_not_keep_a_new_proxy_from_serving(monkeypatch, sixty, place, size):
    """Nor any other one of its response from being served, wherever it stands in that."""
    monkeypatch.setattr(machine, "SCOPES_BYTES", size)
    site, changes = sixty
    scopes = hosts_of(changes)
    bad = list(scopes)[place]
    refuse(site, changes, bad)
    found = locations(site, scopes.values())
    assert {host: to for host, to in found.items() if to != [f"known.chosen:{site.port}"]} == {scopes[bad]: []}


def test_changes_of_scopes_beside_a_refused_one_take_effect(sixty):
    site, changes = sixty
    site.proxy.update(changes)
    await_listener(site)
    scopes = hosts_of(changes)
    *good, bad = list(scopes)[:4]
    refuse(site, {key: altered(changes[key], host="changed.chosen") for key in (*good, bad)}, bad)
    expected = {scopes[key]: [f"changed.chosen:{site.port}"] for key in good}
    assert locations(site, [scopes[key] for key in (*good, bad)]) == expected | {
        scopes[bad]: [f"known.chosen:{site.port}"]
    }
