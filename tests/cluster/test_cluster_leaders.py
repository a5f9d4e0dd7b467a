"""Two replicas whose proxies are pods, and the one that leads is killed: the other one takes over."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_plane import Plane
from cluster_site import Controller, Site, await_answers
from harness.containers import Program
from harness.kubelet import Kubelet
from harness.services import ServiceProxy

from propylon.app.cluster import LEASE_NAME
from propylon.app.cluster_proxies import TAKE_OVER_SECONDS, XDS_NAME, XDS_PORT
from propylon.proxies.kubernetes.documents import DEFAULT_IMAGE
from propylon.proxies.process import embedded_envoy
from propylon.store.cluster.leader import LEASE_SECONDS
from support.instance import eventually

NAMESPACE = "propylon-system"
XDS_ADDRESS = "10.96.0.50"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE_NAME}"
SLACK_SECONDS = 30.0
"""What a machine that is busy otherwise may take on top."""


@pytest.fixture
def pods(plane: Plane) -> Iterator[None]:
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
    yield
    plane.loop.run(stop())
    shutil.rmtree(directory, ignore_errors=True)


def replica(site: Site, number: int) -> Controller:
    """One of several replicas, as if on a machine of its own."""
    ip = f"10.0.2.{number}"
    arguments = ["--proxies", "kubernetes", "--lease-namespace", NAMESPACE, "--pod-ip", ip]
    arguments += ["--xds-listen", f"{ip}:{XDS_PORT}", "--xds-address", f"{XDS_ADDRESS}:{XDS_PORT}"]
    return site.controller(*arguments, directory=f"replica{number}")


def leads(plane: Plane, controller: Controller) -> bool:
    assert controller.process is not None
    return f"_{controller.process.pid}_" in str(plane.get(LEASE)["spec"]["holderIdentity"])


def test_the_leader_is_killed(site: Site, plane: Plane, pods: None) -> None:
    plane.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": XDS_NAME, "namespace": NAMESPACE},
            "spec": {"clusterIP": XDS_ADDRESS, "ports": [{"name": "xds", "port": XDS_PORT}]},
        },
    )
    site.publish()
    with replica(site, 1) as first, replica(site, 2) as second:
        site.await_served("a", seconds=90)
        site.await_statuses()
        leader, follower = (first, second) if leads(plane, first) else (second, first)
        assert not leads(plane, follower)
        with site.load() as load:
            await_answers(load, 20)
            before = len(follower.lines())
            leader.kill()
            site.lead_to("b")
            eventually(lambda: leads(plane, follower), "the other one leads", LEASE_SECONDS + SLACK_SECONDS)
            site.await_served("b", seconds=TAKE_OVER_SECONDS + SLACK_SECONDS)
            site.await_statuses(TAKE_OVER_SECONDS + SLACK_SECONDS)
            await_answers(load, 20)
            assert len(follower.lines(before)) <= 20, follower.lines(before)
            # Who was killed comes back, and follows.
            leader.start()
            site.lead_to("a")
            site.await_served("a")
            site.await_statuses()
            assert leads(plane, follower)
        assert load.result.failures == []
