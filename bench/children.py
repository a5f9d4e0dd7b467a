"""Processes that do not outlive the bench, however it ends."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_REAP_EVERY = 0.1
"""Seconds."""
_started: set[int] = set()
"""Those that somebody here waits for."""


def start(
    command: Sequence[str], *, last_words: signal.Signals = signal.SIGTERM, **options: Any
) -> "subprocess.Popen[Any]":
    """`subprocess.Popen`, but the system sends the process a signal when whoever started it is gone, killed or not.

    Its own children are its own business: SIGTERM gives it the chance to end them. What has none, and takes its time
    over SIGTERM, is killed. To be called in the main thread, for it is the thread whose end is waited for.
    """
    # By util-linux's program, and not in Python between fork and exec: with gRPC's threads around, that may hang.
    asked = ["setpriv", "--pdeathsig", last_words.name.removeprefix("SIG"), "--"]
    process = subprocess.Popen([*asked, *command], **options)
    while process.poll() is None and not _is_itself(process.pid):  # until then our own end might not be noticed
        time.sleep(0.001)
    _started.add(process.pid)
    return process


def adopt_orphans() -> None:
    """Become the parent of Envoys that outlive who started them, as propylon's do, in place of the system's first
    process: so that their CPU time counts as the bench's own, and not as that of others on the machine."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    threading.Thread(target=_reap_for_ever, daemon=True).start()


def reap() -> None:
    """Wait for those of them that have ended."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for pid in map(int, (task / "children").read_text(encoding="ascii").split()):
                if pid not in _started and _is_ended_envoy(pid):
                    os.waitpid(pid, os.WNOHANG)


def _reap_for_ever() -> None:
    while True:
        time.sleep(_REAP_EVERY)
        reap()


def _is_itself(pid: int) -> bool:
    """Whether it is the command that was asked for by now. (Its name is set later than its arguments.)"""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    return bool(arguments) and not arguments.startswith(b"setpriv\0")


def _is_ended_envoy(pid: int) -> bool:
    head, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")
    return rest.split()[0] == "Z" and head.partition("(")[2].startswith(("envoy", "callgrind"))


def end_with_parent(last_words: signal.Signals = signal.SIGTERM) -> None:
    """Have the system send this process a signal when its parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, last_words)
