"""The path tree in real Envoy: it answers every request as the list does, and hosts grow into it unnoticed."""

import http.client
import random
import threading

import pytest
from envoy.config.route.v3 import route_pb2

from propylon import api
from propylon.envoy import EnvoySettings, path_tree, virtual_host
from propylon.graph.model import Match, Redirect, ValueMatch
from support.envoy_site import Site
from support.envoy_world import entry

pytestmark = pytest.mark.feature

SEGMENTS = ["a", "b", "ab", "a.b", "A", "~", ""]
PATTERNS = ["/a.*", "/.*b", ".*", "/a/b?", "/ab+", "/a|/b", "(?i)/a/B", "/a/[ab]+/.*", "^/a/b$", "/a\\.b", "/(a|b)/a"]


@pytest.fixture(scope="module")
def site():
    each = Site(EnvoySettings(access_log=False))
    yield each
    each.close()


def leads_to(name, match):
    """An entry that says in Location that it was chosen."""
    redirect = api.HTTPRequestRedirectFilter(hostname=f"{name}.test", status_code=302)
    return entry(match, route=name, filters=(Redirect(redirect),))


def random_path(dice):
    return "/" + "/".join(dice.choice(SEGMENTS) for _ in range(dice.randrange(4)))


def random_match(dice):
    kind = dice.choice(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"])
    path = dice.choice(PATTERNS) if kind == "RegularExpression" else random_path(dice)
    headers = (ValueMatch("x-a", dice.choice("12")),) if dice.random() < 0.2 else ()
    query = (ValueMatch("q", dice.choice("12")),) if dice.random() < 0.2 else ()
    return Match(path, kind, dice.choice([None, None, None, "POST"]), headers, query)


def random_request(dice):
    path = random_path(dice) + dice.choice(["", "", "/", "?q=1", "?q=2&x=/a/b", "/../a", "/%61"])
    return dice.choice(["GET", "GET", "POST"]), path, {"x-a": dice.choice("123")} if dice.random() < 0.5 else {}


def is_tree(site, name):
    """Whether Envoy was given a tree for this host."""
    for (type_url, _), body in site.proxy.sent.items():
        if type_url.endswith(".RouteConfiguration"):
            hosts = route_pb2.RouteConfiguration.FromString(body).virtual_hosts
            return next(host.HasField("matcher") for host in hosts if host.name == name)
    raise AssertionError("there is no RouteConfiguration")


@pytest.mark.parametrize("seed", range(8))
def test_the_tree_answers_as_the_list(site, monkeypatch, seed):
    dice = random.Random(seed)
    entries = [leads_to(f"r{i}", random_match(dice)) for i in range(dice.randrange(2, 30))]
    monkeypatch.setattr(path_tree, "COPIES", 10**9)
    monkeypatch.setattr(virtual_host, "LARGE", 10**9)
    as_list = site.serve(*entries, host=f"list-{seed}.test")
    monkeypatch.setattr(virtual_host, "LARGE", 1)
    as_tree = site.serve(*entries, host=f"tree-{seed}.test")
    assert [is_tree(site, host) for host in (as_list, as_tree)] == [False, True]
    for _ in range(60):
        method, path, headers = random_request(dice)
        answers = [site.ask(host, path, method, headers) for host in (as_list, as_tree)]
        one, two = ((answer.status, answer.headers.get("location")) for answer in answers)
        assert one == two, (method, path, headers)


def test_a_host_grows_into_a_tree_and_back_without_a_failed_request(site):
    stop, failures, answered = threading.Event(), [], [0]
    entries = [leads_to(f"g{i}", Match(f"/g{i}")) for i in range(virtual_host.LARGE + 10)]
    host = site.serve(*entries[:10], host="growing.test")

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
        while not stop.is_set():
            connection.request("GET", "/g3/x", headers={"Host": host})
            response = connection.getresponse()
            response.read()
            answered[0] += 1
            if not (response.getheader("location") or "").startswith("http://g3.test"):
                failures.append((response.status, response.getheader("location")))
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for size in (len(entries), 10, virtual_host.LARGE, virtual_host.LARGE - 1):
            site.serve(*entries[:size], host=host)
            last = entries[size - 1].match.path
            assert is_tree(site, host) == (size >= virtual_host.LARGE)
            assert site.ask(host, last).headers["location"].startswith(f"http://{last[1:]}.test")
    finally:
        stop.set()
        asking.join()
    assert answered[0] > 0
    assert not failures
