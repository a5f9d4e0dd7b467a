"""Echo servers: one TCP listener and one UDP socket, on the same port number, for each Service port they stand in
for.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection
from typing import cast

import msgspec

from propylon.echo.answer import EchoIdentity
from propylon.echo.connection import EchoConnection

_ATTEMPTS = 50


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends every datagram back to where it came from."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is bound."""
        # Not asserted: asyncio's own transport does not inherit from the class it implements.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Send it back, unless the last ones are still waiting: a datagram may be lost, memory may not."""
        if self._transport is not None and not self._full:
            self._transport.sendto(data, address)

    def pause_writing(self) -> None:
        """Too many wait to be sent."""
        self._full = True

    def resume_writing(self) -> None:
        """They are sent."""
        self._full = False

    def error_received(self, error: Exception) -> None:
        """A client closed before its answer came; there is nothing to be done."""


class _Server(msgspec.Struct):
    port: int
    tcp: asyncio.Server
    udp: asyncio.DatagramTransport
    connections: set[EchoConnection]


class EchoServers:
    """The echo servers of this process, by what they stand in for."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """`host` is the address to listen on."""
        self.host = host
        self._servers: dict[EchoIdentity, _Server] = {}

    def addresses(self) -> dict[EchoIdentity, tuple[str, int]]:
        """Host and port of every server."""
        return {identity: (self.host, server.port) for identity, server in self._servers.items()}

    async def ensure(self, identity: EchoIdentity, *, prefer: int = 0) -> tuple[str, int]:
        """Host and port of the server for an identity, started if need be, on the port `prefer` if that is free.

        Raises OSError if there is no port to be had.
        """
        if identity not in self._servers:
            connections: set[EchoConnection] = set()
            tcp, udp = await self._bind(identity, connections, prefer)
            server = _Server(tcp.sockets[0].getsockname()[1], tcp, udp, connections)
            if identity in self._servers:  # another call was faster
                _close(server)
            else:
                self._servers[identity] = server
        return self.host, self._servers[identity].port

    async def release(self, identity: EchoIdentity) -> None:
        """Close the server for an identity and its connections. Nothing happens if there is none."""
        server = self._servers.pop(identity, None)
        if server is not None:
            _close(server)

    async def retain(self, identities: Collection[EchoIdentity]) -> None:
        """Release all but these."""
        for identity in [each for each in self._servers if each not in identities]:
            await self.release(identity)

    async def close(self) -> None:
        """Close every server."""
        await self.retain(())

    async def _bind(
        self, identity: EchoIdentity, connections: set[EchoConnection], prefer: int
    ) -> tuple[asyncio.Server, asyncio.DatagramTransport]:
        loop = asyncio.get_running_loop()
        for attempt in range(_ATTEMPTS):
            try:
                tcp = await loop.create_server(
                    lambda: EchoConnection(identity, connections),
                    self.host,
                    prefer if attempt == 0 else 0,
                    backlog=1024,
                )
            except OSError:
                if attempt == 0 and prefer:
                    continue
                raise
            port = tcp.sockets[0].getsockname()[1]
            try:
                udp, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=(self.host, port))
            except OSError as error:
                tcp.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return tcp, udp
        raise OSError(errno.EADDRINUSE, "no port number is free for both TCP and UDP")


def _close(server: _Server) -> None:
    server.tcp.close()
    server.udp.close()
    for connection in list(server.connections):
        connection.abort()
