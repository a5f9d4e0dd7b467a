"""Garbage collection for a process that keeps hundreds of thousands of long-lived objects and makes few cycles."""

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 50
"""Thresholds of the three generations (gc.set_threshold); the default of 700 walks young objects again and again."""


def hold_collection() -> None:
    """Collect nothing until `set_apart`; for the start of a process, best before its modules are imported.

    Imports (less than a thousand objects in cycles, 0.1 s to find them) and the first batch (of 800,000 objects, none)
    only make objects that stay, and walking them took a quarter of the time.
    """
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.disable()


def set_apart() -> None:
    """Leave out of all later collections what is there now; to be called when the first world is complete.

    What is replaced later is freed all the same, by its reference count.
    """
    gc.freeze()
    gc.enable()
