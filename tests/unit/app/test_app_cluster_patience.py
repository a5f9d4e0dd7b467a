"""What passes by itself is not said."""

from propylon.app.cluster_patience import PATIENCE_SECONDS, Patience
from propylon.graph.model import Finding

PASSING = Finding("Programmed", "AddressNotAssigned", "no address was assigned yet")
LASTING = Finding("Accepted", "InvalidParameters", "no such parameters")


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_gateway_that_gets_its_address_soon_is_not_spoken_of() -> None:
    clock = Clock()
    patience: Patience[str] = Patience(clock)
    assert patience.tell("g", (PASSING,)) == ()
    assert patience.next_at == clock.time + PATIENCE_SECONDS
    clock.time += PATIENCE_SECONDS / 2
    assert patience.due() == {}
    assert patience.tell("g", ()) == ()
    assert patience.next_at is None
    clock.time += PATIENCE_SECONDS
    assert patience.due() == {}


def test_what_lasts_is_said_at_once_and_what_does_not_pass_is_said_later() -> None:
    clock = Clock()
    patience: Patience[str] = Patience(clock)
    assert patience.tell("g", (PASSING, LASTING)) == (LASTING,)
    clock.time += PATIENCE_SECONDS / 2
    assert patience.tell("g", (PASSING,)) == (), "another word about it does not start the time anew"
    clock.time += PATIENCE_SECONDS / 2
    assert patience.due() == {"g": (PASSING,)}
    assert patience.due() == {}, "once"
    assert patience.tell("g", (PASSING, LASTING)) == (PASSING, LASTING), "it is known by now"


def test_who_loses_an_address_later_gets_the_same_patience() -> None:
    clock = Clock()
    patience: Patience[str] = Patience(clock)
    patience.tell("g", (PASSING,))
    patience.tell("g", ())
    clock.time += 10 * PATIENCE_SECONDS
    assert patience.tell("g", (PASSING,)) == ()
