"""A proxy's log file: kept small, read back, followed.

Envoy writes its own messages and the access log to the same inherited descriptor, which no signal makes it reopen. So
the file is copied and then emptied in place; it was opened for appending, thus Envoy goes on at its new end. A line
written in the instant between the last copied byte and the truncation is lost: a few microseconds once every
`LARGEST_LOG` bytes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

LARGEST_LOG = 16 << 20
"""Bytes after which a log is rotated; the one before it is kept as `.1`."""
_BLOCK = 1 << 16


def previous(log: Path) -> Path:
    """Where the log before this one is kept."""
    return log.with_name(log.name + ".1")


def rotate(log: Path, largest: int = LARGEST_LOG) -> bool:
    """Move the content to `previous(log)` if there is more than `largest` bytes of it; whether it did. Raises
    OSError.
    """
    try:
        if log.stat().st_size <= largest:
            return False
    except FileNotFoundError:
        return False
    temporary = log.with_name(log.name + ".new")
    with log.open("rb") as source, temporary.open("wb") as target:
        shutil.copyfileobj(source, target, _BLOCK)
        # What was written while copying is copied too, so that the gap before the truncation is one system call wide.
        while block := source.read(_BLOCK):
            target.write(block)
        target.flush()
        os.truncate(log, 0)
    temporary.replace(previous(log))
    return True


def last_lines(log: Path, count: int) -> tuple[list[str], int]:
    """The last `count` complete lines, across the rotation, and the offset after them in `log`.

    Missing files are empty.
    """
    if count <= 0:
        return [], _size(log)
    text, end = _tail(log, count)
    lines = text.splitlines()
    if len(lines) < count:
        earlier, _ = _tail(previous(log), count - len(lines))
        lines = earlier.splitlines() + lines
    return lines[-count:], end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail(path: Path, count: int) -> tuple[str, int]:
    """The end of the file, of at least `count` lines if it has them, up to the last line's end; and the offset of
    that.
    """
    try:
        with path.open("rb") as file:
            position = end = file.seek(0, os.SEEK_END)
            content = b""
            while position > 0 and content.count(b"\n") <= count:
                step = min(_BLOCK, position)
                position -= step
                file.seek(position)
                content = file.read(step) + content
    except FileNotFoundError:
        return "", 0
    complete = content.rfind(b"\n") + 1
    content_start = content.find(b"\n") + 1 if position > 0 else 0  # the first line may be cut
    return content[content_start:complete].decode(errors="replace"), end - (len(content) - complete)


async def follow(log: Path, offset: int, *, every: float = 0.2) -> AsyncIterator[str]:
    """Lines as they are written after `offset`, without their ends.

    Goes on over a rotation. Ends when the caller stops.
    """
    partial = b""
    while True:
        size = _size(log)
        if size < offset:
            offset, partial = 0, b""
        if size == offset:
            await asyncio.sleep(every)
            continue
        with log.open("rb") as file:
            file.seek(offset)
            block = file.read(_BLOCK)
        offset += len(block)
        *lines, partial = (partial + block).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


async def read_log(log: Path, *, tail: int = 100, following: bool = False) -> AsyncIterator[str]:
    """The last `tail` lines, and with `following` the ones to come."""
    lines, offset = last_lines(log, tail)
    for line in lines:
        yield line
    if following:
        async for line in follow(log, offset):
            yield line
