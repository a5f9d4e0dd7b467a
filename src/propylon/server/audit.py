"""The audit log: one JSON line for every request that changes something or is refused."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from propylon.store.local import utc_now

LIMIT = 16 * 1024 * 1024
"""The log begins anew at this size; one older log is kept."""


class AuditLog:
    """Appends to a file of mode 0600. A full disk loses lines, never requests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._size = 0

    def write(self, **entry: Any) -> None:
        """One line."""
        line = msgspec.json.encode({"time": utc_now(), **entry}) + b"\n"
        with contextlib.suppress(OSError):
            if self._file < 0 or self._size > LIMIT:
                self._open()
            self._size += os.write(self._file, line)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self.close()
        if self._path.exists() and self._path.stat().st_size > LIMIT:
            self._path.replace(self._path.with_suffix(".log.1"))
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
