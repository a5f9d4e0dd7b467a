"""The echo servers from outside: a process that is started, adopted after a crash of ours, and stopped with us.

echo = EchoProcess(run_directory / "echo.sock", data_directory / "echo.log")
await echo.start()
host, port = await echo.ensure(EchoIdentity("shop", "web", 80))
...
await echo.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec

from propylon.echo.answer import EchoIdentity
from propylon.echo.control import PROTOCOL, Command, Reply

_STARTUP = 20.0
"""Seconds a new process may take to answer; a busy machine is slow."""
_LONGEST_PAUSE = 5.0
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


class EchoError(Exception):
    """The echo servers cannot be run. The message says why, and where their log is."""


class _LostConnection(Exception):  # noqa: N818 - an event, always handled here
    pass


class EchoProcess:
    """Echo servers in a process of their own, which outlives ours.

    A process found on the control socket is taken over with its ports. One that dies is replaced, on the same ports
    if they are still free; `on_moved(identity, host, port)` tells of those that were not.
    """

    def __init__(
        self,
        control: Path,
        log: Path,
        *,
        host: str = "127.0.0.1",
        on_moved: Callable[[EchoIdentity, str, int], None] = lambda identity, host, port: None,
    ) -> None:
        """`control` is the socket's path (107 bytes at most); `log` gets what the process prints."""
        self._control = control
        self._log = log
        self._host = host
        self._on_moved = on_moved
        self._known: dict[EchoIdentity, int] = {}
        self._popen: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._last_id = 0
        self._connected = asyncio.Event()
        self._failure: EchoError | None = None
        self._task: asyncio.Task[None] | None = None
        self.pid = 0
        """Of the echo process."""

    async def start(self) -> dict[EchoIdentity, tuple[str, int]]:
        """Take over the running process or start one; what it already serves. Raises `EchoError`."""
        reader = await self._connect()
        self._task = asyncio.create_task(self._run(reader), name="echo process")
        self._connected.set()
        reply = await self._request(Command(id=0, do="list"))
        self._known = {EchoIdentity(namespace, service, port): at for namespace, service, port, at in reply.servers}
        return self.addresses()

    def addresses(self) -> dict[EchoIdentity, tuple[str, int]]:
        """Host and port of every server."""
        return {identity: (self._host, at) for identity, at in self._known.items()}

    async def ensure(self, identity: EchoIdentity) -> tuple[str, int]:
        """Host and port of the server for an identity, started if need be. TCP and UDP. Raises `EchoError`."""
        if identity not in self._known:
            self._known[identity] = (await self._request(_command("ensure", identity))).at
        return self._host, self._known[identity]

    async def ensure_all(self, identities: Iterable[EchoIdentity]) -> dict[EchoIdentity, tuple[str, int]]:
        """`ensure` for many at once. Raises `EchoError`."""
        wanted = list(identities)
        return dict(zip(wanted, await asyncio.gather(*map(self.ensure, wanted)), strict=True))

    async def release(self, identity: EchoIdentity) -> None:
        """Close the server for an identity, if there is one. Raises `EchoError`."""
        if self._known.pop(identity, None) is not None:
            await self._request(_command("release", identity))

    async def retain(self, identities: Collection[EchoIdentity]) -> None:
        """Release all but these: after a restart, those that are no longer needed. Raises `EchoError`."""
        for identity in [each for each in self._known if each not in identities]:
            await self.release(identity)

    async def stop(self) -> None:
        """End the process and every server in it."""
        if self._task is not None:
            self._end_task()
            with contextlib.suppress(OSError, _LostConnection, TimeoutError):
                async with asyncio.timeout(5):
                    await self._quit()
        await self.detach()
        self._known.clear()
        if self._popen is not None:
            await asyncio.to_thread(self._reap, self._popen)

    async def detach(self) -> None:
        """Let go of the process and leave it running."""
        self._end_task()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._connected.clear()
        self._lose()

    async def _quit(self) -> None:
        """Have the process end, on a connection of its own, and wait until it has closed that."""
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        writer.write(msgspec.json.encode(Command(id=0, do="stop")) + b"\n")
        await reader.read()
        writer.close()

    @staticmethod
    def _reap(popen: subprocess.Popen[bytes]) -> None:
        try:
            popen.wait(5)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()

    async def _run(self, reader: asyncio.StreamReader) -> None:
        """Hand out replies; connect again, to whatever process there is then, when the connection is lost."""
        pause = 0.05
        while True:
            connected_at = time.monotonic()
            await self._dispatch(reader)
            self._connected.clear()
            self._lose()
            if time.monotonic() - connected_at > _STARTUP:
                pause = 0.05
            while True:
                try:
                    reader = await self._connect()
                    break
                except EchoError as error:
                    self._failure = error
                    self._connected.set()  # who waits is told
                    await asyncio.sleep(pause)
                    pause = min(_LONGEST_PAUSE, pause * 2)
            self._failure = None
            self._connected.set()
            restoring = asyncio.create_task(self._restore())
            restoring.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.sleep(0)

    async def _restore(self) -> None:
        """Have a new process serve what the old one served, on the same ports."""
        for identity, at in list(self._known.items()):
            command = _command("ensure", identity)
            command.prefer = at
            moved = (await self._request(command)).at
            if moved != at and identity in self._known:
                self._known[identity] = moved
                self._on_moved(identity, self._host, moved)

    async def _dispatch(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            while line := await reader.readline():
                reply = msgspec.json.decode(line, type=Reply)
                future = self._waiting.pop(reply.id, None)
                if future is not None and not future.done():
                    future.set_result(reply)

    def _lose(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_LostConnection())
        self._waiting.clear()

    async def _request(self, command: Command) -> Reply:
        """The reply; asked again if the process dies meanwhile, for every command may be repeated. Raises
        `EchoError`.
        """
        while True:
            if self._task is None:
                raise EchoError("The echo servers are stopped.")
            await self._connected.wait()
            if self._failure is not None:
                raise self._failure
            assert self._writer is not None
            self._last_id += 1
            command.id = self._last_id
            future = self._waiting[command.id] = asyncio.get_running_loop().create_future()
            self._writer.write(msgspec.json.encode(command) + b"\n")
            try:
                reply: Reply = await future
            except _LostConnection:
                await asyncio.sleep(0)
                continue
            if reply.error:
                raise EchoError(f"No echo server for {command.namespace}/{command.service}: {reply.error}")
            return reply

    async def _connect(self) -> asyncio.StreamReader:
        """A connection to the process, started if there is none, replaced if it speaks another protocol."""
        deadline = time.monotonic() + _STARTUP
        started = False
        while True:
            with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
                reader, writer = await asyncio.open_unix_connection(str(self._control), limit=1 << 24)
                writer.write(msgspec.json.encode(Command(id=0, do="hello")) + b"\n")
                reply = msgspec.json.decode(await reader.readline(), type=Reply)
                if reply.protocol == PROTOCOL:
                    self._writer, self.pid = writer, reply.pid
                    return reader
                writer.close()
                await self._quit()
            if not started:
                self._spawn()
                started = True
            assert self._popen is not None
            if self._popen.poll() is not None and self._popen.returncode != 3:
                raise EchoError(f"The echo process ended with code {self._popen.returncode}; its log is {self._log}.")
            if time.monotonic() > deadline:
                raise EchoError(f"The echo process does not answer on {self._control}; its log is {self._log}.")
            await asyncio.sleep(0.01)

    def _spawn(self) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or name.startswith(("LC_", "PYTHON", "COVERAGE_"))
        }
        # -P: a module of ours is meant, not a file that lies in the current directory.
        command = [sys.executable, "-P", "-m", "propylon.echo", "--control", str(self._control), "--host", self._host]
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as output:
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise EchoError(f"The echo process cannot be started: {error}") from error


def _command(do: str, identity: EchoIdentity) -> Command:
    return Command(id=0, do=do, namespace=identity.namespace, service=identity.service, port=identity.port)
