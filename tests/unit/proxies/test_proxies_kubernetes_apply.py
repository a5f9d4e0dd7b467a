"""The applier against an API server that is a dictionary."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from propylon.api import ObjectKey
from propylon.proxies.backoff import BackoffPolicy
from propylon.proxies.kubernetes.apply import Applier, ApplyError, Identity, Plan, identity_of

WEB = ObjectKey("shop", "web")
Document = dict[str, Any]


class FakeDocuments:
    """Applies whole documents. `broken` holds the kinds that are refused at present."""

    def __init__(self) -> None:
        self.objects: dict[Identity, Document] = {}
        self.writes: list[tuple[str, Identity]] = []
        self.broken: set[str] = set()
        self._uids = itertools.count(1)

    async def get(self, identity: Identity) -> Document | None:
        return self.objects.get(identity)

    async def apply(self, document: Document) -> Document:
        identity = identity_of(document)
        self.writes.append(("apply", identity))
        if identity.kind in self.broken:
            raise ApplyError(f"{identity} cannot be applied: 403 Forbidden")
        before = self.objects.get(identity)
        metadata = {**document["metadata"]}
        metadata["uid"] = before["metadata"]["uid"] if before else f"o-{next(self._uids)}"
        metadata["generation"] = before["metadata"]["generation"] + 1 if before else 1
        self.objects[identity] = {**document, "metadata": metadata}
        return self.objects[identity]

    async def delete(self, identity: Identity, uid: str) -> None:
        self.writes.append(("delete", identity))
        if identity in self.objects and self.objects[identity]["metadata"]["uid"] == uid:
            del self.objects[identity]

    async def list_ours(self, kind: str) -> list[Document]:
        return [document for identity, document in self.objects.items() if identity.kind == kind]


def document(kind: str, name: str = "web-propylon", owner: str = "u-1", **spec: Any) -> Document:
    owners = [{"kind": "Gateway", "name": "web", "uid": owner, "controller": True}]
    metadata = {"name": name, "namespace": "shop", "ownerReferences": owners}
    return {"kind": kind, "metadata": metadata, "spec": spec}


def run(test: Callable[[Applier, FakeDocuments, dict[ObjectKey, str]], Awaitable[None]]) -> None:
    async def main() -> None:
        documents, problems = FakeDocuments(), dict[ObjectKey, str]()
        applier = Applier(
            documents, problems.__setitem__, policy=BackoffPolicy(first=0.01, longest=0.05), sweep_seconds=3600
        )
        running = asyncio.create_task(applier.run())
        try:
            await test(applier, documents, problems)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - each turn of the event loop is looked at
            await asyncio.sleep(0)


def test_applied_once_and_again_only_what_changed() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        applier.want(WEB, Plan("u-1", (document("Deployment"), document("Service"))))
        applier.enable(True)
        await until(lambda: applier.settled)
        assert [kind for _, (kind, _, _) in documents.writes] == ["Deployment", "Service"]
        applier.want(WEB, Plan("u-1", (document("Deployment"), document("Service", port=1))))
        await until(lambda: applier.settled)
        assert [kind for _, (kind, _, _) in documents.writes[2:]] == ["Service"]
        assert problems == {WEB: ""}

    run(test)


def test_nothing_is_written_before_it_leads() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        applier.want(WEB, Plan("u-1", (document("Deployment"),)))
        await asyncio.wait([asyncio.create_task(asyncio.sleep(0)) for _ in range(20)])
        assert documents.writes == []
        assert problems == {}

    run(test)


def test_what_is_not_planned_any_more_goes_and_the_rest_stays() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        applier.want(WEB, Plan("u-1", (document("Deployment"), document("HorizontalPodAutoscaler"))))
        applier.enable(True)
        await until(lambda: applier.settled)
        applier.want(WEB, Plan("u-1", (document("Deployment"),)))
        await until(lambda: applier.settled)
        assert [identity.kind for identity in documents.objects] == ["Deployment"]
        applier.want(WEB, Plan("u-1", None))
        await until(lambda: applier.settled)
        assert [identity.kind for identity in documents.objects] == ["Deployment"]
        applier.want(WEB, None)
        await until(lambda: applier.settled)
        assert documents.objects == {}
        assert problems == {WEB: ""}

    run(test)


def test_objects_of_others_are_left_alone_and_stop_no_other_object() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        theirs = document("Service", owner="somebody")
        await documents.apply(theirs)
        applier.want(WEB, Plan("u-1", (document("Service"), document("Deployment"))))
        applier.enable(True)
        await until(lambda: problems.get(WEB, "") != "")
        assert "does not belong to this Gateway" in problems[WEB]
        assert Identity("Deployment", "shop", "web-propylon") in documents.objects
        assert documents.objects[identity_of(theirs)]["metadata"]["ownerReferences"][0]["uid"] == "somebody"
        del documents.objects[identity_of(theirs)]
        await until(lambda: problems[WEB] == "")
        assert documents.objects[identity_of(theirs)]["metadata"]["ownerReferences"][0]["uid"] == "u-1"

    run(test)


def test_the_service_of_somebody_else_is_not_led_here_by_our_slices() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        service, endpoints = document("Service"), document("EndpointSlice", "web-propylon-ipv4")
        applier.want(WEB, Plan("u-1", (service, endpoints)))
        applier.enable(True)
        await until(lambda: identity_of(endpoints) in documents.objects)
        await until(lambda: applier.settled)
        documents.objects[identity_of(service)] = document("Service", owner="somebody")
        documents.objects[identity_of(service)]["metadata"]["uid"] = "theirs"
        applier.check(WEB)
        await until(lambda: "does not belong to this Gateway" in problems.get(WEB, ""))
        assert identity_of(endpoints) not in documents.objects
        del documents.objects[identity_of(service)]
        await until(lambda: problems[WEB] == "")
        assert identity_of(endpoints) in documents.objects

    run(test)


def test_refusals_are_told_and_tried_again() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        documents.broken.add("Deployment")
        applier.want(WEB, Plan("u-1", (document("Deployment"), document("Service"))))
        applier.enable(True)
        await until(lambda: "403" in problems.get(WEB, ""))
        assert Identity("Service", "shop", "web-propylon") in documents.objects
        documents.broken.clear()
        await until(lambda: problems[WEB] == "")
        assert Identity("Deployment", "shop", "web-propylon") in documents.objects

    run(test)


def test_a_sweep_repairs_and_prunes_what_an_earlier_life_left() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        leftover = document("HorizontalPodAutoscaler")
        await documents.apply(leftover)
        applier.want(WEB, Plan("u-1", (document("Deployment"), document("Service"))))
        applier.enable(True)
        await until(lambda: applier.settled)
        assert identity_of(leftover) not in documents.objects
        deployment, service = identity_of(document("Deployment")), identity_of(document("Service"))
        del documents.objects[deployment]
        documents.objects[service]["metadata"]["generation"] += 1
        documents.writes.clear()
        await applier.sweep()
        applier.enable(True)
        await until(lambda: applier.settled)
        assert documents.writes == [("apply", deployment), ("apply", service)]
        assert problems == {WEB: ""}

    run(test)


def test_a_sweep_removes_what_no_gateway_of_ours_wants() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        await documents.apply(document("Deployment"))
        applier.enable(True)
        await until(lambda: documents.objects == {})
        assert problems.get(WEB, "") == ""

    run(test)


def test_a_deleted_object_is_made_again_when_told() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        applier.want(WEB, Plan("u-1", (document("Service"),)))
        applier.enable(True)
        await until(lambda: applier.settled)
        documents.objects.clear()
        applier.check(WEB)
        await until(lambda: applier.settled)
        assert identity_of(document("Service")) in documents.objects
        assert problems == {WEB: ""}

    run(test)


def test_replicas_stay_while_an_autoscaler_takes_over() -> None:
    async def test(applier: Applier, documents: FakeDocuments, problems: dict[ObjectKey, str]) -> None:
        applier.want(WEB, Plan("u-1", (document("Deployment", replicas=4),)))
        applier.enable(True)
        await until(lambda: applier.settled)
        (live,) = documents.objects.values()
        live["metadata"]["managedFields"] = [{"manager": "propylon", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
        applier.want(WEB, Plan("u-1", (document("Deployment"),)))
        await until(lambda: applier.settled)
        (live,) = documents.objects.values()
        assert live["spec"]["replicas"] == 4
        live["metadata"]["managedFields"] = [{"manager": "kube-controller-manager"}]
        applier.want(WEB, Plan("u-1", (document("Deployment", paused=False),)))
        await until(lambda: applier.settled)
        (live,) = documents.objects.values()
        assert "replicas" not in live["spec"]
        assert problems == {WEB: ""}

    run(test)
