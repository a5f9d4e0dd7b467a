"""What containers print, and the part of a kubelet's HTTPS API that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

KUBELET_PORT = 10250
_LINES_KEPT = 200_000


class Log:
    """The lines of one container with their times, across its restarts; also written to a file."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("ab", buffering=0)
        self._lines: deque[tuple[dt.datetime, bytes]] = deque(maxlen=_LINES_KEPT)
        self._count = 0
        self._grown = asyncio.Condition()
        self._closed = False

    async def read_from(self, stream: asyncio.StreamReader) -> None:
        """Takes every line of a container's output until it ends."""
        while line := await _line(stream):
            now = dt.datetime.now(dt.UTC)
            self._lines.append((now, line.rstrip(b"\n")))
            self._count += 1
            self._file.write(f"{now:%Y-%m-%dT%H:%M:%S.%fZ} ".encode() + line)
            async with self._grown:
                self._grown.notify_all()

    async def close(self) -> None:
        """No more lines: followers end."""
        self._closed = True
        self._file.close()
        async with self._grown:
            self._grown.notify_all()

    def lines(self, *, since: dt.datetime | None = None, tail: int | None = None) -> list[tuple[dt.datetime, bytes]]:
        """Lines printed at or after ``since``, of these the last ``tail``."""
        found = [(when, line) for when, line in self._lines if since is None or when >= since]
        return found if tail is None else found[len(found) - tail if tail < len(found) else 0 :]

    @property
    def count(self) -> int:
        """How many lines there have been."""
        return self._count

    async def follow(self, seen: int) -> AsyncIterator[tuple[dt.datetime, bytes]]:
        """Every line after the first ``seen``, as they come, until the container is gone."""
        while True:
            async with self._grown:
                while not self._closed and self._count <= seen:
                    await self._grown.wait()
            fresh = list(self._lines)[-(self._count - seen) :] if self._count > seen else []
            seen = self._count
            for entry in fresh:
                yield entry
            if self._closed:
                return


class LogServer:
    """``GET /containerLogs/{namespace}/{pod}/{container}`` over HTTPS, for clients with a certificate.

    Query parameters as kubectl logs has them: sinceTime (RFC 3339), sinceSeconds, tailLines, timestamps, follow.
    """

    def __init__(self, find: Callable[[str, str, str], Log | None]) -> None:
        self._find = find
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, ip: str, context: ssl.SSLContext) -> None:
        """Listens on the kubelet's port."""
        self._server = await asyncio.start_server(self._serve, ip, KUBELET_PORT, ssl=context)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split("\r\n", 1)[0].split(" ")
                await self._answer(writer, method, target)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, target: str) -> None:
        url = urlsplit(target)
        match = re.fullmatch(r"/containerLogs/([^/]+)/([^/]+)/([^/]+)", url.path)
        if method != "GET" or match is None:
            return await _send(writer, "404 Not Found", f"{method} {url.path}: only container logs are served\n")
        names = [unquote(part) for part in match.groups()]
        log = self._find(names[0], names[1], names[2])
        if log is None:
            return await _send(writer, "404 Not Found", f"no container {'/'.join(names)}\n")
        query = dict(parse_qsl(url.query))
        try:
            since, tail = _since(query), int(query["tailLines"]) if "tailLines" in query else None
        except ValueError as error:
            return await _send(writer, "400 Bad Request", f"{error}\n")
        writer.write(_head("200 OK"))
        stamps, endless = query.get("timestamps") == "true", query.get("follow") == "true"
        seen = log.count
        writer.writelines(_chunk(*entry, stamps) for entry in log.lines(since=since, tail=tail))
        await writer.drain()
        if endless:
            async for entry in log.follow(seen):
                writer.write(_chunk(*entry, stamps))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        return await writer.drain()


def _since(query: Mapping[str, str]) -> dt.datetime | None:
    if "sinceTime" in query:
        return dt.datetime.fromisoformat(query["sinceTime"])
    if "sinceSeconds" in query:
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(query["sinceSeconds"]))
    return None


def _head(status: str) -> bytes:
    fields = ["Content-Type: text/plain", "Transfer-Encoding: chunked", "Connection: close"]
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def _chunk(when: dt.datetime, line: bytes, stamped: bool) -> bytes:
    data = (f"{when:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() if stamped else b"") + line + b"\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _send(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    data = text.encode()
    writer.write(_head(status) + f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
    await writer.drain()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is longer than the stream's limit; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)
