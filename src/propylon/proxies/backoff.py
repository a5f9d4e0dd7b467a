"""When to start again what has died. Pure."""

from __future__ import annotations

import msgspec


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential: `first` seconds after the first failure, doubled with each further one, `longest` at most."""

    first: float = 0.1
    longest: float = 30.0
    forgiven_after: float = 20.0
    """A process that ran this many seconds counts as healthy: its end is a first failure again."""


def next_failures(failures: int, ran_for: float, policy: BackoffPolicy) -> int:
    """The number of failures in a row, after a process that ran for `ran_for` seconds has ended."""
    return 1 if ran_for >= policy.forgiven_after else failures + 1


def delay(failures: int, policy: BackoffPolicy) -> float:
    """Seconds to wait after so many failures in a row; 0 for none."""
    if failures <= 0:
        return 0.0
    # The exponent is bounded so that years of failures do not overflow.
    return float(min(policy.longest, policy.first * 2.0 ** min(failures - 1, 60)))
