"""The echo servers in a process of their own: adopted, replaced when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from propylon.echo.answer import EchoIdentity
from propylon.echo.control import ALREADY_RUNNING
from propylon.echo.process import EchoError, EchoProcess

WEB, API = EchoIdentity("shop", "web", 80), EchoIdentity("shop", "api", 8080)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a socket's path; whatever runs in it ends with the test."""
    with tempfile.TemporaryDirectory(prefix="echo-") as name:
        yield Path(name)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if name.encode() in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)


def process(directory: Path, **options: Callable[[EchoIdentity, str, int], None]) -> EchoProcess:
    return EchoProcess(directory / "echo.sock", directory / "logs" / "echo.log", **options)


async def answers(address: tuple[str, int]) -> bool:
    try:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    except ConnectionError:
        return False
    writer.close()
    return b"200 OK" in answer


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.02)


def test_servers_are_started_and_stopped(directory: Path) -> None:
    async def scenario() -> None:
        echo = process(directory)
        assert await echo.start() == {}
        addresses = await echo.ensure_all([WEB, API, WEB])
        assert set(addresses) == {WEB, API}
        assert await answers(addresses[WEB])
        assert await echo.ensure(WEB) == addresses[WEB]
        await echo.release(WEB)
        assert not await answers(addresses[WEB])
        assert await answers(addresses[API])
        pid = echo.pid
        await echo.stop()
        assert not await answers(addresses[API])
        assert not Path(f"/proc/{pid}").exists()
        assert not (directory / "echo.sock").exists()
        assert (directory / "logs" / "echo.log").read_text() == ""
        with pytest.raises(EchoError, match="stopped"):
            await echo.ensure(WEB)

    asyncio.run(scenario())


def test_a_running_process_is_taken_over_with_its_ports_and_connections(directory: Path) -> None:
    async def scenario() -> None:
        first = process(directory)
        await first.start()
        address = await first.ensure(WEB)
        await first.ensure(API)
        pid = first.pid
        reader, writer = await asyncio.open_connection(*address)
        await first.detach()
        second = process(directory)
        assert (await second.start())[WEB] == address
        assert second.pid == pid
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
        assert await second.ensure(WEB) == address
        await second.retain([WEB])
        assert set(second.addresses()) == {WEB}
        await second.stop()
        assert not await answers(address)

    asyncio.run(scenario())


def test_a_killed_process_is_replaced_on_the_same_ports(directory: Path) -> None:
    async def scenario() -> None:
        moved: list[EchoIdentity] = []
        echo = process(directory, on_moved=lambda identity, host, port: moved.append(identity))
        await echo.start()
        addresses = await echo.ensure_all([WEB, API])
        first = echo.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: answers(addresses[WEB]))
        await until(lambda: answers(addresses[API]))
        assert echo.pid != first
        assert moved == []
        assert await echo.ensure(WEB) == addresses[WEB]
        await echo.stop()

    asyncio.run(scenario())


def test_a_port_that_was_taken_meanwhile_is_told(directory: Path) -> None:
    async def scenario() -> None:
        moved: dict[EchoIdentity, int] = {}
        echo = process(directory, on_moved=lambda identity, host, port: moved.__setitem__(identity, port))
        await echo.start()
        address = await echo.ensure(WEB)
        # Nobody can take a port that is in use: the thief comes between death and replacement.
        os.kill(echo.pid, signal.SIGKILL)
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            deadline = time.monotonic() + 10
            while True:
                try:
                    thief.bind(address)
                    break
                except OSError:
                    assert time.monotonic() < deadline
            thief.listen()

            async def has_moved() -> bool:
                return WEB in moved

            await until(has_moved)
            assert moved[WEB] != address[1]
            assert echo.addresses()[WEB] == ("127.0.0.1", moved[WEB])
            assert await answers(echo.addresses()[WEB])
        await echo.stop()

    asyncio.run(scenario())


def test_a_stale_socket_is_no_obstacle_and_a_second_process_is_refused(directory: Path) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(directory / "echo.sock"))
        echo = process(directory)
        await echo.start()
        assert (directory / "echo.sock").stat().st_mode & 0o777 == 0o600
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "propylon.echo", "--control", str(directory / "echo.sock")
        )
        assert await second.wait() == ALREADY_RUNNING
        assert await answers(await echo.ensure(WEB))
        await echo.stop()

    asyncio.run(scenario())


def test_a_process_that_cannot_start_names_its_log(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        echo = EchoProcess(directory / "missing" / "echo.sock", directory / "echo.log")
        with pytest.raises(EchoError, match=r"echo\.log"):
            await echo.start()

    asyncio.run(scenario())
    assert "missing" in (directory / "echo.log").read_text()
