"""The control plane that tests share: etcd, kube-apiserver and kube-controller-manager, and a plain client."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import build
from harness.api import Api, ApiError, Object, load_documents
from harness.cluster import Cluster

T = TypeVar("T")
SECONDS = 120.0
"""The longest that one call may take."""


class RefusedError(AssertionError):
    """The API server refused; an AssertionError so that `eventually` asks again. `status` is the HTTP status."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.status = error.status


class Loop:
    """An event loop in a thread: parts of the harness go on while a test waits for something else."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def run(self, work: Coroutine[Any, Any, T], seconds: float = SECONDS) -> T:
        """The result of a coroutine, run there."""
        try:
            return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop).result()
        except ApiError as error:
            raise RefusedError(error) from error


class Plane:
    """One control plane; `directory` holds its state, keys and logs."""

    def __init__(self, loop: Loop, built: dict[str, dict[str, str]], directory: Path) -> None:
        self.loop = loop
        self.directory = directory
        self.artifacts = build.Artifacts(**{name: Path(path) for name, path in built["artifacts"].items()})
        self.older = {version: Path(path) for version, path in built["older"].items()}
        self.cluster: Cluster
        self._current = False
        self._installed = False
        self._generation = 1

    def __enter__(self) -> "Plane":
        self.loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run(self.cluster.stop())

    def renew(self) -> None:
        """Begin anew, with an empty etcd, if anything was installed."""
        if self._installed:
            self.loop.run(self.cluster.stop())
            self._installed = self._current = False
            self._generation += 1
            self.loop.run(self._start())

    async def _start(self) -> None:
        artifacts = self.artifacts
        self.cluster = Cluster(
            self.directory / str(self._generation),
            self.directory / "logs",
            etcd=artifacts.etcd,
            apiserver=artifacts.apiserver,
            controller_manager=artifacts.controller_manager,
        )
        await self.cluster.start()

    # -- faults ------------------------------------------------------------------------------------------------------

    def end(self, name: str) -> None:
        """kill -9 of one part."""
        self.loop.run(self.cluster.end(name))

    def resume(self, name: str) -> None:
        """Start it again; returns when the API server is ready."""
        self.loop.run(self.cluster.resume(name))

    def pause(self, name: str) -> None:
        """SIGSTOP: it is there and does not answer."""
        self.cluster.signal(name, signal.SIGSTOP)

    def unpause(self, name: str) -> None:
        self.cluster.signal(name, signal.SIGCONT)

    # -- objects -----------------------------------------------------------------------------------------------------

    @property
    def api(self) -> Api:
        return self.cluster.api

    def apply(self, *documents: Object) -> None:
        """Server-side apply, in order."""
        self.loop.run(self.api.apply_all(documents))

    def get(self, path: str) -> Object:
        return self.loop.run(self.api.get(path))

    def find(self, path: str) -> Object | None:
        return self.loop.run(self.api.find(path))

    def merge(self, path: str, body: Object) -> Object:
        return self.loop.run(self.api.merge(path, body))

    def create(self, path: str, body: Object) -> Object:
        return self.loop.run(self.api.create(path, body))

    def delete(self, path: str) -> None:
        self.loop.run(self.api.delete(path))

    def install_crds(self, directory: Path) -> list[str]:
        """CRDs (and what lies with them), and wait until they are served; their names."""
        self._installed = True
        return self.loop.run(self.cluster.install_crds(directory))

    def install_current(self) -> None:
        """Those of v1.7.0's experimental channel and ours, once."""
        if not self._current:
            self._current = True
            self.install_crds(self.artifacts.experimental_crds)
            ours = Path(__file__).parents[2] / "deploy" / "crd-gatewayparameters.yaml"
            self.apply(*load_documents(ours.read_text()))
