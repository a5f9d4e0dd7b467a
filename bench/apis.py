"""Kubernetes APIs to measure, as processes: the embedded one, alone and within `propylon up`, and the real
kube-apiserver over etcd (built as for the conformance suite)."""

import asyncio
import base64
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from conformance import build
from conformance.harness.api import Api as Client
from conformance.harness.api import has_condition, load_documents, wait_until
from conformance.harness.pki import Authority

from bench import children
from bench.load import Address, Api
from bench.machine import cpu_seconds, resident_kib
from bench.subject import ROOT, BenchError, until

GROUP = "gateway.networking.k8s.io"
ROUTES = f"/apis/{GROUP}/v1/namespaces/default/httproutes"
GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways"
HOST = "127.0.0.1"
_PROGRAMMED = b'"reason":"Programmed"'


class Served:
    """Processes that serve a Kubernetes API, in a directory of their own. Use as a context manager; `started` is how
    long the API took to be ready, `cpu` what CPU time its processes had used by then, both in seconds."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pa"))
        self.started = self.cpu = 0.0
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            began = time.perf_counter()
            self.start()
            until(self._is_ready, f"{type(self).__name__} ready", 90, 0.005)
            self.started = time.perf_counter() - began
            self.cpu = sum(cpu_seconds(process.pid) for process in self._processes)
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start the processes."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Have HTTPRoutes served."""

    @property
    def address(self) -> Address:
        """Where it is served. Raises OSError while nobody can know."""
        raise NotImplementedError

    def memory(self) -> float:
        """Resident memory of all processes, in MiB."""
        return sum(resident_kib(process.pid) for process in self._processes) / 1024

    def _run(self, *command: str, last_words: signal.Signals = signal.SIGTERM) -> None:
        with (self.directory / "log").open("ab") as log:
            self._processes.append(
                children.start(
                    command,
                    last_words=last_words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                )
            )

    def _is_ready(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                raise BenchError((self.directory / "log").read_text(encoding="utf-8", errors="replace")[-2000:])
        try:
            api = Api(self.address)
        except (OSError, ValueError):
            return False
        try:
            return api.ask(api.request("GET", "/readyz"))[1] == b"ok"
        except (OSError, BenchError):
            return False
        finally:
            api.close()


class Embedded(Served):
    """The embedded API alone; `whole` runs all of `propylon up`, with `programmed` Envoy serves a Gateway "gateway"."""

    def __init__(self, *, whole: bool = False, programmed: bool = False) -> None:
        super().__init__()
        self._whole = whole
        self._programmed = programmed

    def start(self) -> None:
        data = str(self.directory / "data")
        if self._whole:
            self._run(sys.executable, "-m", "propylon", "up", "--data-dir", data)
        else:
            self._run(sys.executable, "-m", "bench.api_host", data)

    def prepare(self) -> None:
        if self._programmed:
            api = Api(self.address)
            for path, document in _gateway_documents(*_free_ports(1)):
                api.send("POST", path, json.dumps(document).encode())
            until(lambda: _PROGRAMMED in api.send("GET", f"{GATEWAYS}/gateway"), "the Gateway is programmed", 60)
            api.close()

    @property
    def address(self) -> Address:
        config: dict[str, Any] = yaml.safe_load((self.directory / "data" / "kubeconfig").read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = {
            "ca": cluster["certificate-authority-data"],
            "crt": user["client-certificate-data"],
            "key": user["client-key-data"],
        }
        paths = {name: self.directory / f"admin.{name}" for name in files}
        for name, text in files.items():
            paths[name].write_bytes(base64.b64decode(text))
        port = int(cluster["server"].rpartition(":")[2])
        return Address(HOST, port, paths["ca"], paths["crt"], paths["key"])


class Kubernetes(Served):
    """kube-apiserver and etcd, both durable, with the official CRDs of these kinds."""

    def __init__(self, plurals: Sequence[str] = ("httproutes",)) -> None:
        super().__init__()
        self._plurals = plurals
        self._artifacts = build.build()
        self._authority = Authority(self.directory / "certificates")
        self._admin = self._authority.issue("admin", "admin", groups=["system:masters"])
        self._port, self._etcd, self._peer = _free_ports(3)

    def start(self) -> None:
        etcd, peer = f"http://{HOST}:{self._etcd}", f"http://{HOST}:{self._peer}"
        self._run(
            str(self._artifacts.etcd),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
            last_words=signal.SIGKILL,
        )
        certificate, key = self._authority.issue("apiserver", "kube-apiserver", names=["localhost", HOST])
        accounts = self._authority.signing_key("service-accounts.key")
        self._run(
            str(self._artifacts.apiserver),
            f"--etcd-servers={etcd}",
            f"--bind-address={HOST}",
            f"--secure-port={self._port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self._authority.path}",
            f"--service-account-issuer=https://{HOST}:{self._port}",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            "--profiling=false",
            last_words=signal.SIGKILL,  # without etcd it takes a minute over SIGTERM
        )

    def prepare(self) -> None:
        asyncio.run(self._install())

    async def _install(self) -> None:
        certificate, key = self._admin
        context: ssl.SSLContext = self._authority.client_context(certificate, key)
        client = Client(f"https://{HOST}:{self._port}", context)
        try:
            for plural in self._plurals:
                file = self._artifacts.standard_crds / f"{GROUP}_{plural}.yaml"
                await client.apply_all(load_documents(file.read_text(encoding="utf-8")))
            for plural in self._plurals:
                await self._wait_for(client, plural)
        finally:
            await client.close()

    async def _wait_for(self, client: Client, plural: str) -> None:
        async def established() -> bool:
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{GROUP}"
            return has_condition(await client.get(path), "Established")

        async def served() -> bool:
            return await client.find(f"/apis/{GROUP}/v1/{plural}?limit=1") is not None

        await wait_until(f"{plural} are established", established, seconds=60)
        await wait_until(f"{plural} are served", served, seconds=60)

    @property
    def address(self) -> Address:
        return Address(HOST, self._port, self._authority.path, *self._admin)

    @property
    def kubeconfig(self) -> Path:
        """How an administrator reaches it."""
        return self._authority.kubeconfig("kubeconfig", f"https://{HOST}:{self._port}", *self._admin)


def _gateway_documents(port: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a route of `bench.api.route` refers to, each with the path of its collection."""
    version = "gateway.networking.k8s.io/v1"
    spec: dict[str, Any] = {"controllerName": "propylon.dev/gateway-controller"}
    document = {"apiVersion": version, "kind": "GatewayClass", "metadata": {"name": "propylon"}, "spec": spec}
    yield f"/apis/{version}/gatewayclasses", document
    spec = {"gatewayClassName": "propylon", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]}
    yield GATEWAYS, {"apiVersion": version, "kind": "Gateway", "metadata": {"name": "gateway"}, "spec": spec}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    yield "/api/v1/namespaces/default/services", service


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
