"""The echo process and its control socket: one JSON object a line, each answered with one.

    {"id": 1, "do": "hello"}                                        -> {"id": 1, "protocol": 1, "pid": 4711}
    {"id": 2, "do": "ensure", "namespace": N, "service": S, "port": P, "prefer": 0}  -> {"id": 2, "host": H, "at": PORT}
    {"id": 3, "do": "release", "namespace": N, "service": S, "port": P}              -> {"id": 3}
    {"id": 4, "do": "list"}                                         -> {"id": 4, "servers": [[N, S, P, PORT], ...]}
    {"id": 5, "do": "stop"}                                         -> {"id": 5}, and the end

A request that fails is answered with {"id": ..., "error": TEXT}.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
from pathlib import Path
from typing import cast

import msgspec

from propylon.echo.answer import EchoIdentity
from propylon.echo.server import EchoServers

PROTOCOL = 1
"""Raised with every incompatible change; a client replaces a process that speaks another."""
ALREADY_RUNNING = 3
"""Exit code when another process serves the socket."""


class Command(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request."""

    id: int
    do: str
    namespace: str = ""
    service: str = ""
    port: int = 0
    prefer: int = 0


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to the request with this id."""

    id: int
    error: str = ""
    protocol: int = 0
    pid: int = 0
    host: str = ""
    at: int = 0
    servers: list[tuple[str, str, int, int]] = []


class ControlServer:
    """Serves the control socket over echo servers until told to stop."""

    def __init__(self, servers: EchoServers) -> None:
        self._servers = servers
        self._stop = asyncio.Event()
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(self, path: Path) -> int:
        """Serve on `path` until `stop` or SIGTERM; the exit code."""
        # Whoever holds the lock owns the socket; a file without an owner is what a killed process left.
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ALREADY_RUNNING
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, path)
        finally:
            os.umask(previous)
        try:
            await self._stop.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await self._servers.close()
            for writer in self._clients.values():
                writer.close()
            await asyncio.gather(*self._clients, return_exceptions=True)
        return 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._clients[task] = writer
        task.add_done_callback(self._clients.pop)
        with contextlib.suppress(OSError, ValueError):  # ValueError: a line that is too long
            while line := await reader.readline():
                try:
                    command = msgspec.json.decode(line, type=Command)
                except msgspec.MsgspecError:
                    break
                try:
                    reply = await self._do(command)
                except OSError as error:
                    reply = Reply(id=command.id, error=str(error))
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, command: Command) -> Reply:
        identity = EchoIdentity(command.namespace, command.service, command.port)
        match command.do:
            case "hello":
                return Reply(id=command.id, protocol=PROTOCOL, pid=os.getpid())
            case "ensure":
                host, at = await self._servers.ensure(identity, prefer=command.prefer)
                return Reply(id=command.id, host=host, at=at)
            case "release":
                await self._servers.release(identity)
                return Reply(id=command.id)
            case "list":
                return Reply(
                    id=command.id,
                    servers=[
                        (each.namespace, each.service, each.port, at)
                        for each, (_, at) in sorted(self._servers.addresses().items())
                    ],
                )
            case "stop":
                # After the answer is on its way.
                asyncio.get_running_loop().call_soon(self._stop.set)
                return Reply(id=command.id)
        return Reply(id=command.id, error=f"there is no command {command.do!r}")


def serve(path: Path, host: str) -> int:
    """Run the echo process: see `ControlServer.run`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def run() -> int:
        return await ControlServer(EchoServers(host)).run(path)

    return asyncio.run(run())
