"""Runs the official Gateway API conformance suite against a controller: ``python conformance/run.py --help``.

The process that is started by hand builds what is missing, enters the namespaces, and waits; the same file, run again
inside, does the work. README.md beside this file tells more.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import build  # noqa: E402
from harness import netns, share  # noqa: E402
from harness.api import ApiError, Object, has_condition, load_documents, wait_until  # noqa: E402
from harness.beyond import Beyond  # noqa: E402
from harness.cluster import API_PORT, Cluster, install_crds  # noqa: E402
from harness.containers import Program  # noqa: E402
from harness.embedded import Embedded  # noqa: E402
from harness.kubelet import NODE, Kubelet  # noqa: E402
from harness.processes import Daemon, ProcessFailedError  # noqa: E402
from harness.report import read_profiles, table  # noqa: E402
from harness.selftest import SelfTestError, self_test  # noqa: E402
from harness.services import ServiceProxy  # noqa: E402
from harness.suite import Outcome, run_pattern, run_suite  # noqa: E402
from harness.workloads import Workloads  # noqa: E402

ALL_PROFILES = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP"
ECHO_IMAGE = "registry.k8s.io/gateway-api/conformance/echo-basic"
LIFELINE = "--lifeline"
_ACCEPTED_SECONDS = 60
_PRINTED_LINES = 60
"""Of a failed test's output; the file has all of it."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description="Run the official Gateway API conformance suite in a cluster without containers.",
        epilog="Arguments after -- go to the suite as they are.",
    )
    add = result.add_argument
    add("--controller-command", help="the controller under test; {kubeconfig} and other placeholders: see README.md")
    add(
        "--mode",
        choices=["process", "kubernetes", "embedded"],
        default="process",
        help="kubernetes: Services work; embedded: the controller serves the API itself; named in the report",
    )
    add("--run-test", help="ShortNames, separated by commas; one alone runs whatever features are claimed")
    add("--skip-tests", help="ShortNames, separated by commas")
    add("--profiles", default=ALL_PROFILES, help="default: %(default)s")
    add("--supported-features", help="instead of those the GatewayClass claims")
    add("--exempt-features")
    add("--all-features", action="store_true")
    add("--channel", choices=["experimental", "standard"], default="experimental", help="of the CRDs")
    add("--gateway-class", default="gateway-conformance")
    add("--controller-name", default="propylon.dev/gateway-controller", help="of the GatewayClass")
    add("--manifest", action="append", default=[], type=Path, help="applied before the controller starts")
    add("--image", action="append", default=[], metavar="PATTERN=COMMAND", help="what to run for a container image")
    add("--results", type=Path, default=HERE.parent / ".cache" / "conformance-results", help="default: %(default)s")
    add("--timeout", default="90m", help="of the whole suite")
    add("--organization", default="propylon")
    add("--project", default="propylon")
    add("--url", default="https://github.com/propylon/propylon")
    add("--version", default="0.1.0", help="of the implementation, for the report")
    add("--contact", default="https://github.com/propylon/propylon/issues")
    add("--ci", action="store_true", help="exit with 0, saying so, where a run is impossible: see README.md")
    add("--verbose", action="store_true", help="print what the harness logs")
    add("--beyond", action="store_true", help="no suite: what it has features for and does not test (nftables needed)")
    add("--shell", action="store_true", help="no suite: a shell in the namespace, KUBECONFIG set")
    add("--self-test", action="store_true", help="no suite, no controller: shows that the harness works")
    add(LIFELINE, type=int, help=argparse.SUPPRESS)
    add("--artifacts", help=argparse.SUPPRESS)
    add("suite", nargs="*", help=argparse.SUPPRESS)
    return result


