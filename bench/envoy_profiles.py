"""Profiles of a busy Envoy: where its CPU time goes, and what it asks of the kernel. Its binary has no symbols, so what
is known of its own part is how large it is; `ablations` says what that is made of. Needs Debian's `linux-perf`."""

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.commands import PROFILING, file_name
from bench.instructions import Requests, system_calls
from bench.machine import cpu_seconds
from bench.subject import BenchError
from bench.traffic import tool

TOP = 20
SECONDS = 4
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def keep(name: str, text: str) -> None:
    """Write a profile, in place of what another size left there."""
    Path(os.environ[PROFILING], file_name(name)).write_text(text, encoding="utf-8")


def profile_requests(name: str, size: int, pid: int, load: Callable[[int], object], send: Requests) -> None:
    """Keep what an Envoy does under a load of so many seconds. Raises BenchError."""
    load(1)
    thread = threading.Thread(target=load, args=(SECONDS + 1,))
    thread.start()
    try:
        before, began = cpu_seconds(pid), time.monotonic()
        shares, symbols = _sampled(pid)
        busy = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    finally:
        thread.join()
    calls = system_calls(pid, send)
    lines = [
        f"{name}, {size:,}: Envoy used {busy:.2f} of a core",
        "",
        "Where its CPU time went:",
        *shares,
        "",
        "The kernel's and libraries' functions among it:",
        *symbols[:TOP],
        "",
        "System calls a request:",
        *(f"{count:8.2f}  {what}" for what, count in sorted(calls.items(), key=lambda each: -each[1]) if count >= 0.01),
    ]
    keep(name, "\n".join([*lines, ""]))


def _sampled(pid: int) -> tuple[list[str], list[str]]:
    """Shares of CPU time by what it was spent in, and by function where there are names."""
    perf = tool("perf", "linux-perf")
    with tempfile.TemporaryDirectory(prefix="pp") as directory:
        data = f"{directory}/data"
        command = [perf, "record", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", str(pid), "sleep", str(SECONDS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BenchError(f"perf says: {done.stderr[-500:]}")
        by_place, by_name = (_report(perf, data, keys) for keys in ("dso", "dso,symbol"))
    return by_place, [line for line in by_name if not _ADDRESS.search(line)]


def _report(perf: str, data: str, keys: str) -> list[str]:
    command = [perf, "report", "-i", data, "--sort", keys, "--stdio", "-g", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = (" ".join(line.split()).removesuffix(" - -") for line in done.stdout.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
