"""Tells when something in some directories changed, by the system's notifications. Where these do not work, it says
nothing: who waits for it looks by itself now and then.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable

from watchfiles._rust_notify import RustNotify

STEP_MILLISECONDS = 1
"""A burst of notifications is over when nothing came for this long."""

BURST_MILLISECONDS = 50
"""A burst that does not end is acted upon after this long."""

_TURN_MILLISECONDS = 5_000


def directories_of(paths: Iterable[str]) -> dict[str, int]:
    """The directories whose notifications tell of these files and directories, with their inodes; only those that
    exist."""
    found: dict[str, int] = {}
    for path in paths:
        for candidate in (path, os.path.dirname(path) or "."):  # noqa: PTH120
            if candidate in found:
                break
            if os.path.isdir(candidate):  # noqa: PTH112
                found[candidate] = os.stat(candidate).st_ino  # noqa: PTH116
                break
    return found


class Watcher:
    """Calls `wake` in its event loop when something in a watched directory changes."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._directories: dict[str, int] = {}
        self._changed: list[str] = []
        self._stop = threading.Event()

    def watch(self, paths: Iterable[str]) -> bool:
        """Watch the directories of these paths, not their subdirectories, from now on.

        Returns whether that differs from before, because they are others or one was replaced: what changed meanwhile
        was not told.
        """
        directories = directories_of(paths)
        if directories == self._directories:
            return False
        self.close()
        self._changed = []
        self._directories = directories
        self._stop = threading.Event()
        try:
            notify = RustNotify(sorted(directories), False, False, 0, False, True)
        except (OSError, RuntimeError):  # gone again, or the system's limit on watches is reached
            self._directories = {}
            return False
        thread = threading.Thread(target=self._follow, args=(notify, self._stop), name="manifest-watch", daemon=True)
        thread.start()
        return True

    @property
    def is_told(self) -> bool:
        """Whether the system notifies of changes at all."""
        return bool(self._directories)

    def take(self) -> frozenset[str]:
        """Paths of all that changed since this was asked last."""
        taken, self._changed = self._changed, []
        return frozenset(taken)

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        self._directories = {}

    def _tell(self, paths: list[str]) -> None:
        self._changed += paths
        self._wake()

    def _follow(self, notify: RustNotify, stop: threading.Event) -> None:
        with notify:
            while True:
                found = notify.watch(BURST_MILLISECONDS, STEP_MILLISECONDS, _TURN_MILLISECONDS, stop)
                if found in ("stop", "signal") or self._loop.is_closed():
                    return
                if isinstance(found, set):
                    try:
                        self._loop.call_soon_threadsafe(self._tell, [path for _, path in found])
                    except RuntimeError:  # the loop was closed between the two lines
                        return
