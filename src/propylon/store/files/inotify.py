"""Linux's notifications of what happens in directories, as a file descriptor that an event loop can wait for.

See inotify(7). Waiting costs nothing, and a notification needs no thread to come through.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from inotify_simple import INotify, flags

_WANTED = int(
    flags.MODIFY
    | flags.ATTRIB
    | flags.CLOSE_WRITE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.CREATE
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
_LASTING = int(
    flags.CLOSE_WRITE | flags.MOVED_TO | flags.DELETE_SELF | flags.MOVE_SELF | flags.Q_OVERFLOW | flags.ISDIR
)


class Notice(NamedTuple):
    """Something happened to a path. `lasting`: whoever did it is through with it; else more is likely to follow at
    once, as a file that is being written, or that an editor moved away to put another in its place."""

    path: str
    lasting: bool


class Inotify:
    """Notices of some directories, not of their subdirectories. To be closed."""

    def __init__(self, directories: list[str]) -> None:
        """Raises OSError if one is gone or one of the system's limits is reached."""
        self._directories: dict[int, str] = {}
        self._source = INotify(nonblocking=True)
        try:
            for directory in directories:
                self._directories[self._source.add_watch(directory, _WANTED)] = directory
        except OSError:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """To be waited for."""
        return int(self._source.fileno())

    def close(self) -> None:
        """Watch nothing any more."""
        self._source.close()

    def read(self) -> Iterator[Notice]:
        """All notices that are there, without waiting. Where some were lost, every directory is named."""
        for number, mask, _, name in self._source.read(timeout=0):
            if mask & flags.Q_OVERFLOW:
                yield from (Notice(directory, True) for directory in self._directories.values())
            elif (directory := self._directories.get(number)) is not None:
                yield Notice(os.path.join(directory, name) if name else directory, bool(mask & _LASTING))  # noqa: PTH118
