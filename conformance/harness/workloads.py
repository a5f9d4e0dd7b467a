"""Plays kube-controller-manager where there is none: pods of Deployments, and EndpointSlices of Services.

A client of the API like any other: watches, decides, writes. Namespaces' ends and owned objects are the API's business.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import httpx

from .api import Api, ApiError, Object

HASH = "pod-template-hash"
SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER = "conformance-harness"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

logger = logging.getLogger(__name__)


class Workloads:
    """Keeps pods and EndpointSlices as Deployments and Services want them until ``stop``.

    Pods are put on ``node`` at once: nobody plays a scheduler.
    """

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._node = node
        self._stores: dict[str, dict[str, Object]] = {
            "/apis/apps/v1/deployments": {},
            "/api/v1/services": {},
            "/api/v1/pods": {},
            "/apis/discovery.k8s.io/v1/endpointslices": {},
        }
        self._written: dict[str, Object] = {}
        self._listed: set[str] = set()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts watching."""
        self._tasks = [asyncio.create_task(self._follow(path)) for path in self._stores]
        self._tasks.append(asyncio.create_task(self._run()))

    def check(self) -> None:
        """Raises what ended a watch, if something did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """Stops; everything stays as it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, path: str) -> None:
        store = self._stores[path]
        async for kind, item in self._api.follow(path):
            if kind == "SYNC":
                store.clear()
                store.update({_key(entry): entry for entry in item["items"]})
                self._listed.add(path)
            elif kind == "DELETED":
                store.pop(_key(item), None)
            elif kind in {"ADDED", "MODIFIED"}:
                store[_key(item)] = item
            self._changed.set()

    async def _run(self) -> None:
        """One pass over everything after each change: there are dozens of objects, not thousands."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if len(self._listed) < len(self._stores):
                continue
            deployments, services, pods, slices = (list(store.values()) for store in self._stores.values())
            for deployment in deployments:
                await self._quietly(self._deployment(deployment, [pod for pod in pods if _owns(deployment, pod)]))
            for service in services:
                await self._quietly(self._service(service, pods, slices))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ApiError, httpx.TransportError) as error:
            # Changed or deleted meanwhile: its event brings us here again. Anything else shows in the log.
            if not isinstance(error, ApiError) or error.status not in {403, 404, 409}:
                logger.warning("workloads: %s", error)
                await asyncio.sleep(0.2)
                self._changed.set()

    async def _deployment(self, deployment: Object, pods: list[Object]) -> None:
        if deployment["metadata"].get("deletionTimestamp"):
            return
        collection = f"/api/v1/namespaces/{deployment['metadata']['namespace']}/pods"
        surplus, missing = plan_pods(deployment, pods)
        for pod in surplus:
            await self._api.delete(f"{collection}/{pod['metadata']['name']}")
        for _ in range(missing):
            created = await self._api.create(collection, pod_of(deployment, self._node))
            # At once, or the next pass would come before its event and make it again.
            self._stores["/api/v1/pods"][_key(created)] = created
        status = deployment_status(deployment, pods)
        if any((deployment.get("status") or {}).get(name) != value for name, value in status.items()):
            path = f"/apis/apps/v1/namespaces/{deployment['metadata']['namespace']}/deployments"
            written = await self._api.merge(f"{path}/{deployment['metadata']['name']}/status", {"status": status})
            self._stores["/apis/apps/v1/deployments"][_key(written)] = written

    async def _service(self, service: Object, pods: list[Object], slices: list[Object]) -> None:
        if not service["spec"].get("selector") or service["metadata"].get("deletionTimestamp"):
            return
        wanted = slice_of(service, pods)
        held = next((item for item in slices if _key(item) == _key(wanted)), None)
        collection = f"/apis/discovery.k8s.io/v1/namespaces/{service['metadata']['namespace']}/endpointslices"
        if held is None:
            written = await self._api.create(collection, wanted)
        elif self._written.get(_key(wanted)) == wanted:
            return
        else:
            change = {name: wanted[name] for name in ("endpoints", "ports")}
            written = await self._api.merge(f"{collection}/{wanted['metadata']['name']}", change)
        self._stores["/apis/discovery.k8s.io/v1/endpointslices"][_key(written)] = written
        # Not to be compared with what is read: the API fills in defaults.
        self._written[_key(wanted)] = wanted


def template_hash(deployment: Object) -> str:
    """Ten letters that stand for the pod template."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:10])


