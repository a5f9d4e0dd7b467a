"""Garbage collection for a process that keeps hundreds of thousands of long-lived objects and makes few cycles."""

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 50
"""Thresholds of the three generations (gc.set_threshold); the default of 700 walks young objects again and again."""


def hold_collection() -> None:
    """Collect nothing until `set_apart`; for the start of a process.

    The first batch only makes objects that stay (of 800,000, none was found to be garbage), and walking them took a
    quarter of its time.
    """
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.collect()
    gc.disable()


def set_apart() -> None:
    """Leave out of all later collections what is there now; to be called when the first world is complete.

    What is replaced later is freed all the same, by its reference count.
    """
    gc.freeze()
    gc.enable()
