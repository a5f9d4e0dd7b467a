"""An API server that does what a test says: HTTP/1.1 on a port of its own, each request answered by a function."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from propylon.store.cluster import Client, Credentials
from propylon.store.cluster.credentials import BearerAuth, FixedToken


class Request:
    """One request, and the means to answer it."""

    def __init__(
        self, method: str, target: str, headers: dict[str, str], body: bytes, out: asyncio.StreamWriter
    ) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.parameters = dict(parse_qsl(parts.query))
        self.headers = headers
        self.body = body
        self._out = out

    @property
    def peer(self) -> tuple[str, int]:
        """The client's end of the connection."""
        peer: tuple[str, int] = self._out.get_extra_info("peername")
        return peer

    @property
    def watches(self) -> bool:
        return "watch" in self.parameters

    async def answer(self, document: Any, status: int = 200, **headers: str) -> None:
        """One whole answer."""
        body = json.dumps(document).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
        self._out.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self._out.drain()

    async def refuse(self, status: int, reason: str, **headers: str) -> None:
        """A Status object as Kubernetes has it."""
        await self.answer(
            {"kind": "Status", "reason": reason, "message": "scripted", "code": status}, status, **headers
        )

    async def begin(self) -> None:
        """A stream follows."""
        self._out.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self._out.drain()

    async def send(self, data: bytes) -> None:
        """A piece of the stream, wherever lines begin or end."""
        self._out.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._out.drain()

    async def event(self, kind: str, document: Any) -> None:
        """A whole line of a watch."""
        await self.send(json.dumps({"type": kind, "object": document}).encode() + b"\n")

    async def end(self) -> None:
        """The stream ends in order."""
        self._out.write(b"0\r\n\r\n")
        await self._out.drain()

    def cut(self) -> None:
        """The connection breaks."""
        self._out.transport.abort()


Handler = Callable[[Request], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Client]:
    """A client of a server that `handler` speaks for. A handler that raises fails the test."""
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while (request := await _read(reader, writer)) is not None:
                await handler(request)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - told below, where the test sees it
            failures.append(error)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(Credentials(f"http://127.0.0.1:{port}", None, BearerAuth(FixedToken("secret")), "default"))
    try:
        yield client
    finally:
        await client.close()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures, failures


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, writer)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition, looking whenever the loop had a turn. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of all sorts, none of which rings
            await asyncio.sleep(0.002)
