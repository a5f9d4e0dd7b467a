"""The API server goes away, or its store does: traffic flows, statuses converge, and it is said once."""

import time

from cluster_plane import Plane
from cluster_site import Site, await_answers

from support.instance import eventually

PAUSE_SECONDS = 30.0


def test_the_api_server_is_restarted(site: Site, plane: Plane) -> None:
    site.publish()
    with site.controller() as controller:
        site.await_served("a")
        site.await_statuses()
        with site.load() as load:
            await_answers(load, 20)
            before = len(controller.lines())
            plane.end("kube-apiserver")
            eventually(lambda: controller.said("does not answer", before), "the log tells of it")
            await_answers(load, 200)
            plane.resume("kube-apiserver")
            site.lead_to("b")
            site.await_served("b")
            site.await_statuses()
            await_answers(load, 20)
        assert load.result.failures == []
        assert controller.said("does not answer", before) == 1, controller.lines(before)
        assert controller.said("answers again", before) == 1, controller.lines(before)
        assert len(controller.lines(before)) <= 10, controller.lines(before)


def test_etcd_is_paused(site: Site, plane: Plane) -> None:
    site.publish()
    with site.controller() as controller:
        site.await_served("a")
        site.await_statuses()
        with site.load() as load:
            before, memory = len(controller.lines()), controller.read_memory()
            plane.pause("etcd")
            began = time.monotonic()
            while time.monotonic() - began < PAUSE_SECONDS:
                await_answers(load, 20)
            plane.unpause("etcd")
            eventually(lambda: site.lead_to("b") is None, "the API takes changes again", 60)
            site.await_served("b")
            site.await_statuses()
            await_answers(load, 20)
        assert load.result.failures == []
        assert len(controller.lines(before)) <= 10, controller.lines(before)
        assert controller.said("no longer leading", before) == 1, controller.lines(before)
        assert controller.read_memory() <= memory + 20
