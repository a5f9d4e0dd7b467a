"""Two replicas that both serve proxies, which are pods; the one that leads is killed, and the other one takes over."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_plane import Plane
from cluster_site import GROUP, HOST, Controller, Site, await_answers
from harness.api import Object
from harness.containers import Program
from harness.kubelet import Kubelet
from harness.services import ServiceProxy

from propylon.app.cluster import LEASE_NAME
from propylon.app.cluster_proxies import TAKE_OVER_SECONDS, XDS_NAME, XDS_PORT
from propylon.app.control import NotRunningError, call, control_socket
from propylon.proxies.kubernetes import PARAMETERS_INFO
from propylon.proxies.kubernetes.documents import DEFAULT_IMAGE
from propylon.proxies.process import embedded_envoy
from propylon.store.cluster.leader import LEASE_SECONDS
from support.instance import Client, eventually

NAMESPACE = "propylon-system"
XDS_ADDRESS = "10.96.0.50"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE_NAME}"
SLACK_SECONDS = 30.0
"""What a machine that is busy otherwise may take on top."""
HELD_PORT = 8099
SIDE_HOST = "side.example"


@pytest.fixture
def pods(plane: Plane) -> Iterator[Kubelet]:
    """Pods are run, Services lead to them."""
    if shutil.which("nft") is None:
        pytest.skip("the command nft is missing: install nftables")
    programs = {DEFAULT_IMAGE.rpartition(":")[0]: Program((str(embedded_envoy()),))}
    # pytest's directories are too deep for Unix sockets in volumes.
    directory = Path(tempfile.mkdtemp(prefix="pods-"))
    kubelet = Kubelet(plane.api, directory, plane.cluster.logs, programs)
    services = ServiceProxy(plane.api)

    async def start() -> None:
        await kubelet.start(plane.cluster.authority)
        services.start()

    async def stop() -> None:
        await services.stop()
        await kubelet.stop()

    plane.loop.run(start())
    yield kubelet
    plane.loop.run(stop())
    shutil.rmtree(directory, ignore_errors=True)


def ip(number: int) -> str:
    return f"10.0.2.{number}"


def replica(site: Site, number: int) -> Controller:
    """One of several replicas, as if on a machine of its own."""
    arguments = ["--proxies", "kubernetes", "--lease-namespace", NAMESPACE, "--pod-ip", ip(number)]
    arguments += ["--xds-listen", f"{ip(number)}:{XDS_PORT}", "--xds-address", f"{XDS_ADDRESS}:{XDS_PORT}"]
    return site.controller(*arguments, directory=f"replica{number}")


def leads(plane: Plane, controller: Controller) -> bool:
    assert controller.process is not None
    return f"_{controller.process.pid}_" in str(plane.get(LEASE)["spec"]["holderIdentity"])


def lead_proxies_to(plane: Plane, *numbers: int) -> None:
    """What Kubernetes' own controller writes by the Service's selector: here the replicas are no pods."""
    plane.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{XDS_NAME}-test",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": XDS_NAME},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip(number)], "conditions": {"ready": True}} for number in numbers],
            "ports": [{"name": "xds", "port": XDS_PORT, "protocol": "TCP"}],
        }
    )


def install(plane: Plane) -> None:
    """The namespace and the xDS Service, and what a former release left there."""
    left_behind: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{XDS_NAME}-ipv4",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": XDS_NAME, "app.kubernetes.io/managed-by": "propylon"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip(9)], "conditions": {"ready": True}}],
        "ports": [{"name": "xds", "port": XDS_PORT, "protocol": "TCP"}],
    }
    plane.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": XDS_NAME, "namespace": NAMESPACE},
            "spec": {"clusterIP": XDS_ADDRESS, "ports": [{"name": "xds", "port": XDS_PORT}]},
        },
        left_behind,
    )


def ask(controller: Controller) -> dict[str, Any]:
    """What `propylon config view` shows."""
    try:
        found: dict[str, Any] = call(control_socket(controller.data_dir), "config")
    except NotRunningError as error:
        raise AssertionError("not running yet") from error
    return found


def await_proxies(controller: Controller, count: int) -> None:
    eventually(lambda: ask(controller)["proxies-connected"] == count, f"{count} proxies are connected", 60)


def side_gateway(site: Site, *ports: int) -> Object:
    listeners = [{"name": f"p{port}", "port": port, "protocol": "HTTP"} for port in ports]
    return site.document(f"{GROUP}/v1", "Gateway", "side", {"gatewayClassName": site.name, "listeners": listeners})


def side_route(site: Site, backend: str) -> Object:
    document = site.route("side", backend, SIDE_HOST)
    document["spec"]["parentRefs"] = [{"name": "side"}]
    return document


def answered_by(site: Site, gateway: str, host: str) -> str:
    address = site.plane.get(site.path("gateways", gateway))["status"]["addresses"][0]["value"]
    with Client(address, 80) as client:
        answer = client.get(host)
        return str(answer.json()["name"]) if answer.status_code == 200 else str(answer.status_code)


def listener(site: Site, name: str) -> dict[str, str]:
    """Programmed of a listener of the Gateway `side`: status and message."""
    document = site.plane.get(site.path("gateways", "side"))
    found = next(each for each in document["status"]["listeners"] if each["name"] == name)
    condition = next(each for each in found["conditions"] if each["type"] == "Programmed")
    assert condition["observedGeneration"] == document["metadata"]["generation"]
    return {"status": condition["status"], "message": condition["message"]}


@contextmanager
def held_port(kubelet: Kubelet, gateway: str, port: int) -> Iterator[None]:
    """Somebody else listens there in the only pod of a Gateway."""
    (pod,) = [pod for pod in kubelet._pods.values() if pod.object["metadata"]["name"].startswith(f"{gateway}-")]
    assert pod._sandbox is not None
    script = f"import socket; held = socket.create_server(('', {port})); print('held', flush=True); input()"
    command = [*pod._sandbox.enter_command, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate(b"\n")


def test_replicas_serve_together_and_the_leader_is_killed(site: Site, plane: Plane, pods: Kubelet) -> None:
    install(plane)
    lead_proxies_to(plane, 1)
    plane.apply(site.document(PARAMETERS_INFO.api_version, "GatewayParameters", "one", {"replicas": 1}))
    site.publish()
    reference = {"group": PARAMETERS_INFO.group, "kind": "GatewayParameters", "name": "one"}
    plane.merge(site.path("gateways", "web"), {"spec": {"infrastructure": {"parametersRef": reference}}})
    with replica(site, 1) as first:
        eventually(lambda: leads(plane, first), "the first one leads", 60)
        with replica(site, 2) as second:
            site.await_served("a", seconds=90)
            site.await_statuses()
            eventually(lambda: ask(second)["reports-to"] in str(plane.get(LEASE)), "the follower reports", 60)
            assert (
                plane.find(f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{XDS_NAME}-ipv4") is None
            )
            assert not leads(plane, second)
            both_have_proxies(site, plane, first, second)
            with site.load() as load:
                await_answers(load, 20)
                only_the_follower_knows_of_a_refusal(site, plane, pods)
                the_leader_is_killed(site, plane, first, second)
                await_answers(load, 20)
                who_was_killed_follows(site, plane, first, second)
                await_answers(load, 20)
            assert load.result.failures == []


def both_have_proxies(site: Site, plane: Plane, leader: Controller, follower: Controller) -> None:
    """One Gateway has a proxy at each, another one has its only proxy at the follower; the leader says `Programmed`."""
    await_proxies(leader, 1)
    lead_proxies_to(plane, 2)
    parameters = f"/apis/{PARAMETERS_INFO.api_version}/namespaces/{site.name}/{PARAMETERS_INFO.plural}/one"
    plane.merge(parameters, {"spec": {"replicas": 2}})
    await_proxies(follower, 1)
    plane.apply(side_gateway(site, 80), side_route(site, "a"))
    await_proxies(follower, 2)
    assert ask(leader)["proxies-connected"] == 1
    eventually(lambda: answered_by(site, "side", SIDE_HOST) == "a", "the Gateway of the follower's proxy answers", 60)
    eventually(lambda: listener(site, "p80")["status"] == "True", "it is programmed, and the leader says so", 60)
    plane.merge(
        site.path("gateways", "web"),
        {"spec": {"listeners": [{"name": n, "port": p, "protocol": "HTTP"} for n, p in (("http", 80), ("more", 81))]}},
    )
    site.await_statuses()
    lead_proxies_to(plane, 1, 2)


def only_the_follower_knows_of_a_refusal(site: Site, plane: Plane, pods: Kubelet) -> None:
    """It is the leader's status all the same; so is its end."""
    with held_port(pods, "side", HELD_PORT):
        plane.apply(side_gateway(site, 80, HELD_PORT))
        name = f"p{HELD_PORT}"
        eventually(lambda: "ddress already in use" in listener(site, name)["message"], "the refusal is told", 60)
        assert listener(site, name)["status"] == "False"
        assert listener(site, "p80")["status"] == "True"
    eventually(lambda: listener(site, name)["status"] == "True", "the port is free, and it is told", 60)