def main() -> int:
    """Outside: build, enter. Inside: run. Returns the exit code: 0 if everything passed."""
    options = parser().parse_args()
    if options.lifeline is not None:
        return asyncio.run(inside(options))
    if not (options.shell or options.self_test or options.controller_command):
        parser().error("one of --controller-command, --shell, --self-test is needed")
    if options.mode == "embedded" and not options.controller_command:
        parser().error("--mode embedded needs a --controller-command: it is the control plane")
    try:
        netns.require_namespaces()
        if options.mode == "kubernetes" or options.beyond:
            ServiceProxy.require()
        artifacts = build.build(leave_out=build.CONTROL_PLANE if options.mode == "embedded" else frozenset())
    except (netns.NamespacesUnavailableError, build.BuildError) as error:
        if options.ci and (why := impossible(error)):
            print(f"not run: {why}", flush=True)
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    paths = json.dumps({name: str(path) for name, path in vars(artifacts).items()})
    # Before the user's own arguments: those may end in "-- ..." for the suite.
    own = [sys.executable, str(HERE / "run.py"), "--artifacts", paths]
    return netns.enter(own, LIFELINE, sys.argv[1:])


def impossible(error: Exception) -> str:
    """Why no run could ever succeed on this machine, "" if one could: then the error has to be mended."""
    if isinstance(error, netns.NamespacesRefusedError):
        return str(error)
    if isinstance(error, build.BuildError) and (why := build.modules_unavailable()):
        return f"what is not built yet needs Go modules, and none can be downloaded: {why}"
    return ""


async def inside(options: argparse.Namespace) -> int:
    """Runs in the namespaces until done or until the lifeline ends."""
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, format="%(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        task.cancel()

    netns.watch_lifeline(options.lifeline, stop)
    artifacts = build.Artifacts(**{name: Path(path) for name, path in json.loads(options.artifacts).items()})
    results: Path = options.results.resolve()
    try:
        lock = claim(results)
    except ValueError as error:
        say(f"error: {error}")
        return 2
    with lock, tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as directory:
        run = None
        try:
            run = Run(options, artifacts, Path(directory), results)
            return await run.run()
        except asyncio.CancelledError:
            say("interrupted")
            return 130
        except (ProcessFailedError, TimeoutError, ApiError, SelfTestError, ValueError) as error:
            say(f"error: {error}")
            return 1
        finally:
            if run is not None:
                await run.stop()
            if left := netns.processes_left():
                say(f"ending what is left: {', '.join(left)}")


def claim(results: Path) -> TextIO:
    """Empties the directory of an earlier run's results and locks it until the returned file is closed.

    Raises ValueError if it has something else in it, or if another run writes to it.
    """
    results.mkdir(parents=True, exist_ok=True)
    marker = results / ".conformance-results"
    if not marker.exists() and any(results.iterdir()):
        raise ValueError(f"{results} has files that no conformance run wrote: give another --results")
    lock = marker.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ValueError(f"another run writes to {results}: give another --results") from None
    for entry in results.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != marker:
            entry.unlink()
    return lock


