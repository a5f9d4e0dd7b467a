"""Processes that do not outlive the bench, however it ends."""

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], *, last_words: signal.Signals = signal.SIGTERM, **options: Any
) -> "subprocess.Popen[Any]":
    """`subprocess.Popen`, but the system sends the process a signal when whoever started it is gone, killed or not.

    Its own children are its own business: SIGTERM gives it the chance to end them. What has none, and takes its time
    over SIGTERM, is killed. To be called in the main thread, for it is the thread whose end is waited for.
    """
    return subprocess.Popen(command, preexec_fn=partial(end_with_parent, last_words), **options)  # noqa: PLW1509


def end_with_parent(last_words: signal.Signals = signal.SIGTERM) -> None:
    """Have the system send this process a signal when its parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, last_words)
