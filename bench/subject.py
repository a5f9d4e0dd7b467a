"""The propylon that is measured, seen from outside: started, written to, asked."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from bench import children
from bench.commands import PROFILING

ROOT = Path(__file__).parents[1]


class BenchError(RuntimeError):
    """A measurement could not be made."""


def profiling() -> bool:
    """Whether profiles are asked for. Then times mean nothing."""
    return bool(os.environ.get(PROFILING))


def until(condition: Callable[[], bool], what: str, seconds: float, pause: float = 0.01) -> float:
    """Wait for a condition; the seconds it took. Raises BenchError."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > seconds:
            raise BenchError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)
    return time.perf_counter() - began


class Commanded:
    """A process that answers each line of its standard input with a line. Use as a context manager."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pb"))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process; returns before it serves."""
        with (self.directory / "log").open("ab") as log:
            self._process = children.start(
                [sys.executable, "-m", *self.command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
            )

    def stop(self) -> None:
        """What Ctrl-C does, or the end of its input: it ends its proxies itself."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def call(self, command: str, *arguments: Any) -> dict[str, Any]:
        """Have the process do something. Raises BenchError if it cannot."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BenchError("the process is not started")
        with self._lock:
            process.stdin.write(json.dumps([command, *arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line:
            raise BenchError(f"the process ended: {self.log()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer

    @contextmanager
    def profiled(self, name: str, size: int) -> Iterator[None]:
        """Keep a profile of what the process does meanwhile, where profiles are asked for."""
        if not profiling():
            yield
            return
        self.call("profile_begin")
        yield
        self.profile_end(name, size)

    def profile_end(self, name: str, size: int) -> None:
        """Keep the profile of the process so far, where profiles are asked for."""
        if profiling():
            self.call("profile_end", name, size)

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            raise BenchError("the process is not started")
        return self._process.pid

    def proxy_pid(self) -> int:
        """Process id of the only proxy."""
        pids: list[int] = self.call("proxies")["pids"]
        if len(pids) != 1:
            raise BenchError(f"{len(pids)} proxies")
        return pids[0]

    def log(self) -> str:
        """What it printed."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")


class FloorProcess(Commanded):
    """Raw Envoy with `size` hostnames, in one RouteConfiguration ("rds") or one scope each ("scoped"), and as many
    clusters for HTTP/1.1 and for HTTP/2 as `clusters` says."""

    def __init__(self, form: str, size: int, port: int, clusters: int = 0) -> None:
        super().__init__()
        self.form, self.size, self.port, self.clusters = form, size, port, clusters

    def command(self) -> list[str]:
        return ["bench.floor", self.form, str(self.size), str(self.port), str(self.clusters)]


class Subject(Commanded):
    """A propylon in a directory of its own, with its Envoy."""

    def __init__(
        self,
        documents: Iterable[dict[str, Any]] = (),
        *,
        manifests: Path | None = None,
        access_log: bool = False,
        program_of_envoy: Path | None = None,
    ) -> None:
        """`documents` are in its store before it starts; `manifests` is a directory that it watches;
        `program_of_envoy` is run in place of Envoy."""
        super().__init__()
        self.options = {"access_log": access_log, "envoy": str(program_of_envoy or "")}
        self.data = self.directory / "data"
        self.documents = list(documents)
        self.manifests = manifests

    def __enter__(self) -> Self:
        if self.documents:
            file = self.directory / "documents.json"
            file.write_text(json.dumps(self.documents), encoding="utf-8")
            subprocess.run(
                [sys.executable, "-m", "bench.host", "--preload", str(self.data), str(file)], check=True, cwd=ROOT
            )
        return super().__enter__()

    def command(self) -> list[str]:
        paths = [str(self.manifests)] if self.manifests is not None else []
        return ["bench.host", json.dumps(self.options), str(self.data), *paths]

    def apply(self, *documents: dict[str, Any]) -> None:
        """Write documents to the store in one transaction."""
        self.call("apply", documents)

    def ready(self, *gateways: str, seconds: float = 120) -> float:
        """Wait until these Gateways are programmed and nothing is left to do; the seconds that took."""
        took = until(
            lambda: all(self.call("programmed", *name.split("/"))["programmed"] for name in gateways),
            f"Gateways {', '.join(gateways)} programmed",
            seconds,
            0.05,
        )
        self.idle(seconds, 0.05)
        return took

    def idle(self, seconds: float = 60, pause: float = 0.005) -> None:
        """Wait until every change has been worked off; asked every `pause` seconds, which takes it 0.15 ms."""
        until(lambda: bool(self.call("idle")["idle"]), "idle", seconds, pause)

    def settle(self) -> None:
        """The same, asked once and waited for there. Raises BenchError after a minute."""
        if not self.call("settle")["idle"]:
            raise BenchError("not within a minute: idle")


class Client:
    """One lasting HTTP/1.1 connection that asks one thing after the other."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, host: str, path: str = "/") -> str:
        """The head of the answer. Answers must have no body."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self._socket.recv(4096)
            if not part:
                raise BenchError("the proxy closed the connection")
            answer += part
        return answer.decode("latin-1")