class Run:
    """One run: the cluster, the controller, and the suite or what was asked for instead."""

    def __init__(self, options: argparse.Namespace, artifacts: build.Artifacts, directory: Path, results: Path) -> None:
        self.options = options
        self.artifacts = artifacts
        self.directory = directory
        self.results = results
        logs = results / "logs"
        self.cluster: Cluster | Embedded
        if options.mode == "embedded":
            self.cluster = Embedded(directory)
        else:
            self.cluster = Cluster(
                directory,
                logs,
                etcd=artifacts.etcd,
                apiserver=artifacts.apiserver,
                controller_manager=artifacts.controller_manager,
            )
        programs = {ECHO_IMAGE: Program((str(artifacts.echo),), rooted=True)}
        for entry in options.image:
            pattern, _, command = entry.partition("=")
            programs[pattern] = Program(tuple(shlex.split(self._filled(command))))
        self._programs = programs
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        # What plays the rest of a cluster, in the order of its start.
        self.kubelet: Kubelet | None = None
        self.services: ServiceProxy | None = None
        self.workloads: Workloads | None = None
        self.controller: Daemon | None = None
        # Now, so that a mistake in it shows before anything is started.
        self._controller_command = shlex.split(self._filled(options.controller_command or ""))

    async def run(self) -> int:
        """Everything in order. Returns the exit code."""
        await netns.set_up_node()
        start = time.monotonic()
        await self._start_control_plane()
        say(f"control plane ready in {time.monotonic() - start:.1f} s")
        options, artifacts, cluster = self.options, self.artifacts, self.cluster
        crds = artifacts.standard_crds if options.channel == "standard" else artifacts.experimental_crds
        names = await install_crds(cluster.api, crds, self.check)
        say(f"{len(names)} CRDs of the {options.channel} channel served")
        self.kubelet = Kubelet(cluster.api, self.directory, self._logs, self._programs)
        await self.kubelet.start(cluster.authority)
        if options.mode == "kubernetes" or options.beyond:
            self.services = ServiceProxy(cluster.api)
            self.services.start()
        if options.mode == "embedded":
            self.workloads = Workloads(cluster.api, NODE)
            self.workloads.start()
        if options.self_test:
            services = options.mode == "kubernetes"
            base = artifacts.base_manifests
            await self_test(cluster, self.kubelet, base, self.directory, say, services=services, check=self.check)
            say("the harness works")
            return 0
        await self._prepare_class()
        if options.mode != "embedded":
            await self._start_controller()
        await self._class_accepted()
        if options.beyond:
            await Beyond(cluster.api, options.gateway_class, say, self.check).run()
            return 0
        return await (self._shell() if options.shell else self._suite())

    async def _start_control_plane(self) -> None:
        """Embedded, it is the controller itself."""
        if isinstance(self.cluster, Cluster):
            await self.cluster.start()
            return
        await self._start_controller()
        await self.cluster.wait_ready(self.check)

    async def stop(self) -> None:
        """Ends everything, in the order that leaves nobody without what it needs."""
        if self.controller is not None:
            await self.controller.stop(grace=15)
        for player in (self.workloads, self.services, self.kubelet):
            if player is not None:
                await player.stop()
        await self.cluster.stop()

    def check(self) -> None:
        """Raises if anything that should be running is not."""
        for part in (self.controller, self.cluster, self.kubelet, self.services, self.workloads):
            if part is not None:
                part.check()

    @property
    def _gateway_class(self) -> Object:
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": self.options.gateway_class},
            "spec": {"controllerName": self.options.controller_name},
        }

    async def _prepare_class(self) -> None:
        await self.cluster.api.apply(self._gateway_class)
        for manifest in self.options.manifest:
            await self.cluster.api.apply_all(load_documents(manifest.read_text()))

    async def _start_controller(self) -> None:
        if not self._controller_command:
            return
        environment = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig)}
        log = self.results / "logs" / "controller.log"
        self.controller = await Daemon.start("the controller", self._controller_command, log, environment=environment)
        say(f"controller started, its output is in {log}")

    async def _class_accepted(self) -> None:
        if self.controller is None:
            return
        api = self.cluster.api
        path = await api.path_of(self._gateway_class)

        async def accepted() -> bool:
            return has_condition(await api.get(path), "Accepted")

        what = f"the controller accepts GatewayClass {self.options.gateway_class}"
        await wait_until(what, accepted, seconds=_ACCEPTED_SECONDS, check=self.check)

    async def _suite(self) -> int:
        report = self.results / "report.yaml"
        say(f"suite starts; all it prints goes to {self.results}")
        meter = share.Meter(self.controller.process.pid) if self.controller is not None else None
        waiting = share.Waiting()
        watching = asyncio.create_task(share.watch(self.cluster.api, waiting))
        running = asyncio.create_task(
            run_suite(
                self.artifacts.suite,
                self.artifacts.test2json,
                self._suite_flags(report),
                kubeconfig=self.cluster.kubeconfig,
                results=self.results,
                progress=say,
                mark=self._log_size,
            )
        )
        try:
            while not running.done():
                await asyncio.wait([running], timeout=1)
                if meter is not None:
                    meter.read()
                self.check()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.wait([running, watching])
        outcome = running.result()
        text = table(read_profiles(report), outcome)
        for name in outcome.named("fail"):
            say(f"\n{self._failure(name, outcome)}")
        if meter is not None:
            errors = share.error_lines(self._controller_log.read_text(errors="replace"))
            text += "\n\n" + share.summary(outcome.seconds, meter.usage, waiting, errors)
            document = share.as_document(outcome.seconds, meter.usage, waiting, errors)
            (self.results / "share.json").write_text(json.dumps(document, indent=1) + "\n")
        (self.results / "table.txt").write_text(text + "\n")
        print(f"\n{text}", flush=True)
        return 0 if outcome.code == 0 else 1

    @property
    def _controller_log(self) -> Path:
        return self.results / "logs" / "controller.log"

    def _log_size(self) -> int:
        return self._controller_log.stat().st_size if self._controller_log.exists() else 0

    def _failure(self, name: str, outcome: Outcome) -> str:
        """What a failed test printed, and what the controller logged meanwhile; the file of the test gets both."""
        printed = "".join(outcome.outputs.get(name, [])).splitlines()
        lines = [f"=== {name}", *printed[-_PRINTED_LINES:]]
        if self._controller_log.exists() and name in outcome.spans:
            logged = share.excerpt(self._controller_log, outcome.spans[name])
            lines += [f"=== the controller's log during {name}", logged or "(nothing)"]
            with (self.results / "failed" / f"{name}.txt").open("a") as file:
                file.write(f"\n=== the controller's log meanwhile\n{logged}\n")
        return "\n".join(lines)

    def _suite_flags(self, report: Path) -> list[str]:
        options = self.options
        names = [name for name in (options.run_test or "").split(",") if name]
        flags = [f"-test.timeout={options.timeout}"]
        if len(names) > 1:
            flags.append(f"-test.run={run_pattern(names)}")
        elif names:
            flags.append(f"--run-test={names[0]}")
        lists = {
            "skip-tests": options.skip_tests,
            "supported-features": options.supported_features,
            "exempt-features": options.exempt_features,
        }
        flags += [f"--{name}={value}" for name, value in lists.items() if value]
        if options.all_features:
            flags.append("--all-features")
        flags += [f"--{name}={getattr(options, name)}" for name in _REPORT_FLAGS]
        flags += [
            f"--mode={options.mode}",
            f"--gateway-class={options.gateway_class}",
            f"--conformance-profiles={options.profiles}",
            f"--report-output={report}",
            f"--usable-address={netns.GATEWAY_RANGE.replace('.0.0/16', '.200.1')}",
            "--unusable-address=198.51.100.0",
            # The cluster is thrown away as a whole; deleting the base namespaces first takes ten seconds.
            "--cleanup-base-resources=false",
        ]
        return flags + list(options.suite)

    async def _shell(self) -> int:
        say("kubectl, curl and so on work here; exit ends everything")
        environment = os.environ | {"KUBECONFIG": str(self.cluster.kubeconfig), "PS1": "(conformance) \\w# "}
        command = [os.environ.get("SHELL", "/bin/sh")]
        if command[0].endswith("bash"):
            command.append("--norc")  # or the prompt would not tell where one is
        # In our session: the shell needs the terminal.
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _filled(self, command: str) -> str:
        values: dict[str, str] = {
            "kubeconfig": str(self.cluster.kubeconfig),
            "mode": self.options.mode,
            "channel": self.options.channel,
            "gateway_class": self.options.gateway_class,
            "controller_name": self.options.controller_name,
            "node_ip": netns.NODE_IP,
            "api_port": str(API_PORT),
            "gateway_range": netns.GATEWAY_RANGE,
            "directory": str(self.directory),
            "results": str(self.results),
            "python": sys.executable,
        }

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in values:
                raise ValueError(f"unknown placeholder {{{name}}}; there are {', '.join(sorted(values))}")
            return values[name]

        filled: str = re.sub(r"\{(\w+)\}", value, command)
        return filled


_REPORT_FLAGS = ("organization", "project", "url", "version", "contact")


def say(line: str) -> None:
    """One line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
