"""kubectl against the embedded API and against a real kube-apiserver: ``python conformance/parity/run.py --help``.

Like conformance/run.py, the process that is started by hand enters the namespaces and waits; the same file, run again
inside, does the work: a control plane with the official CRDs, `propylon up` beside it, and every invocation to both.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

import build  # noqa: E402
import httpx  # noqa: E402
from harness import netns  # noqa: E402
from harness.api import wait_until  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.processes import Daemon, ProcessFailedError  # noqa: E402
from harness.processes import run as run_command  # noqa: E402

from parity.compare import Difference, difference, read_expected, report  # noqa: E402
from parity.kubectl import Outcome, Side  # noqa: E402
from parity.scenario import Step, read_scenarios  # noqa: E402

LIFELINE = "--lifeline"
# Nobody runs pods on either side: only what ends namespaces and owned objects.
_CONTROLLERS = ("namespace-controller", "garbage-collector-controller")
_MOST_EXPECTED = 10


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="Run kubectl against both servers and tell what differs.")
    add = result.add_argument
    add("--report", type=Path, help="where the report is written, as Markdown")
    add("--record", type=Path, help="where the real server's outcomes are kept, for --recorded")
    add("--recorded", type=Path, help="outcomes kept by --record, instead of a real server: quick, while mending ours")
    add("--only", default="", help="show just the differences of invocations that contain this text")
    add(LIFELINE, type=int, help=argparse.SUPPRESS)
    add("--artifacts", help=argparse.SUPPRESS)
    return result


def main() -> int:
    """Outside: build, enter. Inside: compare. Exit code 0 if nothing unexpected differs, 1 if so, 2 if it failed."""
    options = parser().parse_args()
    if options.lifeline is not None or options.recorded is not None:
        return asyncio.run(inside(options))
    try:
        netns.require_namespaces()
        artifacts = build.build()
    except (netns.NamespacesUnavailableError, build.BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    paths = json.dumps({name: str(path) for name, path in vars(artifacts).items()})
    own = [sys.executable, str(HERE / "run.py"), "--artifacts", paths]
    return netns.enter(own, LIFELINE, sys.argv[1:])


async def inside(options: argparse.Namespace) -> int:
    """Runs in the namespaces until done or until the lifeline ends."""
    task = asyncio.current_task()
    assert task is not None
    if options.lifeline is not None:
        netns.watch_lifeline(options.lifeline, task.cancel)
    steps = read_scenarios()
    try:
        with tempfile.TemporaryDirectory(prefix="parity-", ignore_cleanup_errors=True) as name:
            directory = Path(name)
            if options.recorded is not None:
                ours, theirs = await _embedded(directory, steps), _read(options.recorded)
            else:
                await netns.set_up_node()
                ours, theirs = await asyncio.gather(_embedded(directory, steps), _real(directory, steps, options))
    except asyncio.CancelledError:
        print("interrupted")
        return 130
    except (ProcessFailedError, TimeoutError, RuntimeError, httpx.TransportError) as error:
        print(f"error: {error}", flush=True)
        return 2
    if options.record is not None:
        options.record.write_text(json.dumps([outcome and dataclasses.asdict(outcome) for outcome in theirs]))
    return _tell(options, steps, theirs, ours)


def _read(path: Path) -> list[Outcome | None]:
    return [None if outcome is None else Outcome(**outcome) for outcome in json.loads(path.read_text())]


def _tell(
    options: argparse.Namespace,
    steps: Sequence[Step],
    theirs: Sequence[Outcome | None],
    ours: Sequence[Outcome | None],
) -> int:
    expected = read_expected()
    found: list[Difference] = []
    for step, there, here in zip(steps, theirs, ours, strict=True):
        if there is not None and here is not None:
            one = difference(step, there, here, expected)
            if one is not None:
                found.append(one)
    for one in found:
        if one.lines and options.only in one.step.title:
            print(f"{one.step.number} {one.step.chapter}: {one.step.title}")
            print("".join(f"    {line}\n" for line in one.lines), flush=True)
    unexpected = sum(bool(one.lines) for one in found)
    count = sum(outcome is not None for outcome in theirs)
    print(f"{count} invocations, {count - len(found)} equal, {len(found)} different, {unexpected} of them unexpectedly")
    used = {name for one in found for name in one.names}
    for known in expected:
        if known.name not in used:
            print(f"differences.yaml: {known.name!r} did not show")
    if options.report is not None:
        client = subprocess.run(
            [str(Path(sys.executable).parent / "kubectl"), "version", "--client", "-o", "json"],
            capture_output=True,
            check=True,
        )
        versions = {**build.read_versions(), "kubectl": json.loads(client.stdout)["clientVersion"]["gitVersion"]}
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(report(steps, found, expected, versions))
    return 1 if unexpected or len(expected) > _MOST_EXPECTED else 0


async def _embedded(directory: Path, steps: Sequence[Step]) -> list[Outcome | None]:
    """`propylon up` with no manifests, adopting no class, so that nobody writes status on either side."""
    data = directory / "data"
    programs = Path(sys.executable).parent
    flags = ["--data-dir", str(data), "--api-port", "0", "--controller-name", "parity.example.com/nobody"]
    command = [str(programs / "propylon"), "up", *flags]
    daemon = await Daemon.start("propylon", command, directory / "propylon.log", environment=os.environ)
    ours = data / "kubeconfig"

    admin = Side("embedded", ours, directory / "home-admin")

    async def ready() -> bool:
        return ours.exists() and (await admin.kubectl("get", "--raw", "/readyz")).code == 0

    try:
        await wait_until("propylon up is ready", ready, seconds=60, check=daemon.check)
        crds = build.cache_directory() / f"manifests-{build.read_versions()['GATEWAY_API_VERSION']}" / "crds"
        applied = await admin.kubectl("apply", "--server-side", "-f", str(crds / "experimental"))
        if applied.code:
            raise RuntimeError(f"the official CRDs were refused: {applied.errors}")
        user = ["user", "add", "admin", "--group", "system:masters", "--data-dir", str(data)]
        kubeconfig = directory / "embedded.kubeconfig"
        kubeconfig.write_text(await run_command([str(programs / "propylon"), *user]))
        return await Side("embedded", kubeconfig, directory / "home-embedded").run(steps)
    finally:
        await daemon.stop(grace=10)


async def _real(directory: Path, steps: Sequence[Step], options: argparse.Namespace) -> list[Outcome | None]:
    artifacts = build.Artifacts(**{name: Path(path) for name, path in json.loads(options.artifacts).items()})
    cluster = Cluster(
        directory / "cluster",
        directory / "logs",
        etcd=artifacts.etcd,
        apiserver=artifacts.apiserver,
        controller_manager=artifacts.controller_manager,
        controllers=_CONTROLLERS,
    )
    try:
        await cluster.start()
        await cluster.install_crds(artifacts.experimental_crds)
        return await Side("real", cluster.kubeconfig, directory / "home-real").run(steps)
    finally:
        await cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
