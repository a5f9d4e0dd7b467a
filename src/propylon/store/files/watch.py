"""Tells when something in some directories changed, by the system's notifications. Where these do not work, it says
nothing: who waits for it looks by itself now and then.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

from propylon.store.files.inotify import Inotify

STEP_MILLISECONDS = 1
"""A burst of notifications is over when nothing came for this long: files that belong together are written at once."""

BURST_MILLISECONDS = 50
"""A burst that does not end is acted upon after this long."""

WRITING_SECONDS = 0.05
"""A file that somebody writes to, or that was taken away, is looked at when nothing happened to it for this long, or as
soon as it is closed or another one is put in its place."""


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
    """Calls `wake` in its event loop when something in a watched directory changes. Belongs to that loop."""

    def __init__(self, wake: Callable[[], None], is_ignored: Callable[[str], bool] = lambda _name: False) -> None:
        """`is_ignored` says which names mean nothing, whatever happens to them."""
        self._wake = wake
        self._is_ignored = is_ignored
        self._loop = asyncio.get_running_loop()
        self._directories: dict[str, int] = {}
        self._changed: set[str] = set()
        self._changing: set[str] = set()
        """What more is likely to happen to."""
        self._latest = 0.0
        """When (`time.monotonic`) the last notice came."""
        self._timer: asyncio.TimerHandle | None = None
        self._inotify: Inotify | None = None

    def watch(self, paths: Iterable[str]) -> bool:
        """Watch the directories of these paths, not their subdirectories, from now on.

        Returns whether that differs from before, because they are others or one was replaced: what changed meanwhile
        was not told.
        """
        directories = directories_of(paths)
        if directories == self._directories:
            return False
        self.close()
        self._changed, self._changing = set(), set()
        try:
            self._begin(sorted(directories))
        except OSError:  # gone again, or one of the system's limits is reached
            return False
        self._directories = directories
        return True

    def _begin(self, directories: list[str]) -> None:
        self._inotify = Inotify(directories)
        self._loop.add_reader(self._inotify.descriptor, self._read)

    @property
    def is_told(self) -> bool:
        """Whether the system notifies of changes at all."""
        return bool(self._directories)

    def take(self) -> frozenset[str]:
        """Paths of all that changed since this was asked last."""
        taken, self._changed = self._changed, set()
        return frozenset(taken)

    def quiet_in(self) -> float:
        """Seconds until the burst of notices that was taken last is over, if nothing else comes; 0 if it is."""
        if self._inotify is None:
            return 0.0
        self._note(self._inotify)
        return max(0.0, self._latest + STEP_MILLISECONDS / 1000 - time.monotonic())

    def close(self) -> None:
        """Watch nothing any more."""
        self._directories = {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.descriptor)
            self._inotify.close()
            self._inotify = None

    def _read(self) -> None:
        if self._inotify is not None and self._note(self._inotify):
            self._wake()

    def _note(self, source: Inotify) -> bool:
        """Take in what the system says; whether something changed that is not likely to change again at once."""
        notices = [notice for notice in source.read() if not self._is_ignored(os.path.basename(notice.path))]  # noqa: PTH119
        if not notices:
            return False
        self._latest = time.monotonic()
        for path, is_lasting in notices:
            if is_lasting:
                self._changed.add(path)
                self._changing.discard(path)
            else:
                self._changing.add(path)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(WRITING_SECONDS, self._give_up_waiting) if self._changing else None
        return bool(self._changed)

    def _give_up_waiting(self) -> None:
        self._timer = None
        self._changed |= self._changing
        self._changing.clear()
        self._wake()
