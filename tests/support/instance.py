"""A real `propylon up`, run as a user would run it, in a data directory of the test's own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from propylon.app.control import NotRunningError, call, control_socket

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "propylon"]


def eventually(probe: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Ask until the answer is truthy, and return it; after `seconds` AssertionError with the last answer or error."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = probe()
            if found:
                return found
            last = found
        except (
            AssertionError,
            OSError,
            KeyError,
            IndexError,
            StopIteration,
            ValueError,
            NotRunningError,
            httpx.HTTPError,
        ) as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}; last: {last!r}")


class Instance:
    """`propylon up PATHS` in the background; everything it prints is in `output()`."""

    def __init__(self, directory: Path, *arguments: str, data_dir: Path | None = None) -> None:
        self.arguments = arguments
        self.data_dir = data_dir or directory / "data"
        self.log = directory / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Instance":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--data-dir", str(self.data_dir), "--concurrency", "1", *self.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def kill(self) -> None:
        """kill -9: no chance to tidy up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """What Ctrl-C does; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def run(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Another command for the same data directory."""
        return subprocess.run(
            [*COMMAND, *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=90,
            check=check,
        )

    def wait(self, seconds: int = 60) -> tuple[int, dict[str, Any]]:
        """`propylon status --wait`: exit code and report."""
        done = self.run("status", f"--wait={seconds}s", "-o", "json")
        assert done.stdout, f"{done.stderr}\n{self.output()}"
        return done.returncode, json.loads(done.stdout)

    def ready(self) -> dict[str, Any]:
        """Wait; findings are an error here."""
        code, report = self.wait()
        assert code == 0, f"{json.dumps(report['errors'], indent=1)}\n{self.output()}"
        return report

    def status(self) -> dict[str, Any]:
        """What `propylon status -o json` prints, asked for without starting a program each time."""
        report: dict[str, Any] = call(control_socket(self.data_dir), "status")["report"]
        return report

    def place(self, gateway: str, listener: str) -> tuple[str, int]:
        """Address and bound port of a listener, from the report."""
        namespace, name = gateway.split("/")
        for found in self.status()["gateways"]:
            if (found["namespace"], found["name"]) == (namespace, name):
                port = next(entry["bound_port"] for entry in found["listeners"] if entry["name"] == listener)
                return found["addresses"][0], port
        raise KeyError(gateway)

    def client(self, gateway: str, listener: str, **options: Any) -> "Client":
        """An HTTP client that speaks to one listener, whatever Host it names."""
        return Client(*self.place(gateway, listener), **options)


class Client:
    """Requests to one address and port under any hostname (Host, and SNI with TLS)."""

    def __init__(self, address: str, port: int, *, tls: bool = False, http2: bool = False, verify: Any = False) -> None:
        self.base = f"{'https' if tls else 'http'}://{address}:{port}"
        self._client = httpx.Client(verify=verify, http1=not http2, http2=http2, timeout=10, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def request(
        self, method: str, host: str, path: str = "/", *, sni: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {"Host": host, **options.pop("headers", {})}
        extensions = {"sni_hostname": sni or host.split(":", maxsplit=1)[0]}
        return self._client.request(method, self.base + path, headers=headers, extensions=extensions, **options)

    def get(self, host: str, path: str = "/", **options: Any) -> httpx.Response:
        return self.request("GET", host, path, **options)
