"""Linux's notifications of what happens in directories, as a file descriptor that an event loop can wait for.

See inotify(7). Waiting costs nothing, and a notification needs no thread to come through.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

_MODIFY = 0x2
_ATTRIB = 0x4
_CLOSE_WRITE = 0x8
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_OVERFLOW = 0x4000
_IS_DIRECTORY = 0x40000000
_ONLY_DIRECTORY = 0x01000000

_WANTED = (
    _MODIFY
    | _ATTRIB
    | _CLOSE_WRITE
    | _MOVED_FROM
    | _MOVED_TO
    | _CREATE
    | _DELETE
    | _DELETE_SELF
    | _MOVE_SELF
    | _ONLY_DIRECTORY
)
_LASTING = _CLOSE_WRITE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _OVERFLOW | _IS_DIRECTORY

_HEAD = struct.Struct("iIII")
_BYTES = 64 * 1024


class Notice(NamedTuple):
    """Something happened to a path. `lasting`: whoever did it is through with it; else more is likely to follow at
    once, as a file that is being written, or that an editor moved away to put another in its place."""

    path: str
    lasting: bool


@cache
def _library() -> Any:
    """The C library that this interpreter runs on; None where it has no inotify."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.inotify_init1.argtypes = [ctypes.c_int]
        library.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    except (OSError, AttributeError):
        return None
    return library


def is_available() -> bool:
    """Whether this system has inotify."""
    return _library() is not None


class Inotify:
    """Notices of some directories, not of their subdirectories. To be closed."""

    def __init__(self, directories: list[str]) -> None:
        """Raises OSError if one is gone or the system's limit on watches is reached."""
        library = _library()
        if library is None:
            raise OSError("this system has no inotify")
        self._directories: dict[int, str] = {}
        self.descriptor: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise _last_error("")
        for directory in directories:
            number = library.inotify_add_watch(self.descriptor, os.fsencode(directory), _WANTED)
            if number < 0:
                error = _last_error(directory)
                self.close()
                raise error
            self._directories[number] = directory

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self.descriptor)

    def read(self) -> list[Notice]:
        """All notices that are there, without waiting. Where some were lost, every directory is named."""
        found: list[Notice] = []
        while True:
            try:
                data = os.read(self.descriptor, _BYTES)
            except BlockingIOError:
                return found
            found.extend(self._decoded(data))

    def _decoded(self, data: bytes) -> Iterator[Notice]:
        at = 0
        while at < len(data):
            number, mask, _, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size + size
            if mask & _OVERFLOW:
                yield from (Notice(directory, True) for directory in self._directories.values())
            elif (directory := self._directories.get(number)) is not None:
                name = os.fsdecode(data[at - size : at].rstrip(b"\0"))
                yield Notice(os.path.join(directory, name) if name else directory, bool(mask & _LASTING))  # noqa: PTH118


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
