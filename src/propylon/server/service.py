"""The running server: a thread with an event loop of its own, in it HTTP over TLS with client certificates.

The thread keeps the API's disk writes out of the loop that programs proxies. What serves is imported in the
thread, so that what starts the server does not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from propylon.store import LocalStore

if TYPE_CHECKING:
    from propylon.server.machine import OwnLog

log = logging.getLogger("propylon.server")

START_SECONDS = 30.0


class ApiServerError(Exception):
    """The server cannot be started. The message names the address or file and the remedy."""


class ApiServer:
    """The Kubernetes API of one data directory. `address` and `kubeconfig` are valid once `ready` was called."""

    def __init__(
        self,
        store: LocalStore,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        ready: Callable[[ApiServer], None] = lambda _server: None,
        own_log: OwnLog | None = None,
    ) -> None:
        """`port` 0 lets the system choose, None takes the port of last time if it is free. `ready` is called in the
        server's thread as soon as requests are answered, and there `own_log` is asked for logs of pods that run here.
        """
        self.host = host
        self.port = port
        self.kubeconfig = data_dir / "kubeconfig"
        self.error: BaseException | None = None
        self._store = store
        self._data_dir = data_dir
        self._ready = ready
        self._own_log = own_log
        self._started = threading.Event()
        self._stop: Callable[[], None] | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="kubernetes-api", daemon=True)

    @property
    def address(self) -> str:
        """The URL of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until requests are answered. Raises ApiServerError."""
        if not self._started.wait(START_SECONDS):
            raise ApiServerError("the API server did not start")
        if self.error is not None:
            raise ApiServerError(str(self.error)) from self.error

    def stop(self) -> None:
        """End watches and connections, and the thread."""
        with self._lock:
            self._stopping = True
            if self._stop is not None:
                self._stop()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            import uvloop  # noqa: PLC0415

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self.error = error
            if self._started.is_set():
                log.error("the API server ended: %s", error)
        finally:
            self._started.set()
            if self.error is not None:
                self._ready(self)

    async def _serve(self) -> None:
        from propylon.server.audit import AuditLog  # noqa: PLC0415
        from propylon.server.bootstrap import ensure_defaults  # noqa: PLC0415
        from propylon.server.credentials import Credentials  # noqa: PLC0415
        from propylon.server.http import Front, make_server  # noqa: PLC0415
        from propylon.server.logs import no_own_logs  # noqa: PLC0415
        from propylon.server.watches import Hub  # noqa: PLC0415

        directory = self._data_dir / "api"
        credentials = Credentials(directory)
        listener = self._bind(directory / "port")
        self.port = listener.getsockname()[1]
        names = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc", self.host]
        if _is_wildcard(self.host):
            names.append(socket.gethostname())
        credentials.ensure_server_certificate(names)
        ensure_defaults(self._store)
        local = "127.0.0.1" if _is_wildcard(self.host) else self.host
        shown = f"[{local}]" if ":" in local else local
        address = f"https://{shown}:{self.port}"
        credentials.write_admin_kubeconfig(self.kubeconfig, address)
        hub = Hub(self._store)
        audit = AuditLog(directory / "audit.log")
        front = Front(self._store, hub, credentials, address, audit, self._own_log or no_own_logs)
        server = make_server(front, credentials)
        handing_out = asyncio.create_task(hub.run(), name="hand out changes")
        loop = asyncio.get_running_loop()

        stopping = asyncio.Event()

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stopping.set)

        with self._lock:
            self._stop = stop
            if self._stopping:
                stopping.set()
        try:
            await server.start(listener)
            self._started.set()
            self._ready(self)
            await stopping.wait()
            hub.close()
            await server.stop()
        finally:
            handing_out.cancel()
            await asyncio.gather(handing_out, return_exceptions=True)
            front.close()

    def _bind(self, memory: Path) -> socket.socket:
        """A listening socket, at the port of last time if that is free and none is asked for."""
        wanted = self.port
        if wanted is None:
            with contextlib.suppress(OSError, ValueError):
                return self._listen(int(memory.read_text(encoding="ascii")))
        listener = self._listen(wanted or 0)
        with contextlib.suppress(OSError):
            memory.write_text(str(listener.getsockname()[1]), encoding="ascii")
        return listener

    def _listen(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer takes 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, port))
            listener.listen(1024)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            message = f"cannot listen on {self.host}:{port}: {error.strerror}; choose another with --api-port"
            raise OSError(message) from error
        return listener


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
