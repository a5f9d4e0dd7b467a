"""What a run ran on, how noisy that was, and small measures of processes."""

import os
import platform
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far (proc(5): utime + stime), to the clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_kib(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def describe() -> dict[str, str | int]:
    """The machine, for whoever compares figures."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "memory_mib": memory,
        "kernel": platform.release(),
        "python": sys.version,  # with what it was built, and by whom
    }


class Noise:
    """Whether others used the machine: CPU time that was neither idle nor ours, and how even a fixed task ran."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._probes: list[float] = []

    def probe(self) -> None:
        """Time a fixed piece of work; on a quiet machine it takes the same time whenever it is done."""
        began = time.perf_counter()
        total = 0
        for number in range(300_000):
            total += number & 7
        self._probes.append(time.perf_counter() - began)

    def verdict(self, ours: float) -> dict[str, float | bool]:
        """`ours` is the CPU time of the bench and its children, in seconds."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        foreign = max(0.0, _busy_seconds() - self._busy - ours) / elapsed
        spread = max(self._probes) / min(self._probes) if self._probes else 1.0
        return {
            "foreign_cores": round(foreign, 2),
            "probe_spread": round(spread, 2),
            "noisy": foreign > 0.15 or spread > 1.5,
        }


def _busy_seconds() -> float:
    user, nice, system, _idle, _wait, irq, softirq, steal = (
        int(x) for x in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS
