"""This machine and its proxies in Kubernetes' words, and their logs."""

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from propylon import api
from propylon.app.machine import gather_facts, process_started
from propylon.app.machine_documents import Crash, Facts, Proxy, node_document, node_name, pod_document, pod_ref
from propylon.app.proxy_logs import line_time, read_proxy_log, select, timed, written
from propylon.proxies.log import previous
from propylon.proxies.settings import Phase, ProxyState
from propylon.server.machine import LogOptions

FACTS = Facts(
    name="laptop",
    address="192.0.2.7",
    started="2026-05-01T12:00:00Z",
    cpus=4,
    memory=8 << 30,
    storage=1 << 40,
    version="0.1.0",
    operating_system="linux",
    architecture="amd64",
    kernel="6.1",
    image="Debian",
)


def gateway(**infrastructure: Any) -> api.Gateway:
    spec: dict[str, Any] = {"gatewayClassName": "any", "listeners": [{"name": "h", "port": 80, "protocol": "HTTP"}]}
    if infrastructure:
        spec["infrastructure"] = infrastructure
    metadata = {"name": "web.example", "namespace": "shop", "uid": "u1", "creationTimestamp": "2026-05-01T11:00:00Z"}
    document = {"apiVersion": f"{api.GATEWAY_GROUP}/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}
    decoded = api.decode(document)
    assert isinstance(decoded, api.Gateway)
    return decoded


def proxy(phase: Phase = Phase.RUNNING, *, pid: int | None = 7, ready: bool = True, **more: Any) -> Proxy:
    state = ProxyState(node="shop/web.example", phase=phase, pid=pid, **more.pop("state", {}))
    return Proxy(state=state, ready=ready, started="2026-05-01T12:00:01Z" if pid else "", **more)


def pod(of: Proxy, **infrastructure: Any) -> dict[str, Any]:
    return pod_document(gateway(**infrastructure), "example.com/any", of, FACTS, "envoy")


def condition(document: dict[str, Any], kind: str) -> str:
    return next(entry["status"] for entry in document["status"]["conditions"] if entry["type"] == kind)


def test_node() -> None:
    node = node_document(FACTS)
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.7"}
    assert node["status"]["capacity"]["memory"] == f"{8 << 20}Ki"
    assert condition(node, "Ready") == "True"
    assert node["metadata"]["uid"] == node_document(FACTS)["metadata"]["uid"]
    assert node_name("My_Laptop.local.") == "my-laptop.local"
    assert node_name("...") == "localhost"


def test_pod_that_runs() -> None:
    ports = (("tcp-80", 8080, "TCP"),)
    found = pod(proxy(addresses=("127.0.0.2",), ports=ports), labels={"team": "a"}, annotations={"note": "b"})
    assert found["metadata"]["name"] == pod_ref(gateway(), "example.com/any").name
    assert "." not in found["metadata"]["name"]
    labels = found["metadata"]["labels"]
    assert (labels["team"], labels["gateway.networking.k8s.io/gateway-name"]) == ("a", "web.example")
    assert found["metadata"]["annotations"] == {"note": "b"}
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert found["status"]["podIP"] == "127.0.0.2"
    assert condition(found, "Ready") == "True"
    container = found["status"]["containerStatuses"][0]
    assert container["state"] == {"running": {"startedAt": "2026-05-01T12:00:01Z"}}
    assert container["restartCount"] == 0
    assert found["spec"]["containers"][0]["ports"][0]["containerPort"] == 8080


def test_labels_of_ours_are_not_overridden() -> None:
    found = pod(proxy(), labels={"gateway.networking.k8s.io/gateway-name": "other"})
    assert found["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "web.example"


def test_pods_that_do_not_run() -> None:
    crash = Crash("2026-05-01T12:00:01Z", "2026-05-01T12:00:09Z", "Envoy ended: x")
    state = {"restarts": 3, "retry_in": 1.5, "reason": "Envoy ended: x"}
    backing_off = pod(proxy(Phase.BACKING_OFF, pid=None, ready=False, crash=crash, state=state))
    container = backing_off["status"]["containerStatuses"][0]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["finishedAt"] == "2026-05-01T12:00:09Z"
    assert container["restartCount"] == 3
    assert condition(backing_off, "Ready") == "False"
    starting = pod(proxy(ready=False))
    assert starting["status"]["containerStatuses"][0]["ready"] is False
    leaving = pod(proxy(leaving="2026-05-01T12:30:00Z"))
    assert leaving["metadata"]["deletionTimestamp"] == "2026-05-01T12:30:00Z"
    assert condition(leaving, "Ready") == "False"


def test_facts_of_this_machine(tmp_path: Path) -> None:
    facts = gather_facts(tmp_path)
    assert facts.cpus >= 1
    assert facts.memory > 1 << 20
    started = process_started(os.getpid())
    assert started is not None
    assert abs(dt.datetime.now(dt.UTC) - started) < dt.timedelta(days=1)
    assert process_started(2**22 + 1) is None


ACCESS = "2026-05-01T12:00:05.250Z 127.0.0.1 GET"


def at(second: int) -> dt.datetime:
    return dt.datetime(2026, 5, 1, 12, 0, second, tzinfo=dt.UTC)


def test_times_of_lines() -> None:
    assert line_time(ACCESS) == dt.datetime(2026, 5, 1, 12, 0, 5, 250000, tzinfo=dt.UTC)
    local = dt.datetime(2026, 5, 1, 12, 0, 5).astimezone()  # Envoy logs local time
    assert line_time("[2026-05-01 12:00:05.000][12][warning] x") == local
    assert line_time("no time") is None
    assert [line.time for line in timed(["a", ACCESS, "b"])][::2] == [None, line_time(ACCESS)]


def test_selection() -> None:
    lines = timed([f"2026-05-01T12:00:0{second}.000Z {second}" for second in range(6)])

    def seconds(crashed: dt.datetime | None = None, **options: Any) -> str:
        return "".join(line.text[-1] for line in select(lines, LogOptions(**options), crashed))

    assert seconds() == "012345"
    assert seconds(tail=2) == "45"
    assert seconds(tail=0) == ""
    assert seconds(since=at(3)) == "345"
    assert seconds(at(2)) == "345"
    assert seconds(at(2), previous=True) == "012"
    assert written(lines[1], timestamps=True) == b"2026-05-01T12:00:01.000000000Z 2026-05-01T12:00:01.000Z 1\n"


def test_reading_and_following(tmp_path: Path) -> None:
    path = tmp_path / "envoy.log"
    previous(path).write_text("rotated\n")
    path.write_text("one\ntwo\nincomplete")
    found: list[bytes] = []

    def gone() -> bool:
        return b"four\n" in found

    async def read(**options: Any) -> bytes:
        pieces = read_proxy_log(path, LogOptions(**options), crashed=None, gone=gone)
        return b"".join([piece async for piece in pieces])

    async def follow() -> list[bytes]:
        async for piece in read_proxy_log(path, LogOptions(follow=True), crashed=None, gone=gone):
            found.append(piece)
            if len(found) == 1:
                with path.open("a") as file:
                    file.write(" no more\nfour\n")
        return found

    assert asyncio.run(read()) == b"rotated\none\ntwo\n"
    assert asyncio.run(read(limit_bytes=10)) == b"rotated\non"
    assert asyncio.run(follow()) == [b"rotated\none\ntwo\n", b"incomplete no more\n", b"four\n"]


@pytest.mark.parametrize("options", [LogOptions(), LogOptions(follow=True)])
def test_a_log_that_is_not_there(tmp_path: Path, options: LogOptions) -> None:
    async def read() -> list[bytes]:
        return [piece async for piece in read_proxy_log(tmp_path / "x", options, crashed=None, gone=lambda: True)]

    assert asyncio.run(read()) == []
