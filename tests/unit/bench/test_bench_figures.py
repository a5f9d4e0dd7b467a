"""How figures are made of measurements."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from bench.record import DESCENDING, Goal, figure, interval, table
from bench.subject import ROOT

AT_LEAST = Goal(0.97, DESCENDING, of_floor=True)


def test_neighbours_are_compared_and_not_medians():
    # One slow moment that fell on three rounds of ours and three of the floor's: every pair says 1.
    found = figure("P3", 16, "x", [10, 10, 1], "/s", floor=1, ratios=[1.0, 1.0, 1.0], goal=AT_LEAST)
    assert (found.ratio, found.ratio_low, found.ratio_high, found.met) == (1.0, 1.0, 1.0, True)


def test_without_pairs_the_ratio_is_that_of_the_medians():
    found = figure("P3", 16, "x", [9, 10, 11], "/s", floor=20, goal=AT_LEAST)
    assert (found.ratio, found.ratio_low, found.met) == (0.5, None, False)


def test_the_interval_is_the_same_for_the_same_values_and_holds_the_median():
    values = [0.8, 0.9, 1.0, 1.0, 1.1, 1.3, 0.95]
    low, high = interval(values)
    assert (low, high) == interval(values)
    assert min(values) <= low <= 1.0 <= high <= max(values)
    assert low < high


@pytest.mark.parametrize(("ratios", "shown"), [([0.9, 1.1, 1.0], "| 1 (0.9 to 1.1) |"), ([], "| 0.5 |")])
def test_the_interval_stands_beside_the_ratio(ratios, shown):
    found = figure("P3", 16, "x", [1.0, 1.0, 1.0], "/s", floor=2, ratios=ratios)
    assert shown in table([found], {}, "today")


def test_what_the_bench_starts_ends_with_it(tmp_path: Path):
    file = tmp_path / "pid"
    program = """
        import os, pathlib, sys
        from bench import children
        child = children.start(["sleep", "600"])
        pathlib.Path(sys.argv[1]).write_text(str(child.pid))
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(file)]
    subprocess.run(command, cwd=ROOT, check=False, timeout=60)
    child = int(file.read_text())
    descriptor = os.pidfd_open(child) if Path(f"/proc/{child}").exists() else None
    if descriptor is not None:
        import select

        ended, _, _ = select.select([descriptor], [], [], 30)
        os.close(descriptor)
        assert ended


def test_an_orphaned_envoy_is_the_benchs_own(tmp_path: Path):
    """What a child left running counts as ours when it has ended, and nothing is left of it."""
    envoy = tmp_path / "envoy"
    envoy.symlink_to(sys.executable)
    program = """
        import pathlib, subprocess, sys, time
        from bench import children
        from bench.__main__ import _used
        children.adopt_orphans()
        work = "import time\\nwhile time.process_time() < 0.5: pass"
        start = f"import subprocess; print(subprocess.Popen([{sys.argv[1]!r}, '-c', {work!r}]).pid)"
        before = _used()
        orphan = pathlib.Path("/proc", subprocess.check_output([sys.executable, "-c", start], text=True).strip())
        while orphan.exists():
            time.sleep(0.01)
        assert _used() - before >= 0.5
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(envoy)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
