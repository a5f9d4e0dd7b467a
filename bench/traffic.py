"""Load and what answers it: Debian's `wrk`, `h2load` (nghttp2-client) and `nginx`, each bounded and read exactly."""

import itertools
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from cryptography import x509

from bench import children
from bench.record import percentile
from bench.subject import BenchError, until

HOST = "127.0.0.1"
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUS_ERRORS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_TOTAL = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b")
_P99 = re.compile(r"^\s*99%\s+([\d.]+)(us|ms|s)\s*$", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def tool(name: str, package: str) -> str:
    """The path of a program. Raises BenchError that names the Debian package."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise BenchError(f"no {name}: apt-get install {package}")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with_sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in with_sockets]
    for found in with_sockets:
        found.close()
    return ports


class Backend:
    """An nginx of one process that answers every request on each of its ports with 200 and the port's name."""

    def __init__(self, *names: str, size: int = 0) -> None:
        """`size`: bytes that are added to the answer's body."""
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._size = size
        self._directory = Path(tempfile.mkdtemp(prefix="pn"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self._directory / "nginx.conf").write_text(self._configuration(), encoding="ascii")
        command = [tool("nginx", "nginx-light"), "-p", str(self._directory), "-c", "nginx.conf"]
        self._process = children.start(command, stderr=subprocess.DEVNULL)
        for port in self.ports.values():
            until(lambda port=port: listens(port), "nginx listens", 10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _configuration(self) -> str:
        more = "x" * self._size
        servers = "".join(
            f'server {{ listen {HOST}:{port} backlog=1024; location / {{ return 200 "{name}{more}"; }} }}\n'
            for name, port in self.ports.items()
        )
        places = "".join(f"{kind}_temp_path temp;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (
            "daemon off; master_process off; worker_processes 1; pid pid; error_log stderr crit;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n"
            f"default_type text/plain;\n{places}{servers}}}\n"
        )


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


class Totals(NamedTuple):
    """What a load saw."""

    requests: int
    seconds: float
    p99: float
    """Milliseconds; 0 where nothing was answered."""
    failures: dict[str, int]
    """By kind; those that never happened are absent."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        """Requests without a 2xx or 3xx answer."""
        return sum(self.failures.values())


class Wrk:
    """wrk in the background from `start` to `stop`: lasting connections, or (`fresh`) a new one for each request."""

    def __init__(self, url: str, host: str, connections: int, *, fresh: bool = False) -> None:
        self._command = [tool("wrk", "wrk"), "-t1", f"-c{connections}", "--latency", "--timeout", "20s"]
        self._command += ["-H", f"Host: {host}", *(["-H", "Connection: close"] if fresh else [])]
        self._url = url
        self._process: subprocess.Popen[str] | None = None

    def start(self, seconds: int = 3600) -> None:
        """Begin; after so many seconds it ends by itself."""
        self._process = children.start(
            [*self._command, f"-d{seconds}s", self._url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def stop(self, *, early: bool = True) -> Totals:
        """End it (`early`), or wait until it does; what it counted. Raises BenchError."""
        process, self._process = self._process, None
        if process is None:
            raise BenchError("wrk was not started")
        if early:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        found = _TOTAL.search(out)
        if found is None:
            raise BenchError(f"wrk said nothing: {out} {err}")
        failures: dict[str, int] = {}
        if errors := _SOCKET_ERRORS.search(out):
            names = ("connect", "read", "write", "timeout")
            failures = {name: int(n) for name, n in zip(names, errors.groups(), strict=True) if int(n)}
        if status := _STATUS_ERRORS.search(out):
            failures["status"] = int(status[1])
        latency = _P99.search(out)
        p99 = float(latency[1]) * _UNITS[latency[2]] * 1000 if latency else 0.0
        return Totals(int(found[1]), float(found[2]) * _UNITS[found[3]], p99, failures)

    def abandon(self) -> None:
        """End it, if it runs, and forget what it counted."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Visits:
    """A client in the background that names whom it wants in its handshake, which wrk cannot: HTTPS to a port of this
    machine, for each of these hosts in turn a new connection and some requests on it."""

    REQUESTS = 5

    def __init__(self, port: int, hosts: Sequence[str]) -> None:
        self._port, self._hosts = port, hosts
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._requests = 0
        self._failures: dict[str, int] = {}
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> Totals:
        """End it; what it counted."""
        self.abandon()
        return Totals(self._requests, self._ended - self._began, 0.0, self._failures)

    def abandon(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(60)
        self._ended = self._ended or time.monotonic()

    def _run(self) -> None:
        for host in itertools.cycle(self._hosts):
            if self._stop.is_set():
                return
            try:
                self._visit(host)
            except OSError as error:
                what = f"{host}: {type(error).__name__}: {error}"
                self._failures[what] = self._failures.get(what, 0) + 1

    def _visit(self, host: str) -> None:
        with (
            socket.create_connection((HOST, self._port), timeout=20) as plain,
            self._context.wrap_socket(plain, server_hostname=host) as secure,
            secure.makefile("rb") as answers,
        ):
            for _ in range(self.REQUESTS):
                secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                self._requests += 1
                head = list(iter(answers.readline, b"\r\n")) if (first := answers.readline()) else []
                if not first.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(f"answered with {first!r}")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head)}
                answers.read(int(fields[b"content-length"]))
                if fields.get(b"connection", b"").lower() == b"close":
                    return


def wrk(url: str, host: str, connections: int, seconds: int) -> Totals:
    """One run of wrk from beginning to end."""
    load = Wrk(url, host, connections)
    load.start(seconds)
    return load.stop(early=False)


def h2load(port: int, host: str, connections: int, seconds: int) -> Totals:
    """One run of h2load over TLS with HTTP/2, 10 requests at a time on each connection, but not more than 1,000 on all:
    Envoy refuses more than 1,024 to a cluster unless told otherwise, and Envoy Gateway does not tell it.

    Raises BenchError.
    """
    streams = max(1, min(10, 1000 // connections))
    with tempfile.NamedTemporaryFile(prefix="h2load") as log:
        command = [tool("h2load", "nghttp2-client"), "-t1", f"-c{connections}", f"-m{streams}", "-D", str(seconds)]
        command += [f"--connect-to={HOST}:{port}", f"--log-file={log.name}", f"https://{host}:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        rows = [line.split(b"\t") for line in Path(log.name).read_bytes().splitlines()]
    if not rows:
        raise BenchError(f"h2load said nothing: {done.stdout[-1000:]} {done.stderr[-1000:]}")
    wrong = sum(1 for row in rows if not row[1].startswith((b"2", b"3")))
    p99 = percentile((int(row[2]) for row in rows), 0.99) / 1000
    return Totals(len(rows), float(seconds), p99, {"status": wrong} if wrong else {})


def certificate(directory: Path, hostnames: Sequence[str], serial: int = 1) -> tuple[str, str]:
    """A self-signed certificate (P-256) and its key as PEM."""
    key, crt = directory / f"{os.getpid()}.key", directory / f"{os.getpid()}.crt"
    names = ",".join(f"DNS:{name}" for name in hostnames)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(crt), "-days", "30", "-subj", "/CN=bench"]
    command += ["-addext", f"subjectAltName={names}", "-set_serial", str(serial)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        return crt.read_text(encoding="ascii"), key.read_text(encoding="ascii")
    finally:
        key.unlink()
        crt.unlink()


def serial_shown(port: int, host: str) -> int:
    """The serial number of the certificate that is shown for a hostname; 0 if there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((HOST, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            der = tls.getpeercert(binary_form=True) or b""
    except OSError:
        return 0
    return x509.load_der_x509_certificate(der).serial_number
