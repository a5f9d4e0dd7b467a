"""That the API server does not answer is said once, and not of a connection that is made again at once."""

import logging

import pytest

from propylon.store.cluster.reachability import PATIENCE_SECONDS, REPEAT_SECONDS, Reachability, Seldom


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.INFO, "propylon.store.cluster")
    return Clock()


def test_an_outage_is_said_once_with_its_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    found = Reachability("https://api", clock)
    for _ in range(100):
        found.failed("https://api does not answer: no route")
        clock.time += 1
    found.answered()
    found.answered()
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "https://api does not answer: no route; proxies go on with what they have"),
        ("INFO", "https://api answers again, after 100 s"),
    ]


def test_failures_with_answers_in_between_are_no_outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    found = Reachability("https://api", clock)
    for _ in range(100):
        found.failed("https://api does not answer: reset")
        clock.time += PATIENCE_SECONDS - 0.1
        found.failed("https://api does not answer: reset")
        found.answered()
    assert not caplog.records


def test_the_next_outage_is_said_as_well(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    found = Reachability("https://api", clock)
    for _ in range(2):
        found.failed("gone")
        clock.time += PATIENCE_SECONDS
        found.failed("gone")
        found.answered()
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"] * 2


def test_seldom_lets_each_thing_be_said_again_after_a_while() -> None:
    clock = Clock()
    seldom = Seldom(now=clock)
    assert [seldom.due(what) for what in ("a", "a", "b", "a", "b")] == [True, False, True, False, False]
    clock.time += REPEAT_SECONDS
    assert [seldom.due(what) for what in ("a", "a")] == [True, False]


def test_seldom_forgets_the_oldest() -> None:
    seldom = Seldom(most=2, now=Clock())
    assert [seldom.due(what) for what in ("a", "b", "c", "c", "a")] == [True, True, True, False, True]
