"""Profiles of memory, for P8: what propylon's is allocated by, and what one hostname more costs Envoy."""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import worlds
from bench.commands import TRACING
from bench.envoy_profiles import keep
from bench.machine import resident_kib
from bench.propagation import FLOOR_PORT, PORT, serving
from bench.subject import BenchError, Commanded, FloorProcess, Subject

GATEWAY = f"{worlds.NAMESPACE}/gw"
BASE = 500
"""Hostnames of the smaller world: what is there anyway falls out of the difference."""


def profile_memory(size: int) -> None:
    """Keep both profiles. Raises BenchError."""
    os.environ[TRACING] = "1"
    try:
        with Subject(worlds.many_routes(size, port=PORT)) as subject:
            subject.ready(GATEWAY, seconds=900)
            subject.call("memory_end", "P8 propylon", size)
    finally:
        del os.environ[TRACING]
    lines = [f"P8 Envoy, one hostname more, from {BASE:,} to {size:,}, in KiB:", ""]
    for name in ("floor: one RouteConfiguration", "floor: a scope per hostname", "propylon"):
        small, large = (_memory(name, count) for count in (BASE, size))
        each = {key: (large[key] - small[key]) / (size - BASE) / 1024 for key in large}
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in each.items()))
        lines.append("    at the larger: " + ", ".join(f"{key} {large[key] / 2**20:.1f} MiB" for key in large))
    keep("P8 Envoy", "\n".join([*lines, ""]))


def _memory(name: str, size: int) -> dict[str, int]:
    with _served(name, size) as process:
        pid = process.proxy_pid()
        said = {key: int(value) for key, value in json.loads(_admin(pid, "/memory")).items()}
        chosen = {key: said[key] for key in ("allocated", "heap_size", "pageheap_free", "pageheap_unmapped")}
        return {"resident": resident_kib(pid) * 1024, **chosen}


@contextmanager
def _served(name: str, size: int) -> Iterator[Commanded]:
    if name == "propylon":
        with Subject(worlds.hostnames(size, PORT)) as subject:
            subject.ready(GATEWAY, seconds=900)
            yield subject
        return
    with FloorProcess("scoped" if "scope" in name else "rds", size, FLOOR_PORT) as floor:
        serving(floor, FLOOR_PORT, size)
        yield floor


def _admin(pid: int, path: str) -> bytes:
    """An answer of an Envoy's admin socket, which its bootstrap names. Raises BenchError."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
    bootstrap = json.loads(Path(arguments[arguments.index("-c") + 1]).read_bytes())
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(bootstrap["admin"]["address"]["pipe"]["path"])
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise BenchError(f"GET {path}: {answer.status}")
    return body
