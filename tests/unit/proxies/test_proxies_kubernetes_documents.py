"""How objects are asked for, applied, deleted and listed at an API server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from propylon.app.cluster_documents import PATHS, ClusterDocuments
from propylon.proxies.kubernetes.apply import KINDS, ApplyError, Identity
from support.scripted_api import Request, serving

OURS = "propylon.dev/gateway-controller"
WEB = Identity("Deployment", "shop", "web")
PATH = "/apis/apps/v1/namespaces/shop/deployments/web"


def ask(handler: Callable[[Request], Awaitable[None]], question: Callable[[ClusterDocuments], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with serving(handler) as client:
            return await question(ClusterDocuments(client, OURS))

    return asyncio.run(main())


def test_every_kind_has_a_path() -> None:
    assert set(KINDS) <= PATHS.keys()


def test_apply_is_done_by_the_server_under_our_name() -> None:
    requests: list[Request] = []

    async def handler(request: Request) -> None:
        requests.append(request)
        await request.answer(json.loads(request.body))

    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}}
    assert ask(handler, lambda documents: documents.apply(document)) == document
    (request,) = requests
    assert (request.method, request.path) == ("PATCH", PATH)
    assert request.parameters == {"fieldManager": "propylon", "force": "true"}
    assert request.headers["content-type"] == "application/apply-patch+yaml"


def test_what_is_not_there() -> None:
    async def handler(request: Request) -> None:
        assert request.path == PATH
        await request.refuse(404, "NotFound")

    assert ask(handler, lambda documents: documents.get(WEB)) is None
    ask(handler, lambda documents: documents.delete(WEB, "u"))


def test_only_the_object_that_was_meant_is_deleted() -> None:
    bodies: list[Any] = []

    async def handler(request: Request) -> None:
        bodies.append(json.loads(request.body))
        await request.refuse(409, "Conflict")

    ask(handler, lambda documents: documents.delete(WEB, "u-1"))
    assert bodies[0]["preconditions"] == {"uid": "u-1"}


@pytest.mark.parametrize("verb", ["get", "apply", "delete", "list_ours"])
def test_refusals_name_the_object(verb: str) -> None:
    async def handler(request: Request) -> None:
        await request.refuse(403, "Forbidden")

    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}}
    arguments: dict[str, tuple[Any, ...]] = {
        "get": (WEB,),
        "apply": (document,),
        "delete": (WEB, "u"),
        "list_ours": ("Deployment",),
    }
    with pytest.raises(ApplyError, match="403 Forbidden"):
        ask(handler, lambda documents: getattr(documents, verb)(*arguments[verb]))


def test_lists_are_read_page_by_page_and_of_this_installation_only() -> None:
    async def handler(request: Request) -> None:
        assert request.path == "/apis/apps/v1/deployments"
        assert request.parameters["labelSelector"] == (
            "app.kubernetes.io/managed-by=propylon,propylon.dev/controller-name=propylon.dev_gateway-controller"
        )
        position = request.parameters.get("continue")
        items = [{"metadata": {"name": "two" if position else "one", "namespace": "shop"}}]
        await request.answer({"metadata": {} if position else {"continue": "next"}, "items": items})

    found = ask(handler, lambda documents: documents.list_ours("Deployment"))
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [
        ("Deployment", "one"),
        ("Deployment", "two"),
    ]


def test_what_former_releases_left_is_removed_and_nothing_else() -> None:
    slices = {
        "propylon-xds-ipv4": {"labels": {"app.kubernetes.io/managed-by": "propylon"}, "uid": "u-4"},
        "propylon-xds-ipv6": {"labels": {}, "uid": "u-6"},
    }
    deleted: list[tuple[str, Any]] = []

    async def handler(request: Request) -> None:
        name = request.path.rpartition("/")[2]
        if request.method == "DELETE":
            deleted.append((name, json.loads(request.body)["preconditions"]))
        await request.answer({"metadata": {"name": name, "namespace": "ns", **slices[name]}})

    ask(handler, lambda documents: documents.withdraw("ns", "propylon-xds"))
    assert deleted == [("propylon-xds-ipv4", {"uid": "u-4"})]
