"""The API server as those see it who apply objects for Gateways."""

from typing import Any
from urllib.parse import quote

import msgspec

from propylon.proxies.kubernetes.apply import ApplyError, Identity, identity_of
from propylon.proxies.kubernetes.documents import MANAGED_BY, MANAGER, Document, installation_labels
from propylon.store.cluster import ApiError, Client, ResourcePath, Unreachable

PATHS = {
    "ServiceAccount": ResourcePath("/api/v1", "v1", "serviceaccounts"),
    "Secret": ResourcePath("/api/v1", "v1", "secrets"),
    "Service": ResourcePath("/api/v1", "v1", "services"),
    "Deployment": ResourcePath("/apis/apps/v1", "v1", "deployments"),
    "PodDisruptionBudget": ResourcePath("/apis/policy/v1", "v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ResourcePath("/apis/autoscaling/v2", "v2", "horizontalpodautoscalers"),
    "EndpointSlice": ResourcePath("/apis/discovery.k8s.io/v1", "v1", "endpointslices"),
}
_PAGE = 500
_APPLY = "application/apply-patch+yaml"


class ClusterDocuments:
    """Implements `proxies.kubernetes.apply.Documents`."""

    def __init__(self, client: Client, controller_name: str) -> None:
        self._client = client
        self._selector = ",".join(f"{k}={v}" for k, v in installation_labels(controller_name).items())

    async def get(self, identity: Identity) -> Document | None:
        """See `Documents`."""
        try:
            answer = await self._client.request("GET", _path(identity))
        except ApiError as error:
            if error.status == 404:
                return None
            raise _failed("read", identity, error) from error
        except Unreachable as error:
            raise _failed("read", identity, error) from error
        return _decode(answer)

    async def apply(self, document: Document) -> Document:
        """See `Documents`."""
        identity = identity_of(document)
        try:
            answer = await self._client.request(
                "PATCH",
                _path(identity),
                parameters={"fieldManager": MANAGER, "force": "true"},
                body=msgspec.json.encode(document),
                content_type=_APPLY,
            )
        except (ApiError, Unreachable) as error:
            raise _failed("applied", identity, error) from error
        return _decode(answer)

    async def delete(self, identity: Identity, uid: str) -> None:
        """See `Documents`."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._client.request("DELETE", _path(identity), body=msgspec.json.encode(options))
        except ApiError as error:
            if error.status not in {404, 409}:
                raise _failed("deleted", identity, error) from error
        except Unreachable as error:
            raise _failed("deleted", identity, error) from error

    async def list_ours(self, kind: str) -> list[Document]:
        """See `Documents`."""
        found: list[Document] = []
        position = ""
        while True:
            parameters = {"labelSelector": self._selector, "limit": str(_PAGE)}
            if position:
                parameters["continue"] = position
            try:
                answer = _decode(await self._client.request("GET", PATHS[kind].collection, parameters=parameters))
            except (ApiError, Unreachable) as error:
                raise ApplyError(str(error)) from error
            found += [{**item, "kind": kind} for item in answer.get("items") or ()]
            position = answer["metadata"].get("continue", "")
            if not position:
                return found

    async def withdraw(self, namespace: str, service: str) -> None:
        """Remove the EndpointSlices that former releases wrote for a Service of theirs. Raises ApplyError.

        Kubernetes does not touch those of others; they would lead proxies to a pod that is gone.
        """
        for name in former_slices(service):
            identity = Identity("EndpointSlice", namespace, name)
            found = await self.get(identity)
            if found is not None and found["metadata"].get("labels", {}).get(MANAGED_BY) == MANAGER:
                await self.delete(identity, found["metadata"]["uid"])


def former_slices(service: str) -> tuple[str, ...]:
    """Names of the EndpointSlices that `withdraw` removes."""
    return (f"{service}-ipv4", f"{service}-ipv6")


def _path(identity: Identity) -> str:
    return PATHS[identity.kind].object(identity.namespace, quote(identity.name, safe=""))


def _failed(what: str, identity: Identity, error: Exception) -> ApplyError:
    return ApplyError(f"{identity} cannot be {what}: {error}")


def _decode(answer: bytes) -> dict[str, Any]:
    return msgspec.json.decode(answer, type=dict[str, Any])
