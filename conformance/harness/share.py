"""What of a run's time and memory is the controller's: CPU, the peak of its memory, and how long objects waited for it.

Waiting is measured from outside, by watching what the suite watches. An object waits from the moment that the API
server tells of a new generation of it until its status speaks of that generation, with a word on whether it is
programmed. It is an upper bound: the API server's part is in it, and on the other hand nothing that a test waited for
beyond statuses (traffic, which follows at once, since a status speaks of what proxies acknowledged).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .api import Api, Object

WATCHED = ("gateways", "listenersets", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes")
_GROUP = "/apis/gateway.networking.k8s.io/v1"
_TICKS = os.sysconf("SC_CLK_TCK")
GOAL_MEGABYTES = 200
_ERROR = re.compile(r"^(ERROR|CRITICAL)\b|^Traceback ")


@dataclass
class Usage:
    """Of one process. Its proxies are not in it: they are nobody's children, so that they outlive it."""

    cpu: float = 0
    peak_megabytes: float = 0


class Meter:
    """Reads /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.usage = Usage()

    def read(self) -> None:
        """Takes a reading; a process that is gone keeps its last one."""
        try:
            self.usage.cpu = _cpu(self._pid)
            self.usage.peak_megabytes = _peak(self._pid)
        except (OSError, KeyError):
            return


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name in parentheses: state, parent..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak(pid: int) -> float:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024


def waits(document: Object) -> bool:
    """Whether an object's status does not speak of its generation yet."""
    generation = document["metadata"].get("generation", 0)
    status = document.get("status") or {}
    if document.get("kind") in {"Gateway", "ListenerSet"} or "listeners" in document.get("spec", {}):
        found = {entry["type"]: entry for entry in status.get("conditions") or []}
        programmed = found.get("Programmed")
        return (
            programmed is None
            or programmed.get("observedGeneration") != generation
            or programmed["status"] == "Unknown"
        )
    parents = status.get("parents") or []
    conditions = [condition for parent in parents for condition in parent.get("conditions") or []]
    return not conditions or any(condition.get("observedGeneration", 0) < generation for condition in conditions)


@dataclass
class Waiting:
    """Which objects wait, and how long they and the run did. ``now`` tells seconds."""

    now: Callable[[], float] = time.monotonic
    longest: dict[str, float] = field(default_factory=dict)
    """Object -> its longest wait, of those whose wait ended in a status."""
    _since: dict[str, tuple[int, float]] = field(default_factory=dict)
    _intervals: list[tuple[float, float]] = field(default_factory=list)

    def see(self, name: str, document: Object | None) -> None:
        """An object is so now; None: it is gone. A wait that its deletion ends was for nothing, and is not counted."""
        waiting = self._since.get(name)
        if document is None:
            self._since.pop(name, None)
        elif not waits(document):
            if self._since.pop(name, None) is not None and waiting is not None:
                seconds = self.now() - waiting[1]
                self._intervals.append((waiting[1], self.now()))
                self.longest[name] = max(seconds, self.longest.get(name, 0))
        elif waiting is None or waiting[0] != document["metadata"].get("generation", 0):
            since = self.now() if waiting is None else waiting[1]
            self._since[name] = (document["metadata"].get("generation", 0), since)

    @property
    def seconds(self) -> float:
        """How long at least one object waited that got its status in the end."""
        return union(self._intervals)


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


async def watch(api: Api, waiting: Waiting) -> None:
    """Follows all kinds that wait for statuses until cancelled."""

    async def follow(plural: str) -> None:
        async for event, found in api.follow(f"{_GROUP}/{plural}"):
            items = found.get("items") or [] if event == "SYNC" else [found]
            for item in items:
                metadata = item["metadata"]
                waiting.see(
                    f"{plural} {metadata['namespace']}/{metadata['name']}", None if event == "DELETED" else item
                )

    async with asyncio.TaskGroup() as group:
        for plural in WATCHED:
            group.create_task(follow(plural))


def error_lines(log: str) -> list[str]:
    """Lines by which a controller says that something is wrong with itself: what its own logger calls an error."""
    return [line for line in log.splitlines() if _ERROR.match(line)]


def excerpt(log: Path, span: tuple[int, int], lines: int = 40) -> str:
    """The part of a log between two offsets; of a long part its end, which is where a test gave up."""
    with log.open("rb") as file:
        file.seek(span[0])
        found = file.read(span[1] - span[0]).decode(errors="replace").splitlines()
    left_out = [f"... {len(found) - lines} lines before, see {log}"] if len(found) > lines else []
    return "\n".join([*left_out, *found[-lines:]])


def summary(suite_seconds: float, usage: Usage, waiting: Waiting, errors: list[str]) -> str:
    """The lines under the table."""
    peak = f"{usage.peak_megabytes:.0f} MB at most (goal: {GOAL_MEGABYTES})"
    lines = [
        f"suite: {suite_seconds:.0f} s; controller: {usage.cpu:.0f} s of CPU, {peak}",
        f"some object waited for its status during {waiting.seconds:.0f} s of the suite",
    ]
    slowest = sorted(waiting.longest.items(), key=lambda entry: -entry[1])[:3]
    if slowest:
        lines.append("longest: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest))
    lines.append(f"error lines of the controller: {len(errors)}")
    return "\n".join([*lines, *(f"  {line[:200]}" for line in errors[:5])])


def as_document(suite_seconds: float, usage: Usage, waiting: Waiting, errors: list[str]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "suiteSeconds": round(suite_seconds, 1),
        "controllerCpuSeconds": round(usage.cpu, 1),
        "controllerPeakMegabytes": round(usage.peak_megabytes, 1),
        "waitingSeconds": round(waiting.seconds, 1),
        "errorLines": len(errors),
    }
