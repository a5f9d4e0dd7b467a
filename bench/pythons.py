"""Prints the interpreter that the benchmarks are to run with: the fastest of those that are installed.

A Python built from source without `--enable-optimizations`, as pyenv does unless it is told otherwise, takes up to 1.7
times as long for the same lines as a distribution's, and who runs propylon in earnest has the latter. Needs nothing but
the standard library, and is asked before anything is installed.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

LEAST = (3, 11)
CLEAR = 0.95
"""Another interpreter than the one that runs this is chosen only if it takes at most this share of its time."""

_WORK = f"""
import os, sys, time
if sys.version_info < {LEAST}: raise SystemExit("too old")
import ensurepip, venv

class Node:
    __slots__ = ("key",)
    def __init__(self, key): self.key = key
    def same(self, other): return self.key == other

def work():
    known = {{}}
    for number in range(100_000):
        node = Node((number % 977, str(number % 31)))
        if not node.same(number):
            known[node.key] = known.get(node.key, 0) + len(node.key)
    return known

print(os.path.realpath(sys.executable))
for _ in sys.stdin:
    began = time.process_time()
    work()
    print(time.process_time() - began, flush=True)
"""
ROUNDS = 15
"""The interpreters take turns, and the least time of each counts: machines have slower and faster seconds."""


def candidates(path: str, own: str) -> list[str]:
    """Programs that are called `python3`, with or without a minor version, in the directories of a search path; `own`
    first, and each but once."""
    found = {os.path.realpath(own): own}
    for directory in path.split(os.pathsep):
        for program in sorted(Path(directory or ".").glob("python3*")):
            minor = program.name.removeprefix("python3").removeprefix(".")
            if (not minor or minor.isdigit()) and os.access(program, os.X_OK):
                found.setdefault(os.path.realpath(program), str(program))
    return list(found.values())


def fastest(seconds: Mapping[str, float]) -> str:
    """The first, unless another takes clearly less."""
    own, least = next(iter(seconds)), min(seconds, key=lambda program: seconds[program])
    return least if seconds[least] < CLEAR * seconds[own] else own


def measured(programs: Iterable[str]) -> dict[str, float]:
    """CPU seconds of a fixed piece of work, by what each program says to be; without those that are too old, or cannot
    make virtual environments."""
    running: dict[str, subprocess.Popen[str]] = {}
    for program in programs:
        process = subprocess.Popen(
            [program, "-c", _WORK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        if name and name not in running:
            running[name] = process
        else:
            process.communicate()
    seconds: dict[str, float] = {}
    for name, process in [*running.items()] * ROUNDS:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        taken = float(process.stdout.readline())
        seconds[name] = min(taken, seconds.get(name, taken))
    for process in running.values():
        process.communicate()
    return seconds


if __name__ == "__main__":
    print(fastest(measured(candidates(os.environ["PATH"], sys.executable)) or {sys.executable: 0}))
