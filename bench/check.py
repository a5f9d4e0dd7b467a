"""`python bench/check.py`: `propylon check` of 5,000 manifests beside `kubectl apply --dry-run=server` of the same ones
against a real kube-apiserver, and one `explain` on 10,000 routes.

Needs what `make conformance` needs: the process that is started by hand enters the namespaces and waits; the same file,
run again inside, starts a control plane with the official CRDs and measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent / "conformance")

import build  # noqa: E402
import yaml  # noqa: E402
from harness import netns  # noqa: E402
from harness.cluster import Cluster  # noqa: E402

LIFELINE = "--lifeline"
BINARIES = Path(sys.executable).parent
A_FILE = 50
"""So many objects stand in one file."""


def manifests(count: int) -> Iterator[dict[str, Any]]:
    """A Gateway, and Services with an HTTPRoute each."""
    group = "gateway.networking.k8s.io/v1"
    yield {
        "apiVersion": group,
        "kind": "GatewayClass",
        "metadata": {"name": "c"},
        "spec": {"controllerName": "example.com/c"},
    }
    yield {
        "apiVersion": group,
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "default"},
        "spec": {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }
    for number in range((count - 2) // 2):
        metadata = {"name": f"app-{number}", "namespace": "default"}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}
        backends = [{"name": f"app-{number}", "port": 80}]
        paths = ("/", f"/api/{number}")
        rules = [
            {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": backends} for path in paths
        ]
        spec = {"parentRefs": [{"name": "edge"}], "hostnames": [f"app-{number}.example.com"], "rules": rules}
        yield {"apiVersion": group, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def write(directory: Path, count: int) -> None:
    """The manifests as files."""
    documents = list(manifests(count))
    for begin in range(0, len(documents), A_FILE):
        text = yaml.safe_dump_all(documents[begin : begin + A_FILE], sort_keys=False)
        (directory / f"{begin:05}.yaml").write_text(text, encoding="utf-8")


def seconds(command: list[str], environment: dict[str, str], wanted: int = 0) -> float:
    """How long a command takes. Raises RuntimeError if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    took = time.perf_counter() - began
    if done.returncode != wanted:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return took


def explain_milliseconds(routes: int) -> float:
    """The median of 20 explanations on so many routes of one host, each of another path, after they were loaded."""
    import propylon  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        documents = [
            {**each, "spec": {**each["spec"], "hostnames": ["app.example.com"], "rules": each["spec"]["rules"][1:]}}
            if each["kind"] == "HTTPRoute"
            else each
            for each in manifests(2 * routes + 2)
        ]
        (Path(name) / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
        loaded = propylon.load(name)
    took = []
    for number in range(0, routes, routes // 20):
        began = time.perf_counter()
        answer = loaded.explain(f"http://app.example.com/api/{number}")
        took.append(1000 * (time.perf_counter() - began))
        if answer.winner is None:
            raise RuntimeError(answer.summary)
    return median(took)


def main() -> int:
    """Outside: build, enter. Inside: measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=int, default=5000)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument(LIFELINE, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--artifacts", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lifeline is not None:
        return asyncio.run(inside(options))
    print(
        f"explain on {options.routes} routes: {explain_milliseconds(options.routes):.1f} ms (median of 20)", flush=True
    )
    try:
        netns.require_namespaces()
        artifacts = build.build()
    except (netns.NamespacesUnavailableError, build.BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    paths = json.dumps({name: str(path) for name, path in vars(artifacts).items()})
    own = [sys.executable, str(HERE / "check.py"), "--artifacts", paths]
    return netns.enter(own, LIFELINE, sys.argv[1:])


async def inside(options: argparse.Namespace) -> int:
    """Runs in the namespaces until done or until the lifeline ends."""
    task = asyncio.current_task()
    assert task is not None
    netns.watch_lifeline(options.lifeline, task.cancel)
    artifacts = build.Artifacts(**{name: Path(path) for name, path in json.loads(options.artifacts).items()})
    await netns.set_up_node()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = Cluster(
            directory / "cluster",
            directory / "logs",
            etcd=artifacts.etcd,
            apiserver=artifacts.apiserver,
            controller_manager=artifacts.controller_manager,
        )
        try:
            await cluster.start()
            await cluster.install_crds(artifacts.experimental_crds)
            found = directory / "manifests"
            found.mkdir()
            write(found, options.manifests)
            environment = {"KUBECONFIG": str(cluster.kubeconfig), "HOME": name}
            kubectl = [str(BINARIES / "kubectl"), "apply", "--dry-run=server", "-f", str(found)]
            theirs = await asyncio.to_thread(seconds, kubectl, environment)
            ours = await asyncio.to_thread(seconds, [str(BINARIES / "propylon"), "check", str(found)], {})
        finally:
            await cluster.stop()
    print(f"kubectl apply --dry-run=server of {options.manifests} manifests: {theirs:.1f} s")
    print(f"propylon check of the same: {ours:.1f} s, 1/{theirs / ours:.1f} of the time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
