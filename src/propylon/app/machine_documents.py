"""This machine as a Node and its proxies as Pods, in Kubernetes' words. Pure.

Pods resemble the static pods of a kubelet: one per Gateway, named as the Deployment of a cluster would be
(GEP-1762), with the labels and annotations that the Gateway wants on its infrastructure (GEP-1867).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from propylon import api
from propylon.proxies.kubernetes.documents import CLASS_NAME, CONTAINER, GATEWAY_NAME, MANAGED_BY, MANAGER
from propylon.proxies.kubernetes.names import base_name, label_value
from propylon.proxies.settings import Phase, ProxyState

Document = dict[str, Any]

_UIDS = uuid.UUID("6a0ed1a5-7c0b-5e0c-9d0c-6f1f4cbb2b0a")
"""Where the uids of what is shown come from: the same object has the same uid after every start."""
POD_LIMIT = 1000
"""How many pods a Node says it has room for; there is no limit in truth, and Kubernetes knows no such word."""
UNKNOWN_EXIT = 255
"""Of a proxy that ended: it is nobody's child, so that nobody learns its exit code (containerd says 255 as well)."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of this machine. Times are RFC 3339, sizes in bytes."""

    name: str
    address: str
    started: str
    cpus: int
    memory: int
    storage: int
    version: str
    operating_system: str
    architecture: str
    kernel: str
    image: str
    machine_id: str = ""
    boot_id: str = ""


class Crash(msgspec.Struct, frozen=True):
    """The last end of a proxy that nobody asked for. Times are RFC 3339."""

    started: str
    finished: str
    message: str


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a Gateway's proxy. Times are RFC 3339."""

    state: ProxyState
    ready: bool
    started: str
    """When its process was started; "" if there is none."""
    crash: Crash | None = None
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[str, int, str], ...] = ()
    """(name, bound port, "TCP" or "UDP")."""
    leaving: str = ""
    """Since when it is drained because its Gateway is gone."""


def node_name(hostname: str) -> str:
    """A host's name as a Node may bear it: in lower case, DNS labels only."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in hostname.lower())
    return name.strip("-.")[:253] or "localhost"


def node_document(facts: Facts) -> Document:
    """The machine as a Node."""
    resources = {
        "cpu": str(facts.cpus),
        "memory": f"{facts.memory // 1024}Ki",
        "ephemeral-storage": f"{facts.storage // 1024}Ki",
        "pods": str(POD_LIMIT),
    }
    labels = {
        "kubernetes.io/hostname": facts.name[:63].strip("-."),
        "kubernetes.io/os": facts.operating_system,
        "kubernetes.io/arch": facts.architecture,
        MANAGED_BY: MANAGER,
    }
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "PropylonReady",
        "message": "propylon is running",
        "lastHeartbeatTime": facts.started,
        "lastTransitionTime": facts.started,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "uid": _uid("Node", facts.name, facts.machine_id),
            "creationTimestamp": facts.started,
            "labels": labels,
        },
        "spec": {},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": facts.address},
                {"type": "Hostname", "address": facts.name},
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": [ready],
            "nodeInfo": {
                "machineID": facts.machine_id,
                "systemUUID": facts.machine_id,
                "bootID": facts.boot_id,
                "kernelVersion": facts.kernel,
                "osImage": facts.image,
                "containerRuntimeVersion": f"process://{facts.version}",
                "kubeletVersion": f"v{facts.version}",
                "kubeProxyVersion": "",
                "operatingSystem": facts.operating_system,
                "architecture": facts.architecture,
            },
        },
    }


def pod_ref(gateway: api.Gateway, controller_name: str) -> api.ObjectRef:
    """The Pod of a Gateway's proxy."""
    name = base_name(gateway.metadata.name, gateway.spec.gateway_class_name, controller_name)
    return api.ObjectRef("", "Pod", gateway.metadata.namespace, name)


