"""Garbage collection for a process that keeps hundreds of thousands of long-lived objects and makes few cycles."""

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 50
"""Thresholds of the three generations (gc.set_threshold).

The default of 700 walks young objects some thousand times while 10,000 routes are read, and the old ones again and
again: a third of the time of a first batch.
"""


def relax_collection() -> None:
    """Collect less often; for the start of a process."""
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def set_apart() -> None:
    """Leave out of all later collections what is there now; to be called when the first world is complete.

    What is replaced later is freed all the same, by its reference count.
    """
    gc.collect()
    gc.freeze()
