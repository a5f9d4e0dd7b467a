"""A proxy's log file as `kubectl logs` wants it: since a time, the last lines, of the process before, followed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from propylon.proxies import log
from propylon.server.machine import LogOptions

_LOOK_SECONDS = 1.0
"""How often a follower looks whether there is still a proxy to follow."""
_ACCESS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_ENVOY = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)\]")


class Line(NamedTuple):
    """A line and when it was written; lines that tell no time have that of the line before."""

    time: dt.datetime | None
    text: str


def line_time(text: str) -> dt.datetime | None:
    """When a line was written: an access log entry says so in UTC, Envoy in local time."""
    if found := _ACCESS.match(text):
        return dt.datetime.fromisoformat(found[0].replace("Z", "+00:00"))
    if found := _ENVOY.match(text):
        return dt.datetime.fromisoformat(found[1]).astimezone()
    return None


def timed(texts: Iterable[str], before: dt.datetime | None = None) -> list[Line]:
    """The lines with their times; `before` is that of the line before the first one."""
    lines = []
    for text in texts:
        before = line_time(text) or before
        lines.append(Line(before, text))
    return lines


def select(lines: Iterable[Line], options: LogOptions, crashed: dt.datetime | None) -> list[Line]:
    """Those that are asked for: of the process that runs now, or with `previous` of those before the last crash."""
    found = list(lines)
    if crashed is not None:
        found = [line for line in found if (line.time is not None and line.time > crashed) is not options.previous]
    if options.since is not None:
        found = [line for line in found if line.time is None or line.time >= options.since]
    if options.tail is not None:
        found = found[len(found) - min(options.tail, len(found)) :]
    return found


def written(line: Line, *, timestamps: bool) -> bytes:
    """A line as it is sent."""
    text = f"{line.text}\n"
    if timestamps:
        time = (line.time or dt.datetime.fromtimestamp(0, dt.UTC)).astimezone(dt.UTC)
        text = f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z {text}"
    return text.encode()


async def read_proxy_log(
    path: Path, options: LogOptions, *, crashed: dt.datetime | None, gone: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The log in pieces. `crashed` is when the process before the present one ended, if it did so by itself; a
    follower stops when the proxy is `gone`."""
    left = options.limit_bytes
    async for lines in _batches(path, options, crashed, gone):
        piece = b"".join(written(line, timestamps=options.timestamps) for line in lines)
        if left is not None:
            piece, left = piece[:left], left - len(piece[:left])
        if piece:
            yield piece
        if left is not None and left <= 0:
            return


async def _batches(
    path: Path, options: LogOptions, crashed: dt.datetime | None, gone: Callable[[], bool]
) -> AsyncIterator[list[Line]]:
    texts, offset = await asyncio.to_thread(_read, path)
    lines = await asyncio.to_thread(timed, texts)
    last = lines[-1].time if lines else None
    yield select(lines, options, crashed)
    if not options.follow or options.previous:
        return
    following = log.follow(path, offset)
    # One task for each line, kept over the looks: an iterator that is cancelled has ended.
    coming = asyncio.ensure_future(anext(following))
    try:
        while not gone():
            await asyncio.wait({coming}, timeout=_LOOK_SECONDS)
            if coming.done():
                (line,) = timed([coming.result()], last)
                last = line.time
                yield [line]
                coming = asyncio.ensure_future(anext(following))
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            await coming


def _read(path: Path) -> tuple[list[str], int]:
    """All complete lines, across the rotation, and the offset after them in the present file."""
    earlier, _ = _complete(log.previous(path))
    present, end = _complete(path)
    return (earlier + present).decode(errors="replace").split("\n")[:-1], end


def _complete(path: Path) -> tuple[bytes, int]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", 0
    end = content.rfind(b"\n") + 1
    return content[:end], end
