"""What is asked of a cluster besides its objects, and what follows from the answers."""

import asyncio
from typing import Any

from propylon import api
from propylon.app.cluster_surroundings import Surroundings
from propylon.status import EXPERIMENTAL_FEATURES, SUPPORTED_FEATURES
from propylon.status.features import OPTIONAL_KINDS
from propylon.store.cluster import ClusterWatch, ResourcePath
from support.scripted_api import Request, serving

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD = f"{CRDS}/gateways.gateway.networking.k8s.io"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
Answers = dict[str, Any]
TRUST = "ClusterTrustBundle"
OURS = tuple(kind for kind in OPTIONAL_KINDS if kind != TRUST)
"""Kinds that the Gateway API brings along."""


def crd(channel: str, version: str = "v1.7.0") -> dict[str, Any]:
    names = {"channel": channel, "bundle-version": version}
    return {"metadata": {"annotations": {f"gateway.networking.k8s.io/{key}": value for key, value in names.items()}}}


def ask(answers: Answers, *served: str) -> Surroundings:
    """Ask once; an answer that is a number is a refusal."""

    async def answer(request: Request) -> None:
        found = answers.get(request.path, 404)
        if request.path.startswith(CRDS):
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
    found = ask({CRD: crd("experimental"), RANGES: listing}, *OURS, TRUST)
    assert found.lacking() == frozenset()
    assert found.is_cluster_ip("10.96.255.1")
    assert found.is_cluster_ip("fd00::1")
    assert not found.is_cluster_ip("10.97.0.1")
    assert not found.is_cluster_ip("web")


def test_the_standard_channel_has_no_experimental_features() -> None:
    found = ask({CRD: crd("standard"), RANGES: {"items": []}}, *OURS, TRUST, "XBackend")
    assert found.lacking() == EXPERIMENTAL_FEATURES


def test_an_api_that_is_not_served_is_not_claimed() -> None:
    assert ask({CRD: crd("experimental")}, *OURS).lacking() == {"ClusterTrustBundle"}


def test_where_the_crd_does_not_say_or_may_not_be_read_the_kinds_of_the_channel_tell() -> None:
    for unknown in (crd("mine"), {"metadata": {}}, 403, 404):
        assert ask({CRD: unknown}, *OURS, TRUST).lacking() == EXPERIMENTAL_FEATURES
        assert ask({CRD: unknown}, *OURS, TRUST, "XBackend").lacking() == frozenset()


def test_a_server_that_is_not_ready_yet_is_asked_again() -> None:
    found = ask({CRD: [500, 429, crd("standard")]}, *OURS, TRUST, "XBackend")
    assert found.known
    assert found.channel == "standard"


def test_ranges_that_are_none_are_passed_over() -> None:
    items = [{"spec": {"cidrs": ["x", "10.0.0.0/8"]}}, {"spec": None}, {}]
    assert [str(each) for each in ask({RANGES: {"items": items}}).service_ranges] == ["10.0.0.0/8"]


def test_crds_of_older_releases_lack_what_came_later() -> None:
    def lacking(channel: str, version: str) -> frozenset[str]:
        return ask({CRD: crd(channel, version)}, *OURS, TRUST, "XBackend").lacking()

    later = {TRUST, "GatewayAddressRoutability", "GatewayAddressRoutabilityCluster", "GatewayListenerFilters"}
    assert lacking("experimental", "v1.6.3") == lacking("experimental", "v1.4.1") == later
    retries = {"HTTPRouteRetryCodes", "HTTPRouteRetryConnectionError"}
    assert lacking("standard", "v1.5.1") == EXPERIMENTAL_FEATURES | retries
    assert lacking("standard", "v1.4.1") > EXPERIMENTAL_FEATURES | retries | {"HTTPRouteCORS"}
    assert lacking("experimental", "v1.7.3") == lacking("experimental", "v9.0.0") == frozenset()


def test_kinds_that_are_not_served_have_no_features() -> None:
    found = ask({CRD: crd("experimental")}, *(kind for kind in OURS if kind not in {"TLSRoute", "ListenerSet"}), TRUST)
    assert found.lacking() == {"TLSRoute", "TLSRouteModeMixed", "TLSRouteModeTerminate", "ListenerSet"}
    for kind in OPTIONAL_KINDS:
        assert any(name.startswith(kind) for name in SUPPORTED_FEATURES)


def test_every_crd_is_asked_for_its_release() -> None:
    mixed = {
        CRD: crd("standard"),
        f"{CRDS}/httproutes.gateway.networking.k8s.io": crd("standard", "v1.3.0"),
        f"{CRDS}/xbackends.gateway.networking.x-k8s.io": {"metadata": {"name": "somebody's own"}},
    }
    assert ask(mixed).crds == {
        "gateways.gateway.networking.k8s.io": "v1.7.0",
        "httproutes.gateway.networking.k8s.io": "v1.3.0",
        "xbackends.gateway.networking.x-k8s.io": "",
    }
