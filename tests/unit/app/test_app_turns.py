"""How long the loop waits after a turn during which others wrote."""

from propylon.app.runtime import BREATH_SECONDS, breath


def test_half_of_the_time_at_most_is_waited_and_never_long() -> None:
    assert breath(0.002) == 0.002
    assert breath(BREATH_SECONDS * 100) == BREATH_SECONDS