def the_leader_is_killed(site: Site, plane: Plane, leader: Controller, follower: Controller) -> None:
    before = len(follower.lines())
    assert leads(plane, leader)
    leader.kill()
    killed = time.monotonic()
    lead_proxies_to(plane, 2)  # as Kubernetes does when a pod is not ready any more
    plane.apply(side_route(site, "b"))
    site.lead_to("b")
    eventually(lambda: answered_by(site, "side", SIDE_HOST) == "b", "a change reaches the follower's proxies", 60)
    told = time.monotonic() - killed
    assert leads(plane, leader), "and nobody else leads yet"
    # Those of the dead one have come over to the follower when every connection is answered by the new route.
    await_proxies(follower, 3)
    eventually(lambda: {site.answered_by() for _ in range(20)} == {"b"}, "a change reaches all proxies", 60)
    if directory := os.environ.get("PROPYLON_MEASURED"):
        everywhere = time.monotonic() - killed
        with Path(directory).open("a", encoding="utf-8") as file:
            file.write(f"follower's proxies {told:.2f} s, all {everywhere:.2f} s\n")
    eventually(lambda: leads(plane, follower), "the other one leads", LEASE_SECONDS + SLACK_SECONDS)
    site.await_statuses(TAKE_OVER_SECONDS + SLACK_SECONDS)
    assert len(follower.lines(before)) <= 20, follower.lines(before)


def who_was_killed_follows(site: Site, plane: Plane, killed: Controller, leader: Controller) -> None:
    killed.start()
    eventually(lambda: ask(killed)["reports-to"] in str(plane.get(LEASE)), "the killed one reports", 60)
    lead_proxies_to(plane, 1, 2)
    plane.apply(side_route(site, "a"))
    site.lead_to("a")
    site.await_served("a", HOST)
    site.await_statuses()
    assert leads(plane, leader)
