"""Brings planned objects to the API server, takes away what is not planned any more, repairs what others changed.

An object is only ever touched if the Gateway it is for controls it: one of the same name that somebody else made stays
as it is, and the Gateway is told. A turn over all objects of the installation (`sweep`) finds what was changed or
deleted behind our back, and what an earlier life of this program left.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from propylon.api.meta import ObjectKey
from propylon.proxies.backoff import BackoffPolicy, delay
from propylon.proxies.kubernetes.documents import MANAGER, Document

log = logging.getLogger("propylon.proxies")

WORKERS = 4
"""Gateways that are worked on at once."""
SWEEP_SECONDS = 60.0
KINDS = ("ServiceAccount", "Secret", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler")
"""What is made for Gateways whose proxies are pods, in the order to be applied."""


class Identity(NamedTuple):
    """One object of these kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class ApplyError(Exception):
    """The API server refused or did not answer; the message says what."""


class Conflict(ApplyError):  # noqa: N818 - it is what the message calls it
    """An object of that name belongs to somebody else."""


class Documents(Protocol):
    """The API server, as far as it is needed. All raise ApplyError."""

    async def get(self, identity: Identity) -> Document | None:
        """The object, None if there is none."""

    async def apply(self, document: Document) -> Document:
        """Apply on the server's side with our field manager, and return the object as it is then."""

    async def delete(self, identity: Identity, uid: str) -> None:
        """Delete it if it still is the object with this uid. Nothing happens if it is gone."""

    async def list_ours(self, kind: str) -> list[Document]:
        """All objects of a kind that bear the labels of this installation."""


class Plan(msgspec.Struct, frozen=True):
    """What a Gateway wants; `documents` None: what is there stays as it is."""

    uid: str
    documents: tuple[Document, ...] | None


class _Applied(NamedTuple):
    digest: str
    uid: str
    generation: int


