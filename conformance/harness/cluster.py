"""etcd, kube-apiserver and kube-controller-manager as processes on the node's address."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from . import netns
from .api import Api, Object, has_condition, load_documents, wait_until
from .pki import Authority
from .processes import Daemon

API_PORT = 6443
_READY_SECONDS = 90
# What the suite needs done for it: pods of Deployments, EndpointSlices, the end of namespaces and of owned objects.
_CONTROLLERS = tuple(
    f"{name}-controller" for name in ("deployment", "replicaset", "endpointslice", "namespace", "garbage-collector")
)


class Cluster:
    """A control plane with an empty etcd, its certificates, and a client of it.

    ``directory`` is for state and keys, ``logs`` for what the processes print.
    """

    def __init__(
        self,
        directory: Path,
        logs: Path,
        *,
        etcd: Path,
        apiserver: Path,
        controller_manager: Path,
        controllers: Sequence[str] = _CONTROLLERS,
    ) -> None:
        self.directory = directory
        self.url = f"https://{netns.NODE_IP}:{API_PORT}"
        self.authority = Authority(directory / "certificates")
        certificate, key = self.authority.issue("admin", "admin", groups=["system:masters"])
        self.kubeconfig = self.authority.kubeconfig("kubeconfig", self.url, certificate, key)
        self.api = Api(self.url, self.authority.client_context(certificate, key))
        self._programs = (etcd, apiserver, controller_manager)
        self._controllers = ",".join(controllers)
        self._daemons: dict[str, Daemon] = {}
        self._commands: dict[str, list[str]] = {}
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        """Starts everything and returns when the API server is ready. Raises ProcessFailedError or TimeoutError."""
        etcd, apiserver, controller_manager = self._programs
        await self._start("etcd", [str(etcd), *self._etcd_flags()])
        await self._start("kube-apiserver", [str(apiserver), *self._apiserver_flags()])
        await wait_until("the API server is ready", self._ready, seconds=_READY_SECONDS, check=self.check)
        await self._start("kube-controller-manager", [str(controller_manager), *self._controller_manager_flags()])

    def check(self) -> None:
        """Raises ProcessFailedError if a part of the control plane has ended."""
        for daemon in self._daemons.values():
            daemon.check()

    async def stop(self) -> None:
        """Ends all processes, the last started first. Nothing they hold is worth their graceful end."""
        await self.api.close()
        for daemon in reversed(self._daemons.values()):
            await daemon.stop(grace=0)

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a part of the control plane (its program's name): SIGSTOP, SIGCONT."""
        self._daemons[name].process.send_signal(number)

    async def end(self, name: str, *, grace: float = 0) -> None:
        """Ends one part; `check` fails until `resume`."""
        await self._daemons[name].stop(grace)

    async def resume(self, name: str) -> None:
        """Starts a part again that was ended, as it was, and returns when the API server is ready."""
        await self._start(name, self._commands[name])
        await wait_until("the API server is ready", self._ready, seconds=_READY_SECONDS, check=self.check)

    async def install_crds(self, directory: Path) -> list[str]:
        """Applies a directory of CRDs (and what else lies there), waits until they are served, returns their names."""
        return await install_crds(self.api, directory, self.check)

    async def _start(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        self._daemons[name] = await Daemon.start(name, command, self.logs / f"{name}.log")

    async def _ready(self) -> bool:
        return await self.api.text("/readyz") == "ok"

    def _etcd_flags(self) -> list[str]:
        client, peer = f"http://{netns.NODE_IP}:2379", f"http://{netns.NODE_IP}:2380"
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # nothing of a run is meant to survive it
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        ip = netns.NODE_IP
        service_ip = netns.SERVICE_RANGE.replace(".0.0/16", ".0.1")
        names = ["localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1", ip, service_ip]
        certificate, key = self.authority.issue("apiserver", "kube-apiserver", names=names)
        kubelet_certificate, kubelet_key = self.authority.issue(
            "apiserver-kubelet", "kube-apiserver-kubelet-client", groups=["system:masters"]
        )
        accounts = self.authority.signing_key("service-accounts.key")
        return [
            f"--etcd-servers=http://{ip}:2379",
            f"--bind-address={ip}",
            f"--advertise-address={ip}",
            f"--secure-port={API_PORT}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority.path}",
            f"--kubelet-certificate-authority={self.authority.path}",
            f"--kubelet-client-certificate={kubelet_certificate}",
            f"--kubelet-client-key={kubelet_key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            f"--service-cluster-ip-range={netns.SERVICE_RANGE}",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            # Pods would wait for default service accounts and their tokens, which none of ours uses.
            "--disable-admission-plugins=ServiceAccount",
            # Served by default from Kubernetes 1.37 on; the CA certificates of GEP-5075.
            "--feature-gates=ClusterTrustBundle=true",
            "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true",
            "--allow-privileged=true",
            "--profiling=false",
        ]

    def _controller_manager_flags(self) -> list[str]:
        certificate, key = self.authority.issue(
            "controller-manager", "system:kube-controller-manager", groups=["system:masters"]
        )
        kubeconfig = self.authority.kubeconfig("controller-manager.kubeconfig", self.url, certificate, key)
        return [
            f"--kubeconfig={kubeconfig}",
            f"--controllers={self._controllers}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
        ]


async def install_crds(api: Api, directory: Path, check: Callable[[], None]) -> list[str]:
    """Applies a directory of CRDs (and what else lies there), waits until they are served, returns their names."""
    documents: list[Object] = []
    for file in sorted(directory.glob("*.yaml")):
        documents += load_documents(file.read_text())
    await api.apply_all(documents)
    names = [item["metadata"]["name"] for item in documents if item["kind"] == "CustomResourceDefinition"]

    async def established(name: str) -> bool:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        return has_condition(await api.get(path), "Established")

    waits = (
        wait_until(f"CRD {name} is established", functools.partial(established, name), seconds=30, check=check)
        for name in names
    )
    await asyncio.gather(*waits)
    return names
