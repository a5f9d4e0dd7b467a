"""One edited file costs as many system calls among a thousand routes as among ten: counted, no clock is asked."""

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.instance import Client, Instance, eventually
from support.manifests import GATEWAY, OFFSET, write

pytestmark = [
    pytest.mark.feature,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
EDITS = 20
WAITS = {"futex", "epoll_wait", "epoll_pwait", "restart_syscall", "sched_yield"}
ROUTE = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{number}, namespace: default}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [h{number}.test]
  rules:
  - filters:
    - type: RequestRedirect
      requestRedirect: {{hostname: {target}.example.org}}
"""


def write_manifests(directory: Path, size: int) -> Path:
    """A Gateway and `size` routes, a hundred in a file; the one that is returned has a file of its own."""
    write(directory, gateway=GATEWAY)
    for first in range(1, size, 100):
        numbers = range(first, min(first + 100, size))
        text = "".join(ROUTE.format(number=number, target="first") for number in numbers)
        (directory / f"routes-{first}.yaml").write_text(text)
    edited = directory / "edited.yaml"
    edited.write_text(ROUTE.format(number=0, target="first"))
    return edited


@contextmanager
def traced(pid: int, file: Path) -> Iterator[None]:
    """strace every thread of the process and write what it calls to the file. Skips the test where that is refused."""
    tasks = Path(f"/proc/{pid}/task")
    strace = subprocess.Popen(["strace", "-f", "-qq", "-p", str(pid), "-o", str(file)], stderr=subprocess.PIPE)

    def attached() -> bool:
        if strace.poll() is not None:
            assert strace.stderr is not None
            pytest.skip(f"strace: {strace.stderr.read().decode()}")
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks.iterdir())

    try:
        eventually(attached, "every thread is traced")
        yield
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)
        strace.wait(10)


def calls_of_edits(directory: Path, size: int) -> Counter[str]:
    """System calls of `propylon up` by name, all together, while one route of `size` is edited some times."""
    edited = write_manifests(directory / str(size), size)
    arguments = (str(edited.parent), "--port-offset", str(OFFSET))
    with Instance(directory / str(size), *arguments, data_dir=directory / f"data-{size}") as instance:
        instance.ready()
        assert instance.process is not None
        with instance.client("default/web", "http") as client:

            def edit(target: str) -> None:
                edited.write_text(ROUTE.format(number=0, target=target))
                eventually(lambda: location(client) == f"http://{target}.example.org/", f"{target} is effective")

            edit("warm")
            with traced(instance.process.pid, directory / f"calls-{size}"):
                for number in range(EDITS):
                    edit(f"t{number}")
                instance.ready()
    names = re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)\(", (directory / f"calls-{size}").read_text(), re.MULTILINE)
    return Counter(names)


def location(client: Client) -> str:
    return client.get("h0.test").headers["location"]


def test_an_edit_costs_as_many_system_calls_among_many_routes(tmp_path: Path) -> None:
    few, many = (calls_of_edits(tmp_path, size) for size in (10, 1000))
    for calls in (few, many):
        assert calls["fdatasync"] <= 2 * EDITS + 2, "one transaction for what the file says, one for the status"
        assert EDITS <= calls["openat"] <= EDITS + 10, "the edited file is read, and no other"
        assert work(calls) <= 120 * EDITS, calls
    assert work(many) <= 1.2 * work(few), (few, many)


def work(calls: Counter[str]) -> int:
    """Without the waits of threads for one another and for news, whose number depends on who else runs."""
    return sum(count for name, count in calls.items() if name not in WAITS)