class Applier:
    """Works off what Gateways want. All methods belong to one event loop; only `run` does I/O."""

    def __init__(
        self,
        documents: Documents,
        on_problem: Callable[[ObjectKey, str], None],
        *,
        kinds: Sequence[str] = KINDS,
        policy: BackoffPolicy | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        """`on_problem` is told what keeps a Gateway's objects from being as planned, and "" once nothing does.

        `kinds`: what is made for Gateways at all.
        """
        self.kinds = tuple(kinds)
        self._documents = documents
        self._on_problem = on_problem
        self._policy = policy or BackoffPolicy()
        self._sweep_seconds = sweep_seconds
        self._plans: dict[ObjectKey, Plan] = {}
        self._applied: dict[Identity, _Applied] = {}
        self._owned: dict[ObjectKey, dict[Identity, str]] = {}
        """What is known to be there, with its uid."""
        self._queue: dict[ObjectKey, float] = {}
        """Gateway -> not to be looked at before."""
        self._failures: dict[ObjectKey, int] = {}
        self._working: set[ObjectKey] = set()
        self._bell = asyncio.Event()
        self.enabled = False
        """Whether it writes."""
        self._sweep_at = 0.0

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, gateway: ObjectKey, plan: Plan | None) -> None:
        """Have a Gateway's objects be so; None: it has none (any more). The latest word counts."""
        if self._plans.get(gateway) == plan:
            return
        if plan is None:
            del self._plans[gateway]
        else:
            self._plans[gateway] = plan
        self._failures.pop(gateway, None)
        self._enqueue(gateway)

    def check(self, gateway: ObjectKey) -> None:
        """Somebody changed or deleted an object of the Gateway: apply all of them again."""
        plan = self._plans.get(gateway)
        if plan is not None and plan.documents is not None:
            for document in plan.documents:
                self._applied.pop(identity_of(document), None)
            self._enqueue(gateway)

    def enable(self, enabled: bool) -> None:
        """Whether to write: only the leader does. Everything wanted must have been told before the first time."""
        if enabled and not self.enabled:
            self._applied.clear()
            self._queue.update(dict.fromkeys(self._plans, 0.0))
            self._sweep_at = 0.0
        self.enabled = enabled
        self._bell.set()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done now."""
        return not self.enabled or not (self._queue or self._working)

    def _enqueue(self, gateway: ObjectKey, at: float = 0.0) -> None:
        self._queue[gateway] = at
        self._bell.set()

    # -- doing it ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._bell.clear()
                if self.enabled and time.monotonic() >= self._sweep_at:
                    await self.sweep()
                    self._sweep_at = time.monotonic() + self._sweep_seconds
                wait = self._start_due(group)
                try:
                    async with asyncio.timeout(wait):
                        await self._bell.wait()
                except TimeoutError:
                    continue

    def _start_due(self, group: asyncio.TaskGroup) -> float | None:
        if not self.enabled:
            return None
        now = time.monotonic()
        wait = max(0.0, self._sweep_at - now)
        for gateway, at in list(self._queue.items()):
            if len(self._working) >= WORKERS:
                break  # the end of a work rings
            if gateway in self._working:
                continue
            if at > now:
                wait = min(wait, at - now)
                continue
            del self._queue[gateway]
            self._working.add(gateway)
            group.create_task(self._work(gateway), name=f"objects of {gateway}")
        return wait

    async def _work(self, gateway: ObjectKey) -> None:
        plan = self._plans.get(gateway)
        try:
            problem = await self._reconcile(gateway, plan)
        except ApplyError as error:
            problem = str(error)
        finally:
            self._working.discard(gateway)
            self._bell.set()
        if self._plans.get(gateway) is not plan:
            return  # overtaken: it stands in the queue
        if problem:
            failures = self._failures[gateway] = self._failures.get(gateway, 0) + 1
            self._queue.setdefault(gateway, time.monotonic() + delay(failures, self._policy))
        else:
            self._failures.pop(gateway, None)
        self._on_problem(gateway, problem)

    async def _reconcile(self, gateway: ObjectKey, plan: Plan | None) -> str:
        """What is in the way, "" if nothing is. One object that cannot be applied stops no other."""
        if plan is not None and plan.documents is None:
            return ""
        problems: list[str] = []
        documents = plan.documents or () if plan is not None else ()
        for document in documents:
            if problems and document["kind"] == "EndpointSlice":
                continue
            try:
                await self._apply(gateway, document, plan.uid if plan is not None else "")
            except ApplyError as error:
                problems.append(str(error))
                if isinstance(error, Conflict) and document["kind"] == "Service":
                    # Slices go by the Service's name: they would lead the clients of somebody else's Service here.
                    documents = tuple(each for each in documents if each["kind"] != "EndpointSlice")
        wanted = {identity_of(document) for document in documents}
        for identity, uid in list(self._owned.get(gateway, {}).items()):
            if identity not in wanted:
                await self._documents.delete(identity, uid)
                log.info("%s of Gateway %s was deleted", identity, gateway)
                self._owned[gateway].pop(identity, None)
                self._applied.pop(identity, None)
        if not documents:
            self._owned.pop(gateway, None)
        return "; ".join(problems)

    async def _apply(self, gateway: ObjectKey, document: Document, owner: str) -> None:
        identity = identity_of(document)
        digest = hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()
        known = self._applied.get(identity)
        if known is not None and known.digest == digest:
            return
        live = await self._documents.get(identity)
        if live is not None and owner_of(live) != owner:
            raise Conflict(f"{identity} exists and does not belong to this Gateway: rename or delete one of the two")
        answer = await self._documents.apply(_keeping_replicas(document, live))
        metadata = answer["metadata"]
        self._applied[identity] = _Applied(digest, metadata["uid"], metadata.get("generation", 0))
        self._owned.setdefault(gateway, {})[identity] = metadata["uid"]
        if live is None:
            log.info("%s of Gateway %s was created", identity, gateway)

    # -- looking around ----------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Compare all objects of the installation with what is wanted, and queue the Gateways that need work."""
        for kind in self.kinds:
            try:
                found = await self._documents.list_ours(kind)
            except ApplyError as error:
                log.warning("%s objects cannot be looked through: %s", kind, error)
                continue
            self._compare(kind, found)

    def _compare(self, kind: str, found: Iterable[Document]) -> None:
        there: dict[Identity, _Applied] = {}
        for document in found:
            identity, metadata = identity_of({"kind": kind, **document}), document["metadata"]
            name, uid = owner_name(document), owner_of(document)
            gateway = ObjectKey(identity.namespace, name)
            plan = self._plans.get(gateway)
            if not name or metadata.get("deletionTimestamp") or (plan is not None and plan.uid != uid):
                continue  # nobody's, or on its way out: a Gateway that came again under the same name has another uid
            there[identity] = _Applied("", metadata["uid"], metadata.get("generation", 0))
            self._owned.setdefault(gateway, {})[identity] = metadata["uid"]
            if plan is None or (plan.documents is not None and identity not in map(identity_of, plan.documents)):
                self._enqueue(gateway)
        for identity, applied in list(self._applied.items()):
            if identity.kind == kind and there.get(identity) != applied._replace(digest=""):
                del self._applied[identity]
                for gateway, plan in self._plans.items():
                    if plan.documents is not None and identity in map(identity_of, plan.documents):
                        self._enqueue(gateway)


def identity_of(document: Mapping[str, Any]) -> Identity:
    """Which object a document is."""
    metadata = document["metadata"]
    return Identity(document["kind"], metadata.get("namespace", ""), metadata["name"])


def owner_of(document: Mapping[str, Any]) -> str:
    """The uid of the Gateway that controls an object, "" if none does."""
    return str(_controller(document).get("uid", ""))


def owner_name(document: Mapping[str, Any]) -> str:
    """The name of the Gateway that controls an object, "" if none does."""
    return str(_controller(document).get("name", ""))


def _controller(document: Mapping[str, Any]) -> Mapping[str, Any]:
    for owner in document["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == "Gateway":
            return dict(owner)
    return {}


def _keeping_replicas(document: Document, live: Mapping[str, Any] | None) -> Document:
    """Leave the number of replicas as it is while an autoscaler takes over.

    Whoever owns a field and does not mention it any more takes it away, and Kubernetes would go back to one replica
    (reference/using-api/server-side-apply, "Transferring ownership"). Once the autoscaler wrote, it is the owner.
    """
    if document["kind"] != "Deployment" or "replicas" in document["spec"] or live is None:
        return document
    ours = any(
        entry.get("manager") == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields") or ()
    )
    if not ours or "replicas" not in live.get("spec", {}):
        return document
    return {**document, "spec": {**document["spec"], "replicas": live["spec"]["replicas"]}}
