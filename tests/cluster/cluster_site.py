"""What a test serves: a GatewayClass, a Gateway and an HTTPRoute of its own, two backends, and controllers."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cluster_plane import Plane
from harness.api import Object

from support.backends import Backend
from support.instance import Client, eventually
from support.load import Load

BACKEND_IP = "10.0.1.1"
HOST = "shop.example"
GROUP = "gateway.networking.k8s.io"
MEMORY_MB = 200
"""What a controller may take at most."""
COMMAND = [sys.executable, "-m", "propylon", "controller"]
_numbers = itertools.count(1)


class Controller:
    """`propylon controller` with Envoys as processes; everything it prints is in `log`."""

    def __init__(self, directory: Path, kubeconfig: Path, name: str, *arguments: str) -> None:
        """`name` is the controllerName; `directory` is where it keeps its data and its log."""
        self.log = directory / "controller.log"
        self.data_dir = directory / "data"
        self._command = [*COMMAND, "--kubeconfig", str(kubeconfig), "--controller-name", name]
        self._command += ["--data-dir", str(self.data_dir), "--concurrency", "1", *arguments]
        self.process: subprocess.Popen[bytes] | None = None
        self.peak_mb = 0.0

    def __enter__(self) -> "Controller":
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.read_memory()
        self.stop()
        if kind is None:
            assert "Traceback" not in self.text(), self.text()
            assert 0 < self.peak_mb <= MEMORY_MB

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.read_memory()
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def read_memory(self) -> float:
        """The most that the process ever had in memory, in MB."""
        assert self.process is not None
        if self.process.poll() is None:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            assert found is not None
            self.peak_mb = max(self.peak_mb, int(found.group(1)) / 1024)
        return self.peak_mb

    def open_files(self) -> int:
        """How many files and sockets the process has open."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def lines(self, since: int = 0) -> list[str]:
        """Lines of its log; `since` is how many there were before."""
        return self.text().splitlines()[since:]

    def said(self, text: str, since: int = 0) -> int:
        """In how many lines of its log something stands."""
        return sum(text in line for line in self.lines(since))


class Site:
    """One Gateway with one route to backend `a`, on the API of a control plane."""

    def __init__(self, plane: Plane, directory: Path) -> None:
        self.plane = plane
        self.directory = directory
        number = next(_numbers)
        self.name = f"site{number}"
        """Of the namespace and of the GatewayClass."""
        self.controller_name = f"tests.propylon.dev/{self.name}"
        self.pool = f"10.100.{number}.0/24"
        self._backends = [Backend("a", BACKEND_IP), Backend("b", BACKEND_IP)]

    def __enter__(self) -> "Site":
        self.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})
        for backend in self._backends:
            self.plane.apply(*self._service(backend))
        return self

    def __exit__(self, *_: object) -> None:
        for backend in self._backends:
            backend.close()

    def _service(self, backend: Backend) -> tuple[Object, Object]:
        service = self.document("v1", "Service", backend.name, {"ports": [{"name": "http", "port": 80}]})
        slices = self.document("discovery.k8s.io/v1", "EndpointSlice", backend.name)
        slices["metadata"]["labels"] = {"kubernetes.io/service-name": backend.name}
        slices |= {
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend.port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend.ip], "conditions": {"ready": True}}],
        }
        return service, slices

    # -- objects -----------------------------------------------------------------------------------------------------

    def document(self, version: str, kind: str, name: str, spec: Object | None = None) -> Object:
        """An object of this site's namespace."""
        metadata: Object = {"name": name, "namespace": self.name}
        return {"apiVersion": version, "kind": kind, "metadata": metadata} | ({"spec": spec} if spec else {})

    def path(self, plural: str, name: str, version: str = "v1") -> str:
        """Of an object of the Gateway API in this site's namespace."""
        return f"/apis/{GROUP}/{version}/namespaces/{self.name}/{plural}/{name}"

    def publish(self) -> None:
        """The GatewayClass, the Gateway `web` with a listener on port 80, the route `shop` to backend `a`."""
        self.plane.apply(
            {
                "apiVersion": f"{GROUP}/v1",
                "kind": "GatewayClass",
                "metadata": {"name": self.name},
                "spec": {"controllerName": self.controller_name},
            },
            self.document(
                f"{GROUP}/v1",
                "Gateway",
                "web",
                {
                    "gatewayClassName": self.name,
                    "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                },
            ),
        )
        self.lead_to("a")

    def route(self, name: str, backend: str, host: str = HOST) -> Object:
        """An HTTPRoute of everything under a hostname."""
        rules = [{"backendRefs": [{"name": backend, "port": 80}]}]
        spec = {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": rules}
        return self.document(f"{GROUP}/v1", "HTTPRoute", name, spec)

    def lead_to(self, backend: str) -> None:
        """Have the route `shop` lead to one of the backends."""
        self.plane.apply(self.route("shop", backend))

    # -- what is seen ------------------------------------------------------------------------------------------------

    def controller(self, *arguments: str, kubeconfig: Path | None = None, directory: str = "one") -> Controller:
        """A controller for this site, to be entered."""
        return Controller(
            self.directory / directory,
            kubeconfig or self.plane.cluster.kubeconfig,
            self.controller_name,
            "--address-pool",
            self.pool,
            *arguments,
        )

    @property
    def address(self) -> str:
        """Of the Gateway, from its status."""
        return str(self.plane.get(self.path("gateways", "web"))["status"]["addresses"][0]["value"])

    def load(self) -> Load:
        """Requests to the Gateway without end, to be entered: some on lasting connections, some on new ones."""
        return Load(self.address, 80, HOST, keep_alive=2, fresh=1, pause=0.02)

    def answered_by(self, host: str = HOST) -> str:
        """Which backend answers, or the status."""
        with Client(self.address, 80) as client:
            answer = client.get(host)
            return str(json.loads(answer.text)["name"]) if answer.status_code == 200 else str(answer.status_code)

    def await_served(self, backend: str, host: str = HOST, seconds: float = 60.0) -> None:
        """Wait until a backend answers."""
        eventually(lambda: self.answered_by(host) == backend, f"{host} is answered by {backend}", seconds)

    def condition(self, plural: str, name: str, kind: str) -> Object:
        """A condition of a Gateway, or of a route's parent that is ours; raises StopIteration, KeyError."""
        document = self.plane.get(self.path(plural, name))
        status = document["status"]
        if plural.endswith("routes"):
            status = next(p for p in status["parents"] if p["controllerName"] == self.controller_name)
        found: Object = next(c for c in status["conditions"] if c["type"] == kind)
        current = found["observedGeneration"] == document["metadata"]["generation"]
        return found | {"current": current}

    def await_statuses(self, seconds: float = 60.0) -> None:
        """Wait until Gateway and route are said to be fine, at the generation they have now."""

        def fine(plural: str, name: str, kind: str) -> Callable[[], bool]:
            def ask() -> bool:
                found = self.condition(plural, name, kind)
                assert found["current"], found
                assert found["status"] == "True", found
                return True

            return ask

        for plural, name, kind in (("gateways", "web", "Programmed"), ("httproutes", "shop", "Accepted")):
            eventually(fine(plural, name, kind), f"{kind} of {plural}/{name}", seconds)


def await_answers(load: Load, more: int, seconds: float = 60.0) -> None:
    """Wait until a load got so many more answers: traffic flows."""
    before = load.result.answered
    eventually(lambda: load.result.answered >= before + more, f"{more} more answers", seconds)
