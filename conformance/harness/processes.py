"""Child processes that never outlive their owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path


class ProcessFailedError(Exception):
    """A process ended too early, or never became ready; the message has the end of its log."""


class Daemon:
    """One long-running process with its output in a file. A session of its own: Ctrl-C reaches it only through us."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Starts the command. ``environment`` replaces the whole environment. Raises ProcessFailedError."""
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessFailedError(f"cannot start {name}: {command[0]}: {error.strerror}") from error
        return cls(name, process, log)

    def check(self) -> None:
        """Raises ProcessFailedError if the process has ended."""
        if self.process.returncode is not None:
            raise ProcessFailedError(f"{self.name} ended with exit code {self.process.returncode}\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log, under its path."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"--- {self.log}", *text])

    async def stop(self, grace: float = 5) -> None:
        """Ends the process and whatever it started: SIGTERM, and SIGKILL after ``grace`` seconds (0: at once)."""
        await end_group(self.process, grace)


async def end_group(process: asyncio.subprocess.Process, grace: float) -> None:
    """Ends a process that leads a session, and its descendants in that session. Returns when it is gone."""
    if process.returncode is None and grace:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            _signal_group(process.pid, signal.SIGKILL)
            raise
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


async def run(command: Sequence[str], *, stdin: str = "") -> str:
    """A short command's standard output. Raises ProcessFailedError on a non-zero exit code."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(stdin.encode())
    if process.returncode:
        raise ProcessFailedError(f"{' '.join(command)}: exit code {process.returncode}: {errors.decode().strip()}")
    return output.decode()
