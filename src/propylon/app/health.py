"""Answers probes: `/healthz` while the event loop turns, `/readyz` once the world is known and published.

Just enough HTTP/1.1 (RFC 9112) for a kubelet or curl: one request a connection, nothing of it is read but its target.
"""

import asyncio
import contextlib
from collections.abc import Callable

REQUEST_SECONDS = 5.0
LIMIT = 8192
"""Bytes of a request, headers included."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def parse_listen(text: str) -> tuple[str | None, int]:
    """Host (None: every address of the machine) and port of HOST:PORT, [IPV6]:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or None, int(port)


class HealthServer:
    """Serves both paths. `unready` tells why the program is not ready, "" if it is."""

    def __init__(self, listen: str, unready: Callable[[], str]) -> None:
        """Raises ValueError if `listen` is no address."""
        self._place = parse_listen(listen)
        self._unready = unready
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError if the address cannot be bound."""
        host, port = self._place
        self._server = await asyncio.start_server(self._serve, host, port, limit=LIMIT)

    @property
    def port(self) -> int:
        """The port it is bound to: another one than asked for if that was 0."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that breaks off, sends too much or nothing at all is not answered.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target = _request_of(head)
                status, text = self.answer(method, target)
                writer.write(_response(status, text, body=method != "HEAD"))
                await writer.drain()
        writer.close()

    def answer(self, method: str, target: str) -> tuple[int, str]:
        """Status and text for a request."""
        path = target.partition("?")[0]
        if not method:
            return 400, "this is not HTTP"
        if path not in {"/healthz", "/readyz"}:
            return 404, "there are /healthz and /readyz"
        if method not in {"GET", "HEAD"}:
            return 405, "only GET and HEAD"
        reason = self._unready() if path == "/readyz" else ""
        return (503, reason) if reason else (200, "ok")


def _request_of(head: bytes) -> tuple[str, str]:
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return (words[0], words[1]) if len(words) == 3 and words[2].startswith("HTTP/1.") else ("", "")


def _response(status: int, text: str, *, body: bool) -> bytes:
    content = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(content)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")
