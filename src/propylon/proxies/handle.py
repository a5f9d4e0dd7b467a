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
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
"""Environment variables a proxy may see. Ours may hold credentials."""


class ProcessHandle:
    """A running process and its end. To be made inside a running event loop."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._end)

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as the event loop has been told."""
        return not self._ended.is_set()

    async def wait(self) -> None:
        """Wait for the end."""
        await self._ended.wait()

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
        # As the first process of a container we are everybody's parent, and leave no zombies.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        self.release()
        self._ended.set()


_LAUNCHER = """
import os, sys
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
os.dup2(2, 1)
gate = int(sys.argv[1])
if os.read(gate, 1):
    os.close(gate)
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a process that is nobody's child.

Envoy asks the kernel to be terminated together with its parent (PR_SET_PDEATHSIG, whenever hot restart is enabled),
so it must have lost its parent before it begins. The process therefore waits for a byte through the gate, which is
written once its parent, this launcher, is gone. If the gate closes without one, whoever wanted the process is gone as
well. Not a fork of ours: between fork and exec a program with threads must not run Python.
"""


def _launch(command: Sequence[str], log: Path, directory: Path) -> tuple[int, int]:
    """The pid of a process that waits, and the descriptor of its gate. Blocks for the start of an interpreter."""
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    theirs, ours = os.pipe()
    try:
        with log.open("ab") as output:
            launcher = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(theirs), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=directory,
                env=environment,
                pass_fds=(theirs,),
                start_new_session=True,
                check=True,
            )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return int(launcher.stdout), ours


async def start_process(command: Sequence[str], *, log: Path, directory: Path) -> ProcessHandle:
    """Start `command`, an absolute path and its arguments, so that it outlives us.

    It has a session of its own (Ctrl-C in our terminal does not reach it), no parent, and `log` as its output.
    Raises OSError or subprocess.SubprocessError if it cannot be started.
    """
    launching = asyncio.ensure_future(asyncio.to_thread(_launch, command, log, directory))
    try:
        pid, gate = await asyncio.shield(launching)
    except asyncio.CancelledError:
        launching.add_done_callback(_abandon)
        raise
    try:
        handle = ProcessHandle(pid)
        with contextlib.suppress(OSError, ValueError):
            # Each connection is a file.
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        os.write(gate, b"g")
    finally:
        os.close(gate)
    return handle


def _abandon(launching: asyncio.Future[tuple[int, int]]) -> None:
    """Have the process that nobody waits for any more end before it begins."""
    if not launching.cancelled() and launching.exception() is None:
        os.close(launching.result()[1])


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
