"""When a route table may leave its former form."""

from propylon.app.form_changes import SETTLING_SECONDS, FormChanges
from propylon.envoy import EnvoySettings
from propylon.graph.model import Match
from support.envoy_world import World, entry, listener


class Grown:
    """One HTTP table with hosts, scopes from three on."""

    def __init__(self):
        self.world = World(EnvoySettings(access_log=False, scopes_from=3))
        self.listener = listener("http", "HTTP", 80)
        self.world.port(self.listener)
        self.changes = FormChanges(self.world.engine, self.world.forms)
        self.hosts = []

    def grow(self, count):
        for _ in range(count):
            self.hosts.append(self.world.host(self.listener, f"h{len(self.hosts)}.test", entry(Match())))

    def kinds(self, now):
        """Types of route resources after a commit and what follows from it at that time."""
        self.world.resources()
        if self.changes.follow(now):
            self.world.resources()
        found = {type_url.rpartition(".")[2] for type_url, _ in self.world.resources()}
        return found & {"RouteConfiguration", "ScopedRouteConfiguration"}


def test_a_large_table_is_in_scopes_at_once():
    grown = Grown()
    grown.grow(3)
    assert grown.kinds(0) == {"ScopedRouteConfiguration"}
    assert grown.changes.next_at is None


def test_a_table_that_grows_is_in_both_forms_until_the_others_are_drained():
    grown = Grown()
    grown.grow(1)
    assert grown.kinds(0) == {"RouteConfiguration"}
    grown.grow(3)
    assert grown.kinds(10) == {"RouteConfiguration", "ScopedRouteConfiguration"}
    grown.grow(1)
    assert grown.kinds(20) == {"RouteConfiguration", "ScopedRouteConfiguration"}
    assert grown.changes.next_at == 10 + SETTLING_SECONDS
    assert grown.kinds(10 + SETTLING_SECONDS) == {"ScopedRouteConfiguration"}
    assert grown.changes.next_at is None


def test_a_table_that_was_large_stays_in_scopes():
    grown = Grown()
    grown.grow(4)
    grown.kinds(0)
    for key in grown.hosts[1:]:
        grown.world.graph.virtual_hosts.remove(key)
    assert grown.kinds(10) == {"ScopedRouteConfiguration"}
    grown.world.graph.virtual_hosts.remove(grown.hosts[0])
    assert grown.kinds(20) == {"ScopedRouteConfiguration"}


def test_a_table_that_grows_for_a_moment_does_not_go_back():
    grown = Grown()
    grown.grow(2)
    grown.kinds(0)
    grown.grow(1)
    grown.kinds(1)
    grown.world.graph.virtual_hosts.remove(grown.hosts[0])
    assert grown.kinds(2) == {"RouteConfiguration", "ScopedRouteConfiguration"}
    assert grown.kinds(1 + SETTLING_SECONDS) == {"ScopedRouteConfiguration"}


def test_what_was_large_elsewhere_is_taken_over_in_both_forms_first():
    grown = Grown()
    grown.grow(1)
    assert grown.kinds(0) == {"RouteConfiguration"}
    assert grown.changes.large == set()
    (table,) = grown.world.forms.wanted
    assert grown.changes.adopt([table], 10)
    assert grown.kinds(10) == {"RouteConfiguration", "ScopedRouteConfiguration"}
    assert grown.changes.large == {table}
    assert not grown.changes.adopt([table], 20)
    assert grown.kinds(10 + SETTLING_SECONDS) == {"ScopedRouteConfiguration"}


def test_what_was_large_elsewhere_before_it_is_known_here_is_in_scopes_at_once():
    grown = Grown()
    grown.grow(1)
    table = grown.hosts[0].table
    assert grown.changes.adopt([table], 0)
    assert grown.kinds(0) == {"ScopedRouteConfiguration"}
