"""What one listener of many reads when it changes, comes or goes: alike whatever their number. No clock is asked."""

import pytest
from test_app_listener_proportion import SIZES, Counted, kinds_of, listener_set

from propylon import api
from propylon.incremental import Look

SHARES = 64
"""One that comes or goes reads the joined parts of the Listener's matcher, and what its own part is joined of."""


class Reads:
    """Counts the values that derivations look at."""

    def __init__(self, monkeypatch):
        self.count = 0
        by, get = Look.by, Look.get

        def counting_by(look, index, bucket):
            found = by(look, index, bucket)
            self.count += len(found)
            return found

        def counting_get(look, collection, key):
            self.count += 1
            return get(look, collection, key)

        monkeypatch.setattr(Look, "by", counting_by)
        monkeypatch.setattr(Look, "get", counting_get)

    def taken(self):
        count, self.count = self.count, 0
        return count


@pytest.fixture(scope="module", params=SIZES)
def world(request):
    return Counted(request.param)


def indexed(world):
    """How many index entries the last batch looked at."""
    return sum(world.indexed.values())


@pytest.fixture
def counted(world, monkeypatch):
    commit = world.controller.engine.commit

    def counting():
        done = commit()
        world.indexed = dict(done.indexed)
        return done

    monkeypatch.setattr(world.controller.engine, "commit", counting)
    world.reads = Reads(monkeypatch)
    return world


def test_a_changed_listener_reads_nothing_of_the_others(counted):
    counted.change(listener_set(3, 0, 2))
    assert counted.recomputed <= 20
    assert counted.reads.taken() <= 30
    assert indexed(counted) <= 20


def test_one_that_comes_or_goes_reads_no_listener_of_the_others(counted):
    outcome = counted.change(listener_set(counted.size, 0))
    assert kinds_of(outcome)["FilterChain"] == 1
    per_share = 2 * counted.size // SHARES + 10  # shares differ in size
    assert counted.recomputed <= 32
    assert counted.reads.taken() <= 80 + SHARES + per_share
    assert indexed(counted) <= 30
    group = "gateway.networking.k8s.io"
    counted.controller.set_document(api.ObjectRef(group, "ListenerSet", "shop", f"ls{counted.size}"), None)
    outcome = counted.controller.commit()
    assert kinds_of(outcome)["FilterChain"] == 1
    assert counted.recomputed <= 32
    assert counted.reads.taken() <= 80 + SHARES + per_share
    assert indexed(counted) <= 30


def test_a_wider_hostname_concerns_all_inside_it(counted):
    """The price is where it belongs: a wildcard that comes is told to every listener whose TLS it overlaps."""
    wide = listener_set(counted.size + 1, 0)
    wide["spec"]["listeners"][0]["hostname"] = "*.test"
    outcome = counted.change(wide)
    overlapping = {
        listener.key
        for listener in counted.controller.graph.listeners.snapshot().values()
        if any(finding.condition == "OverlappingTLSConfig" for finding in listener.findings)
    }
    assert len(overlapping) == counted.size + 2, "also the Gateway's own"
    assert len(outcome.statuses) == counted.size + 2
    assert kinds_of(outcome)["FilterChain"] == 1, "nobody is served otherwise"
