"""Which replica writes: a Lease that one holds, renews, and loses if it stops renewing.

Every replica watches, computes and serves its proxies; only the holder writes to the cluster. It also says, by an
annotation of the Lease, where the others reach it. Times are those of
Kubernetes' own components (https://kubernetes.io/docs/concepts/architecture/leases/): a lease lasts 15 s, a holder that
could not renew for 10 s steps down by itself, and everybody looks every 2 s. Ages are measured by the local clock from
when a change was seen: clocks of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from propylon.store.cluster.client import ApiError, Client, Unreachable, is_said

log = logging.getLogger("propylon.store.cluster")

LEASE_SECONDS = 15
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0


ADDRESS_ANNOTATION = "propylon.dev/xds-address"
"""On the Lease: host:port at which the holder can be reached by the other replicas."""


class Leader(NamedTuple):
    """Who holds the lease, as far as we know; `address` is host:port, "" if it does not say."""

    identity: str
    address: str


class Times(NamedTuple):
    """Seconds; see above."""

    lease: int = LEASE_SECONDS
    renew: float = RENEW_SECONDS
    retry: float = RETRY_SECONDS


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """The spec of a Lease."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]
    spec: Spec = Spec()


def plan_spec(current: Spec | None, age: float, identity: str, now: str, lease_seconds: int) -> Spec | None:
    """The spec to write in order to hold the lease; None while somebody else does.

    `age` is how many seconds ago the current spec was first seen, `now` the time to put in.
    """
    held_by_other = current is not None and current.holder_identity not in (None, "", identity)
    if current is not None and held_by_other and age < (current.lease_duration_seconds or lease_seconds):
        return None
    ours = current is not None and current.holder_identity == identity
    transitions = (current.lease_transitions or 0) if current is not None else 0
    return Spec(
        holder_identity=identity,
        lease_duration_seconds=lease_seconds,
        acquire_time=current.acquire_time if ours and current is not None else now,
        renew_time=now,
        lease_transitions=transitions if ours or current is None else transitions + 1,
    )


class LeaderElection:
    """Takes part in the election for one Lease; `on_change` is called (on the event loop) with True and False."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        on_change: Callable[[bool], None],
        *,
        identity: str | None = None,
        times: Times | None = None,
    ) -> None:
        self.identity = identity or f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._name = name
        self._on_change = on_change
        self._times = times or Times()
        self._seen: Spec | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._in_trouble = False
        self._address = ""
        self._on_leader: Callable[[Leader | None], None] = lambda _leader: None
        self.leading = False
        self.leader: Leader | None = None
        """Who holds the lease, as it was last seen. A dead one holds it until another one takes it."""

    def tell(self, address: str, on_leader: Callable[[Leader | None], None]) -> None:
        """Say where the others reach this replica (host:port), and be told who leads whenever that changes.

        `on_leader` gets None for nobody, and this replica itself when it leads.
        """
        self._address = address
        self._on_leader = on_leader

    async def run(self) -> None:
        """Take part until cancelled; whoever leads then gives the lease back at once."""
        try:
            while True:
                await self._round()
                await asyncio.sleep(self._times.retry)
        finally:
            if self.leading:
                self._lead(False)
                await self._release()

    async def _round(self) -> None:
        started = time.monotonic()
        try:
            # A call that hangs must not outlive our right to write. (wait_for would lose a cancellation in 3.11.)
            async with asyncio.timeout(self._times.renew):
                held = await self._try()
        except (ApiError, Unreachable, msgspec.DecodeError, TimeoutError) as error:
            if not is_said(error):
                self._say(f"the lease {self._namespace}/{self._name} cannot be read or written: {error or 'no answer'}")
            if self.leading and time.monotonic() - self._renewed_at >= self._times.renew:
                self._lead(False, f": the lease could not be renewed: {error or 'no answer'}")
            return
        self._in_trouble = False
        if held:
            self._renewed_at = started
        if held != self.leading:
            self._lead(held)

    async def _try(self) -> bool:
        """Read, and take or renew if possible. Whether we hold it."""
        try:
            raw = await self._client.request("GET", f"{self._collection}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._put("POST", self._collection, None, {"name": self._name, "namespace": self._namespace})
        lease = msgspec.json.decode(raw, type=_Lease)
        if lease.spec != self._seen:
            self._seen, self._seen_at = lease.spec, time.monotonic()
        holder = lease.spec.holder_identity
        if holder != self.identity:
            address = (lease.metadata.get("annotations") or {}).get(ADDRESS_ANNOTATION, "")
            self._tell_leader(Leader(holder, address) if holder else None)
        kept = _kept(lease)
        return await self._put("PUT", f"{self._collection}/{self._name}", lease.spec, kept)

    async def _put(self, method: str, path: str, current: Spec | None, metadata: dict[str, Any]) -> bool:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = plan_spec(current, time.monotonic() - self._seen_at, self.identity, now, self._times.lease)
        if spec is None:
            return False
        if self._address:
            annotations = {**(metadata.get("annotations") or {}), ADDRESS_ANNOTATION: self._address}
            metadata = {**metadata, "annotations": annotations}
        try:
            await self._client.request(method, path, body=_encode(metadata, spec))
        except ApiError as error:
            if error.status == 409:  # another one was quicker
                return False
            raise
        self._seen, self._seen_at = spec, time.monotonic()
        self._tell_leader(Leader(self.identity, self._address))
        return True

    async def _release(self) -> None:
        """Let the next one in without waiting for the lease to run out. Best effort: we are on our way out."""
        try:
            raw = await self._client.request("GET", f"{self._collection}/{self._name}", seconds=2)
            lease = msgspec.json.decode(raw, type=_Lease)
            if lease.spec.holder_identity == self.identity:
                kept = _kept(lease)
                spec = msgspec.structs.replace(lease.spec, holder_identity="", lease_duration_seconds=1)
                await self._client.request(
                    "PUT", f"{self._collection}/{self._name}", body=_encode(kept, spec), seconds=2
                )
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            log.warning("the lease was not given back: %s", error)

    def _lead(self, leading: bool, why: str = "") -> None:
        self.leading = leading
        if leading:
            log.info("leading: %s", self.identity)
        else:
            log.warning("no longer leading: %s%s", self.identity, why)
        self._on_change(leading)

    def _tell_leader(self, leader: Leader | None) -> None:
        if leader != self.leader:
            self.leader = leader
            self._on_leader(leader)

    def _say(self, message: str) -> None:
        """Once, until it works again."""
        if not self._in_trouble:
            self._in_trouble = True
            log.warning("%s", message)


def _kept(lease: _Lease) -> dict[str, Any]:
    """What is written back of the metadata: the address is its writer's alone, other annotations are anybody's."""
    names = ("name", "namespace", "resourceVersion", "labels", "annotations")
    kept = {key: lease.metadata[key] for key in names if lease.metadata.get(key)}
    annotations = {key: value for key, value in kept.pop("annotations", {}).items() if key != ADDRESS_ANNOTATION}
    return {**kept, "annotations": annotations} if annotations else kept


def _encode(metadata: dict[str, Any], spec: Spec) -> bytes:
    return msgspec.json.encode(
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    )
