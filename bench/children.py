"""Processes that do not outlive the bench, however it ends."""

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def start(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """`subprocess.Popen`, but the system asks the process to end when whoever started it is gone, killed or not.

    Its own children are its own business: SIGTERM gives it the chance to end them. To be called in the main thread, for
    it is the thread whose end is waited for.
    """
    return subprocess.Popen(command, preexec_fn=end_with_parent, **options)  # noqa: PLW1509 - nothing but one call


def end_with_parent() -> None:
    """Have the system end this process when its parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
