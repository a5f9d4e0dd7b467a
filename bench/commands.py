"""A process that is told over standard input what to do: one JSON line in, one JSON line out. Profiles on demand."""

import asyncio
import cProfile
import gc
import io
import json
import os
import pstats
import re
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

TOP = 25
"""So many functions are kept of a profile."""
PROFILING = "BENCH_PROFILES"
"""The environment variable that says in which directory profiles are kept; none are made without it."""
TRACING = "BENCH_TRACEMALLOC"
"""The environment variable that has a process remember where its memory was allocated, for `memory_end`."""
WHOLE_LIFE = "BENCH_PROFILE"
"""The file that gets a cProfile of the whole life of a process, for `python -m pstats`."""


class Commands(Protocol):
    """Public methods are the commands; `run` is the work they are about."""

    loop: asyncio.AbstractEventLoop | None

    def run(self) -> Coroutine[Any, Any, int]:
        """From beginning to end; the exit code."""


class Profiles:
    """Profiles of the thread that runs the event loop: from the start on, or from `profile_begin`, to `profile_end`."""

    def __init__(self) -> None:
        self.directory = os.environ.get(PROFILING, "")
        self._profile = cProfile.Profile(time.process_time)
        self._began = 0.0

    def begin(self) -> None:
        """Count from here on. To be called in the thread of the event loop, as `end`."""
        self._profile.disable()
        self._profile = cProfile.Profile(time.process_time)
        self._began = time.process_time()
        self._profile.enable()

    def end(self, name: str, size: int) -> None:
        """Write the top of what was counted to `NAME.txt`, in place of what another size left there."""
        self._profile.disable()
        used = time.process_time() - self._began
        file = Path(self.directory, file_name(name))
        file.write_text(render(self._profile, f"{name}, {size:,}", used), encoding="utf-8")

    def memory_end(self, name: str, size: int) -> None:
        """Write what the memory that is in use was allocated by, packages and lines, to `NAME.txt`."""
        gc.collect()
        found = tracemalloc.take_snapshot()
        by_line = found.statistics("lineno")
        packages: Counter[str] = Counter()
        for each in by_line:
            packages[_package(each.traceback[0].filename)] += each.size
        total = sum(packages.values())
        lines = [f"{name}, {size:,}: {total / 2**20:.1f} MiB allocated by Python, by package and by line", ""]
        lines += [f"{count / 2**20:8.1f} MiB  {package}" for package, count in packages.most_common(TOP)]
        lines.append("")
        for each in by_line[:TOP]:
            place = each.traceback[0]
            where = f"{_package(place.filename)}/{Path(place.filename).name}:{place.lineno}"
            lines.append(f"{each.size / 2**20:8.1f} MiB  {each.count:9,}  {where}")
        file = Path(self.directory, file_name(name))
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")


def file_name(name: str) -> str:
    """Where the profile of that name is kept."""
    return f"{re.sub('[^A-Za-z0-9]+', '-', name)}.txt"


def _package(file: str) -> str:
    """The package that a file belongs to, without what differs from machine to machine."""
    parts = Path(file).parts
    for root in ("site-packages", "src"):
        if root in parts:
            at = len(parts) - parts[::-1].index(root)
            return "/".join(parts[at:-1]) or parts[-1]
    return parts[-1]


def render(profile: cProfile.Profile, name: str, used: float) -> str:
    """The functions that took most time of their own, without what differs from machine to machine."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
    lines = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
    return "\n".join([f"{name}: {used:.2f} s of CPU, by own time, under cProfile", *lines, ""])


def serve(commands: Commands) -> None:
    """Run, execute the commands that come on standard input until it ends, and exit."""
    profiles = Profiles()
    if os.environ.get(TRACING):
        tracemalloc.start()

    def in_loop(work: Any, *arguments: Any) -> dict[str, Any]:
        done = threading.Event()
        loop = commands.loop
        if profiles.directory and loop is not None:
            loop.call_soon_threadsafe(lambda: (work(*arguments), done.set()))
            done.wait(60)
        return {}

    def read() -> None:
        own = {
            "profile_begin": profiles.begin,
            "profile_end": profiles.end,
            "memory_end": profiles.memory_end,
        }
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            try:
                work = own.get(command)
                answer = in_loop(work, *arguments) if work else getattr(commands, command)(*arguments)
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        os.kill(os.getpid(), 15)

    async def run() -> int:
        commands.loop = asyncio.get_running_loop()
        if profiles.directory and not os.environ.get(TRACING):
            profiles.begin()
        return await commands.run()

    threading.Thread(target=read, daemon=True).start()
    whole = os.environ.get(WHOLE_LIFE)
    if not whole:
        sys.exit(asyncio.run(run()))
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(asyncio.run, run())
    profiler.dump_stats(whole)
