"""Small real backends that say who they are."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable


class Backend:
    """An HTTP/1.1 server on a port of its own: answers with its name, and with what it received."""

    def __init__(self, name: str, ip: str = "127.0.0.1") -> None:
        self.name = name
        self.ip = ip
        self.requests = 0
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server((ip, 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._loop.create_server(lambda: _Http(self), sock=self._socket))
        self._loop.run_forever()
        self._socket.close()


class _Http(asyncio.Protocol):
    """Requests without bodies, or with a Content-Length."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.buffer = b""
        self.write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.backend.requests += 1
            body = json.dumps({"name": self.backend.name, "request": lines[0], "headers": headers}).encode()
            self.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
