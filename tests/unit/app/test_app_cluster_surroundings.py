"""What is asked of a cluster besides its objects, and what follows from the answers."""

import asyncio
from typing import Any

from propylon import api
from propylon.app.cluster_surroundings import Surroundings
from propylon.status import EXPERIMENTAL_FEATURES
from propylon.store.cluster import ClusterWatch, ResourcePath
from support.scripted_api import Request, serving

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
Answers = dict[str, Any]


def crd(channel: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {"gateway.networking.k8s.io/channel": channel}}}


def ask(answers: Answers, *served: str) -> Surroundings:
    """Ask once; an answer that is a number is a refusal."""

    async def answer(request: Request) -> None:
        found = answers.get(request.path, 404)
        if request.path == CRD:
            assert "PartialObjectMetadata" in request.headers["accept"], "the CRD is large"
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, int):
            await request.refuse(found, "Scripted")
        else:
            await request.answer(found)

    async def scenario() -> Surroundings:
        async with serving(answer) as client:
            changed = asyncio.Event()
            watch = ClusterWatch(client, api.KINDS, lambda: None)
            for (_, kind), reflector in watch._reflectors.items():
                if kind in served:
                    reflector.path = ResourcePath("/apis/x/v1", "v1", "x")
            surroundings = Surroundings(client, watch, changed.set)
            task = asyncio.create_task(surroundings.run())
            async with asyncio.timeout(20):
                await changed.wait()
            task.cancel()
            return surroundings

    return asyncio.run(scenario())


def test_the_experimental_channel() -> None:
    listing = {"items": [{"metadata": {"name": "a"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}}]}
    found = ask({CRD: crd("experimental"), RANGES: listing}, "ClusterTrustBundle")
    assert found.lacking() == frozenset()
    assert found.is_cluster_ip("10.96.255.1")
    assert found.is_cluster_ip("fd00::1")
    assert not found.is_cluster_ip("10.97.0.1")
    assert not found.is_cluster_ip("web")


def test_the_standard_channel_has_no_experimental_features() -> None:
    found = ask({CRD: crd("standard"), RANGES: {"items": []}}, "ClusterTrustBundle", "XBackend")
    assert found.lacking() == EXPERIMENTAL_FEATURES


def test_an_api_that_is_not_served_is_not_claimed() -> None:
    assert ask({CRD: crd("experimental")}).lacking() == {"ClusterTrustBundle"}


def test_where_the_crd_does_not_say_or_may_not_be_read_the_kinds_of_the_channel_tell() -> None:
    for unknown in (crd("mine"), {"metadata": {}}, 403, 404):
        assert ask({CRD: unknown}, "ClusterTrustBundle").lacking() == EXPERIMENTAL_FEATURES
        assert ask({CRD: unknown}, "ClusterTrustBundle", "XBackend").lacking() == frozenset()


def test_a_server_that_is_not_ready_yet_is_asked_again() -> None:
    found = ask({CRD: [500, 429, crd("standard")]}, "ClusterTrustBundle", "XBackend")
    assert found.known
    assert found.channel == "standard"


def test_ranges_that_are_none_are_passed_over() -> None:
    items = [{"spec": {"cidrs": ["x", "10.0.0.0/8"]}}, {"spec": None}, {}]
    assert [str(each) for each in ask({RANGES: {"items": items}}).service_ranges] == ["10.0.0.0/8"]