def pod_document(gateway: api.Gateway, controller_name: str, proxy: Proxy, facts: Facts, image: str) -> Document:
    """A Gateway's proxy as a Pod."""
    ref = pod_ref(gateway, controller_name)
    metadata = gateway.metadata
    infrastructure = gateway.spec.infrastructure
    labels = {
        **(infrastructure.labels if infrastructure else {}),
        "app.kubernetes.io/name": CONTAINER,
        GATEWAY_NAME: label_value(metadata.name),
        CLASS_NAME: label_value(gateway.spec.gateway_class_name),
        MANAGED_BY: MANAGER,
    }
    owner = {
        "apiVersion": f"{api.GATEWAY_GROUP}/v1",
        "kind": "Gateway",
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
    }
    shown: Document = {
        "name": ref.name,
        "namespace": ref.namespace,
        "uid": _uid("Pod", metadata.uid, facts.machine_id),
        "creationTimestamp": metadata.creation_timestamp,
        "labels": labels,
        "ownerReferences": [owner],
    }
    if infrastructure and infrastructure.annotations:
        shown["annotations"] = dict(infrastructure.annotations)
    if proxy.leaving:
        shown["deletionTimestamp"] = proxy.leaving
        shown["deletionGracePeriodSeconds"] = 30
    container: Document = {"name": CONTAINER, "image": image, "imagePullPolicy": "Never", "resources": {}}
    if proxy.ports:
        container["ports"] = _container_ports(proxy.ports)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": shown,
        "spec": {
            "containers": [container],
            "nodeName": facts.name,
            "hostNetwork": True,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
        },
        "status": _pod_status(proxy, facts, image, metadata.creation_timestamp),
    }


def _container_ports(ports: Sequence[tuple[str, int, str]]) -> list[Document]:
    found = []
    for name, port, protocol in ports:
        entry: Document = {"containerPort": port, "hostPort": port, "protocol": protocol}
        found.append({"name": name, **entry} if name else entry)
    return found


def _pod_status(proxy: Proxy, facts: Facts, image: str, created: str) -> Document:
    ready = proxy.ready and not proxy.leaving
    state, since = proxy.state, proxy.started or created
    conditions = [
        _condition("PodScheduled", True, created),
        _condition("Initialized", True, created),
        _condition("ContainersReady", ready, since, "" if ready else "ContainersNotReady"),
        _condition("Ready", ready, since, "" if ready else "ContainersNotReady"),
    ]
    container: Document = {
        "name": CONTAINER,
        "image": image,
        "imageID": image,
        "ready": ready,
        "started": state.pid is not None,
        "restartCount": state.restarts,
        "state": _container_state(proxy),
        "lastState": {},
    }
    if state.pid is not None:
        container["containerID"] = f"process://{state.pid}"
    if proxy.crash is not None:
        container["lastState"] = {"terminated": _terminated(proxy.crash)}
    status: Document = {
        "phase": "Pending" if state.phase is Phase.STOPPED and not proxy.leaving else "Running",
        "conditions": conditions,
        "hostIP": facts.address,
        "hostIPs": [{"ip": facts.address}],
        "startTime": created,
        "containerStatuses": [container],
        "qosClass": "BestEffort",
    }
    if proxy.addresses:
        status["podIP"] = proxy.addresses[0]
        status["podIPs"] = [{"ip": address} for address in proxy.addresses]
    return status


def _container_state(proxy: Proxy) -> Document:
    state = proxy.state
    if state.pid is not None:
        return {"running": {"startedAt": proxy.started}}
    if state.phase is Phase.BACKING_OFF:
        seconds = f"back-off {state.retry_in:.1f}s: " if state.retry_in is not None else ""
        return {"waiting": {"reason": "CrashLoopBackOff", "message": f"{seconds}{state.reason}"}}
    return {"waiting": {"reason": "ContainerCreating", "message": state.reason}}


def _terminated(crash: Crash) -> Document:
    return {
        "exitCode": UNKNOWN_EXIT,
        "reason": "Error",
        "message": crash.message,
        "startedAt": crash.started or None,
        "finishedAt": crash.finished,
    }


def _condition(kind: str, holds: bool, since: str, reason: str = "") -> Mapping[str, Any]:
    found: Document = {"type": kind, "status": str(holds), "lastProbeTime": None, "lastTransitionTime": since}
    if reason:
        found |= {"reason": reason, "message": f"containers with unready status: [{CONTAINER}]"}
    return found


def _uid(*parts: str) -> str:
    return str(uuid.uuid5(_UIDS, "/".join(parts)))
