"""Backends of tests: they answer every request, and remember what reached them.

An HTTP answer carries the number of its record in a header; whoever sends plain bytes or a datagram is told it.
"""

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import msgspec

from propylon.graph.model import BackendKey
from propylon.testing.graph_engine import backend_headers
from propylon.testing.model import Pairs

RECORD_HEADER = "x-propylon-test-record"
MARK = b"propylon-test-record "
"""What an answer to plain bytes begins with; the number and a line break follow."""
_ATTEMPTS = 50
_OK = b"\x00\x00\x00\x00\x00"
"""A gRPC message of no bytes: every field has its default, which ext_authz reads as OK."""


class Record(msgspec.Struct, frozen=True):
    """What reached a backend; `path`, `host` and `headers` are None for bytes that are no HTTP."""

    backend: BackendKey
    path: str | None = None
    host: str | None = None
    headers: Pairs | None = None


class Backends:
    """One server for each backend, TCP and UDP on the same port. All methods belong to one event loop."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._servers: dict[BackendKey, tuple[asyncio.Server, asyncio.DatagramTransport, int]] = {}
        self._connections: set[asyncio.BaseTransport] = set()
        self.records: list[Record] = []

    async def ensure(self, key: BackendKey) -> int:
        """The port of the server for a backend, started if need be. Raises OSError."""
        if key not in self._servers:
            server, datagrams, port = await self._bind(key)
            self._servers[key] = server, datagrams, port
        return self._servers[key][2]

    async def _bind(self, key: BackendKey) -> tuple[asyncio.Server, asyncio.DatagramTransport, int]:
        """A TCP port, and the UDP port of the same number, which another program may have: then another one."""
        loop = asyncio.get_running_loop()
        for attempt in range(_ATTEMPTS):
            server = await loop.create_server(lambda: _Connection(self, key), self._host, 0, backlog=256)
            port: int = server.sockets[0].getsockname()[1]
            try:
                datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self, key), local_addr=(self._host, port)
                )
            except OSError:
                server.close()
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return server, datagrams, port
        raise AssertionError("unreachable")

    def record(self, record: Record) -> int:
        """Remember what reached a backend; the number of the record."""
        self.records.append(record)
        return len(self.records) - 1

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Note a connection, to be closed with the servers."""
        self._connections.add(transport)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection."""
        self._connections.discard(transport)

    def close(self) -> None:
        """Close every server and connection."""
        for server, datagrams, _ in self._servers.values():
            server.close()
            datagrams.close()
        for transport in list(self._connections):
            transport.close()
        self._servers.clear()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, backends: Backends, key: BackendKey) -> None:
        self._backends, self._key = backends, key
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        del data
        number = self._backends.record(Record(self._key))
        self._transport.sendto(MARK + b"%d\n" % number, addr)


class _Connection(asyncio.Protocol):
    """HTTP/1.1, HTTP/2 with or without gRPC, or plain bytes, as the first bytes say."""

    def __init__(self, backends: Backends, key: BackendKey) -> None:
        self._backends, self._key = backends, key
        self._transport: Any = None
        self._buffer = b""
        self._http2: h2.connection.H2Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._backends.opened(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._backends.closed(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._http2 is not None:
            self._frames(data)
            return
        self._buffer += data
        if self._buffer.startswith(b"PRI * "):
            self._http2 = h2.connection.H2Connection(
                h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
            )
            self._http2.initiate_connection()
            self._frames(self._buffer)
            return
        first_line = self._buffer.partition(b"\r\n")[0]
        if b"\r\n" in self._buffer and first_line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            self._requests()
        elif not self._buffer[:1].isalpha() or b"\n" in self._buffer:
            number = self._backends.record(Record(self._key))
            self._transport.write(MARK + b"%d\n" % number)
            self._buffer = b""

    def _requests(self) -> None:
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            headers = dict(pairs)
            body = _body_end(rest, headers)
            if body is None:
                return
            self._buffer = rest[body:]
            number = self._record(target, headers.get("host", ""), [pair for pair in pairs if pair[0] != "host"])
            told = "".join(
                f"{name}: {value}\r\n" for name, value in (*backend_headers(pairs), (RECORD_HEADER, str(number)))
            )
            content = "" if method == "HEAD" else "ok\n"
            self._transport.write(f"HTTP/1.1 200 OK\r\n{told}content-length: 3\r\n\r\n{content}".encode("latin-1"))

    def _record(self, target: str, host: str, headers: list[tuple[str, str]]) -> int:
        # What is asked for authorization has its answer's headers, our own among them, taken into the request.
        kept = tuple(pair for pair in headers if pair[0] != RECORD_HEADER)
        return self._backends.record(Record(self._key, target, host, kept))

    def _frames(self, data: bytes) -> None:
        connection = self._http2
        assert connection is not None
        try:
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._answer(connection, event)
                elif isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        except h2.exceptions.ProtocolError:
            self._transport.write(connection.data_to_send())
            self._transport.close()
            return
        self._transport.write(connection.data_to_send())

    def _answer(self, connection: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        pairs = [(str(name), str(value)) for name, value in event.headers or ()]
        pseudo = {name: value for name, value in pairs if name.startswith(":")}
        headers = [pair for pair in pairs if not pair[0].startswith(":")]
        number = self._record(pseudo.get(":path", ""), pseudo.get(":authority", ""), headers)
        stream = event.stream_id or 0
        grpc = backend_headers(headers)
        told = [(":status", "200"), (RECORD_HEADER, str(number)), *grpc]
        if grpc:
            connection.send_headers(stream, told)
            connection.send_data(stream, _OK)
            connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        else:
            connection.send_headers(stream, told)
            connection.send_data(stream, b"" if pseudo.get(":method") == "HEAD" else b"ok\n", end_stream=True)


def _body_end(rest: bytes, headers: dict[str, str]) -> int | None:
    """Where a request's body ends, as far as it has come."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        end = rest.find(b"0\r\n\r\n")
        return end + 5 if end >= 0 else None
    length = int(headers.get("content-length", "0") or 0)
    return length if len(rest) >= length else None