def plan_pods(deployment: Object, pods: Iterable[Object]) -> tuple[list[Object], int]:
    """The Deployment's pods that are to go, and how many are to be made."""
    current, surplus = [], []
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        fits = pod["metadata"].get("labels", {}).get(HASH) == template_hash(deployment)
        (current if fits else surplus).append(pod)
    wanted = deployment["spec"].get("replicas", 1)
    return surplus + current[wanted:], max(wanted - len(current), 0)


def pod_of(deployment: Object, node: str) -> Object:
    """A new pod of the Deployment."""
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    digest = template_hash(deployment)
    name = f"{metadata['name'][:46]}-{digest}-{''.join(random.choices(_LETTERS, k=5))}"
    own = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**(own.get("labels") or {}), HASH: digest},
            "annotations": own.get("annotations") or {},
            "ownerReferences": [_owner("apps/v1", deployment)],
        },
        "spec": {**template["spec"], "nodeName": node},
    }


def deployment_status(deployment: Object, pods: Iterable[Object]) -> Object:
    """What its status says of its pods."""
    living = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    ready = sum(map(_is_ready, living))
    wanted = deployment["spec"].get("replicas", 1)
    available = "True" if ready >= wanted else "False"
    return {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": len(living),
        "updatedReplicas": len(living),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": [{"type": "Available", "status": available, "reason": "PodsReady", "message": ""}],
    }


def slice_of(service: Object, pods: Iterable[Object]) -> Object:
    """The EndpointSlice of a Service with a selector."""
    metadata = service["metadata"]
    selector: Mapping[str, str] = service["spec"]["selector"]
    chosen = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == metadata["namespace"]
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and (pod.get("status") or {}).get("podIP")
        and not pod["metadata"].get("deletionTimestamp")
    ]
    chosen.sort(key=lambda pod: pod["metadata"]["name"])
    endpoints = [
        {
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": _is_ready(pod), "serving": _is_ready(pod), "terminating": False},
            "nodeName": pod["spec"].get("nodeName", ""),
            "targetRef": {"kind": "Pod", "namespace": metadata["namespace"], "name": pod["metadata"]["name"]},
        }
        for pod in chosen
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-pods",
            "namespace": metadata["namespace"],
            "labels": {SERVICE_LABEL: metadata["name"], "endpointslice.kubernetes.io/managed-by": MANAGER},
            "ownerReferences": [_owner("v1", service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [_port(port, chosen) for port in service["spec"].get("ports") or []],
    }


def _port(port: Object, pods: Iterable[Object]) -> Object:
    target = port.get("targetPort", port["port"])
    if isinstance(target, str):
        containers = [container for pod in pods for container in pod["spec"]["containers"]]
        ports = [entry for container in containers for entry in container.get("ports") or []]
        target = next((entry["containerPort"] for entry in ports if entry.get("name") == target), port["port"])
    made: Object = {"name": port.get("name", ""), "port": target, "protocol": port.get("protocol", "TCP")}
    if port.get("appProtocol"):
        made["appProtocol"] = port["appProtocol"]
    return made


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _owns(owner: Object, item: Object) -> bool:
    references = item["metadata"].get("ownerReferences") or []
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in references)


def _owner(version: str, owner: Object) -> Object:
    metadata = owner["metadata"]
    kind = "Deployment" if version == "apps/v1" else "Service"
    return {"apiVersion": version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"], "controller": True}


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
