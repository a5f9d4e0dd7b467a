"""Holding on to processes: those started here and those found running.

A process is held by a pidfd, which names it and no successor with the same number, tells when it ends even if it is
nobody's child, and takes signals without a race. What a process runs with is read from its own command line in /proc:
unlike a state file, that cannot be stale, half-written or about another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
"""Environment variables a proxy may see. Ours may hold credentials."""


class ProcessHandle:
    """A running process and its end. To be made inside a running event loop."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self._popen = popen
        self._descriptor = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._end)

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as the event loop has been told."""
        return not self._ended.is_set()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs, and always for a process that is not our child."""
        return None if self._popen is None else self._popen.returncode

    async def wait(self) -> int | None:
        """Wait for the end; the exit code as in `code`."""
        await self._ended.wait()
        return self.code

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the end, but not longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self._ended.is_set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens to a process that has ended."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def terminate(self, seconds: float = 5.0) -> None:
        """SIGTERM, SIGKILL if that is not enough within `seconds`, and wait for the end."""
        self.signal(signal.SIGTERM)
        if not await self.ended_within(seconds):
            self.signal(signal.SIGKILL)
            await self.wait()

    def release(self) -> None:
        """Let go of the process without touching it."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _end(self) -> None:
        if self._popen is not None:
            self._popen.wait()  # returns at once, and leaves no zombie
        self.release()
        self._ended.set()


def start_process(command: Sequence[str], *, log: Path, directory: Path) -> ProcessHandle:
    """Start `command` in a session of its own, writing to `log`: it outlives us, and Ctrl-C in our terminal does not
    reach it.

    Raises OSError if it cannot be started.
    """
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    with contextlib.suppress(OSError, ValueError):
        # Each connection is a file. Set from here: between fork and exec no Python may run safely.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(popen.pid, resource.RLIMIT_NOFILE, (hard, hard))
    return ProcessHandle(popen.pid, popen)


class FoundProcess(msgspec.Struct, frozen=True):
    """An Envoy process found running with one of our bootstraps."""

    pid: int
    bootstrap: Path
    epoch: int
    base_id: int | None
    """As given on the command line: the first epoch chooses its own and writes it to a file."""


def parse_command_line(pid: int, arguments: Sequence[str]) -> FoundProcess | None:
    """What an Envoy command line says, or None if it is not one of an Envoy with a bootstrap file. Pure."""
    if not arguments or not Path(arguments[0]).name.startswith("envoy"):
        return None
    options = dict(itertools.pairwise(arguments))
    try:
        base_id = int(options["--base-id"]) if "--base-id" in options else None
        return FoundProcess(pid, Path(options["-c"]), int(options.get("--restart-epoch", "0")), base_id)
    except (KeyError, ValueError):
        return None


def find_processes(bootstraps_below: Path, proc: Path = Path("/proc")) -> list[FoundProcess]:
    """Our user's running Envoys whose bootstrap lies below the directory, by pid."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != os.geteuid():
                continue
            # A zombie has no command line any more.
            arguments = (entry / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        except OSError:  # it ended in the meantime
            continue
        process = parse_command_line(int(entry.name), arguments)
        if process is not None and process.bootstrap.is_relative_to(bootstraps_below):
            found.append(process)
    return sorted(found, key=lambda process: process.pid)
