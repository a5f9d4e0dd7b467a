"""The columns users know: those that kubectl shows for Kubernetes' own kinds and for the official Gateway API CRDs.

Sources: the printer columns of the Gateway API v1.7.0 CRDs, and kubectl's printed output. What we add (who accepted a
route) has priority 1: `-o wide` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from propylon.server.events import to_core

Document = Mapping[str, Any]


class Column(NamedTuple):
    """One column: its header, the cell of an object, and 1 instead of 0 if only `-o wide` shows it."""

    name: str
    cell: Callable[[Document], Any]
    priority: int = 0
    type: str = "string"
    description: str = ""
    format: str = ""


def human_duration(seconds: float) -> str:
    """A duration as Kubernetes words it: 12s, 5m30s, 3h12m, 2d4h, 400d."""
    left = int(seconds)
    if left < -1:
        return "<invalid>"
    left = max(left, 0)
    minutes, hours, days = left // 60, left // 3600, left // 86400
    if left < 120:
        return f"{left}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{left % 60}s" if left % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y" + (f"{days % 365}d" if days % 365 else "")
    return f"{years}y"


def since(time: Any, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was; `<unknown>` without one."""
    if not isinstance(time, str) or not time:
        return "<unknown>"
    try:
        moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return "<unknown>"
    return human_duration(((now or datetime.now(UTC)) - moment).total_seconds())


def age(document: Document, now: datetime | None = None) -> str:
    """Time since the object was created."""
    return since(document.get("metadata", {}).get("creationTimestamp"), now)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _spec(document: Document) -> Mapping[str, Any]:
    return _map(document.get("spec"))


def _status(document: Document) -> Mapping[str, Any]:
    return _map(document.get("status"))


def _condition(kind: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        for condition in _list(_status(document).get("conditions")):
            if _map(condition).get("type") == kind:
                return str(condition.get("status", ""))
        return ""

    return cell


def _addresses(document: Document) -> str:
    return ",".join(str(_map(entry).get("value", "")) for entry in _list(_status(document).get("addresses")))


def _hostnames(document: Document) -> str:
    hostnames = _list(_spec(document).get("hostnames"))
    return json.dumps(hostnames, separators=(",", ":")) if hostnames else ""


def _accepted_by_parents(document: Document) -> str:
    return ",".join(
        str(_map(condition).get("status"))
        for parent in _list(_status(document).get("parents"))
        for condition in _list(_map(parent).get("conditions"))
        if _map(condition).get("type") == "Accepted"
    )


def _service_ports(document: Document) -> str:
    shown = []
    for port in map(_map, _list(_spec(document).get("ports"))):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or "<none>"


def _external_ip(document: Document) -> str:
    spec = _spec(document)
    given = [str(ip) for ip in _list(spec.get("externalIPs"))]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer":
        ingress = map(_map, _list(_map(_status(document).get("loadBalancer")).get("ingress")))
        given += [str(entry.get("ip") or entry.get("hostname") or "") for entry in ingress]
        return ",".join(given) or "<pending>"
    return ",".join(given) or "<none>"


def _selector(document: Document) -> str:
    selector = _map(_spec(document).get("selector"))
    return ",".join(f"{key}={selector[key]}" for key in sorted(selector)) or "<none>"


def _node_status(document: Document) -> str:
    ready = _condition("Ready")(document)
    text = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    return text + (",SchedulingDisabled" if _spec(document).get("unschedulable") else "")


def _node_roles(document: Document) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = _map(document.get("metadata", {}).get("labels"))
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or "<none>"


def _event_object(document: Document) -> str:
    about = _map(document.get("involvedObject"))
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(document: Document) -> str:
    last = document.get("lastTimestamp") or _map(document.get("series")).get("lastObservedTime")
    return since(last or document.get("eventTime") or document.get("firstTimestamp"))


def _slice_ports(document: Document) -> str:
    ports = [str(_map(port).get("port") or "*") for port in _list(document.get("ports"))]
    return _shortened(ports) if ports else "<unset>"


def _slice_endpoints(document: Document) -> str:
    addresses = [str(a) for entry in _list(document.get("endpoints")) for a in _list(_map(entry).get("addresses"))]
    return _shortened(addresses) if addresses else "<unset>"


def _shortened(values: list[str]) -> str:
    more = f" + {len(values) - 3} more..." if len(values) > 3 else ""
    return ",".join(values[:3]) + more


def _endpoints(document: Document) -> str:
    found = []
    for subset in map(_map, _list(document.get("subsets"))):
        for address in map(_map, _list(subset.get("addresses"))):
            found += [f"{address.get('ip')}:{_map(port).get('port')}" for port in _list(subset.get("ports"))]
    return _shortened(found) if found else "<none>"


def _ready_replicas(document: Document) -> str:
    return f"{_status(document).get('readyReplicas', 0)}/{_spec(document).get('replicas', 1)}"


def _count(*path: str) -> Callable[[Document], Any]:
    def cell(document: Document) -> Any:
        value: Any = document
        for name in path:
            value = _map(value).get(name)
        return value or 0

    return cell


def _text(*path: str, absent: str = "") -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        value: Any = document
        for name in path:
            value = _map(value).get(name)
        return absent if value is None or value == "" else str(value)

    return cell


def _pod_ready(document: Document) -> str:
    statuses = [_map(status) for status in _list(_status(document).get("containerStatuses"))]
    total = len(_list(_spec(document).get("containers")))
    return f"{sum(1 for status in statuses if status.get('ready'))}/{total}"


def _pod_restarts(document: Document) -> str:
    statuses = [_map(status) for status in _list(_status(document).get("containerStatuses"))]
    return str(sum(int(status.get("restartCount") or 0) for status in statuses))


def _ingress_hosts(document: Document) -> str:
    hosts = [str(_map(rule).get("host") or "*") for rule in _list(_spec(document).get("rules"))]
    return ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "") if hosts else "*"


def _ingress_address(document: Document) -> str:
    entries = map(_map, _list(_map(_status(document).get("loadBalancer")).get("ingress")))
    return ",".join(str(entry.get("ip") or entry.get("hostname") or "") for entry in entries)


def _subjects(*kinds: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        found = [subject for subject in map(_map, _list(document.get("subjects"))) if subject.get("kind") in kinds]
        places = [f"{subject['namespace']}/" if subject.get("namespace") else "" for subject in found]
        return ", ".join(f"{place}{subject.get('name', '')}" for place, subject in zip(places, found, strict=True))

    return cell


def _containers(field: str, *path: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        spec: Any = _spec(document)
        for name in path:
            spec = _map(_map(spec).get(name))
        return ",".join(str(_map(container).get(field, "")) for container in _list(spec.get("containers")))

    return cell


def _workload_selector(document: Document) -> str:
    labels = _map(_map(_spec(document).get("selector")).get("matchLabels"))
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or "<none>"


def _job_status(document: Document) -> str:
    for kind, shown in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if _condition(kind)(document) == "True":
            return shown
    return "Running"


def _job_completions(document: Document) -> str:
    return f"{_status(document).get('succeeded', 0)}/{_spec(document).get('completions', 1)}"


def _job_duration(document: Document) -> str:
    begun, ended = _status(document).get("startTime"), _status(document).get("completionTime")
    if not isinstance(begun, str):
        return ""
    return since(begun, datetime.fromisoformat(ended.replace("Z", "+00:00")) if isinstance(ended, str) else None)


def _last_schedule(document: Document) -> str:
    last = _status(document).get("lastScheduleTime")
    return since(last) if last else "<none>"


def _node_selector(document: Document) -> str:
    labels = _map(_map(_map(_spec(document).get("template")).get("spec")).get("nodeSelector"))
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or "<none>"


def _quota(kind: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        hard, used = _map(_status(document).get("hard")), _map(_status(document).get("used"))
        shown = [name for name in sorted(hard) if name.startswith("limits.") == (kind == "limits")]
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in shown)

    return cell


def _role_of_binding(document: Document) -> str:
    role = _map(document.get("roleRef"))
    return f"{role.get('kind', '')}/{role.get('name', '')}"


def _data_count(document: Document) -> int:
    return len(_map(document.get("data"))) + len(_map(document.get("binaryData")))


_AGE = Column("Age", age)
_CREATED_AT = Column("Created At", _text("metadata", "creationTimestamp"))
_ACCEPTED_BY_PARENTS = Column("Accepted", _accepted_by_parents, 1)
_HOSTNAMES = Column("Hostnames", _hostnames)

_TEMPLATE = (
    Column("Containers", _containers("name", "template", "spec"), 1),
    Column("Images", _containers("image", "template", "spec"), 1),
)
_BINDING = (
    Column("Role", _role_of_binding),
    _AGE,
    Column("Users", _subjects("User"), 1),
    Column("Groups", _subjects("Group"), 1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), 1),
)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "GatewayClass": (
        Column("Controller", _text("spec", "controllerName")),
        Column("Accepted", _condition("Accepted")),
        _AGE,
        Column("Description", _text("spec", "description"), 1),
    ),
    "Gateway": (
        Column("Class", _text("spec", "gatewayClassName")),
        Column("Address", _addresses),
        Column("Programmed", _condition("Programmed")),
        _AGE,
    ),
    "ListenerSet": (
        Column("Accepted", _condition("Accepted")),
        Column("Programmed", _condition("Programmed")),
        _AGE,
    ),
    "HTTPRoute": (_HOSTNAMES, _AGE, _ACCEPTED_BY_PARENTS),
    "GRPCRoute": (_HOSTNAMES, _AGE, _ACCEPTED_BY_PARENTS),
    "TLSRoute": (_AGE, Column("Hostnames", _hostnames, 1), _ACCEPTED_BY_PARENTS),
    "TCPRoute": (_AGE, _ACCEPTED_BY_PARENTS),
    "UDPRoute": (_AGE, _ACCEPTED_BY_PARENTS),
    "Namespace": (Column("Status", _text("status", "phase")), _AGE),
    "Service": (
        Column("Type", _text("spec", "type", absent="ClusterIP")),
        Column("Cluster-IP", _text("spec", "clusterIP", absent="<none>")),
        Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports),
        _AGE,
        Column("Selector", _selector, 1),
    ),
    "Secret": (
        Column("Type", _text("type", absent="Opaque")),
        Column("Data", lambda document: len(_map(document.get("data"))), type="integer"),
        _AGE,
    ),
    "ConfigMap": (Column("Data", _data_count, type="integer"), _AGE),
    "Node": (
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _text("status", "nodeInfo", "kubeletVersion")),
    ),
    "EndpointSlice": (
        Column("AddressType", _text("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        _AGE,
    ),
    "Endpoints": (Column("Endpoints", _endpoints), _AGE),
    "Lease": (Column("Holder", _text("spec", "holderIdentity")), _AGE),
    "ClusterTrustBundle": (Column("SignerName", _text("spec", "signerName", absent="<none>")),),
    "ServiceAccount": (_AGE,),
    "Pod": (
        Column("Ready", _pod_ready),
        Column("Status", _text("status", "phase", absent="Pending")),
        Column("Restarts", _pod_restarts),
        _AGE,
        Column("IP", _text("status", "podIP", absent="<none>"), 1),
        Column("Node", _text("spec", "nodeName", absent="<none>"), 1),
        Column("Nominated Node", _text("status", "nominatedNodeName", absent="<none>"), 1),
        Column("Readiness Gates", lambda _document: "<none>", 1),
    ),
    "Deployment": (
        Column("Ready", _ready_replicas),
        Column("Up-to-date", _count("status", "updatedReplicas"), type="integer"),
        Column("Available", _count("status", "availableReplicas"), type="integer"),
        _AGE,
        *_TEMPLATE,
        Column("Selector", _workload_selector, 1),
    ),
    "ReplicaSet": (
        Column("Desired", _count("spec", "replicas"), type="integer"),
        Column("Current", _count("status", "replicas"), type="integer"),
        Column("Ready", _count("status", "readyReplicas"), type="integer"),
        _AGE,
        *_TEMPLATE,
        Column("Selector", _workload_selector, 1),
    ),
    "StatefulSet": (Column("Ready", _ready_replicas), _AGE, *_TEMPLATE),
    "DaemonSet": (
        Column("Desired", _count("status", "desiredNumberScheduled"), type="integer"),
        Column("Current", _count("status", "currentNumberScheduled"), type="integer"),
        Column("Ready", _count("status", "numberReady"), type="integer"),
        Column("Up-to-date", _count("status", "updatedNumberScheduled"), type="integer"),
        Column("Available", _count("status", "numberAvailable"), type="integer"),
        Column("Node Selector", _node_selector),
        _AGE,
        *_TEMPLATE,
        Column("Selector", _workload_selector, 1),
    ),
    "Job": (
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        _AGE,
        *_TEMPLATE,
        Column("Selector", _workload_selector, 1),
    ),
    "CronJob": (
        Column("Schedule", _text("spec", "schedule")),
        Column("Timezone", _text("spec", "timeZone", absent="<none>")),
        Column("Suspend", lambda document: "True" if _spec(document).get("suspend") else "False"),
        Column("Active", lambda document: len(_list(_status(document).get("active"))), type="integer"),
        Column("Last Schedule", _last_schedule),
        _AGE,
        Column("Containers", _containers("name", "jobTemplate", "spec", "template", "spec"), 1),
        Column("Images", _containers("image", "jobTemplate", "spec", "template", "spec"), 1),
        Column("Selector", lambda _document: "<none>", 1),
    ),
    "PodDisruptionBudget": (
        Column("Min Available", _text("spec", "minAvailable", absent="N/A")),
        Column("Max Unavailable", _text("spec", "maxUnavailable", absent="N/A")),
        Column("Allowed Disruptions", _count("status", "disruptionsAllowed"), type="integer"),
        _AGE,
    ),
    "ResourceQuota": (Column("Request", _quota("requests")), Column("Limit", _quota("limits")), _AGE),
    "Ingress": (
        Column("Class", _text("spec", "ingressClassName", absent="<none>")),
        Column("Hosts", _ingress_hosts),
        Column("Address", _ingress_address),
        Column("Ports", lambda document: "80, 443" if _spec(document).get("tls") else "80"),
        _AGE,
    ),
    "IngressClass": (
        Column("Controller", _text("spec", "controller")),
        Column("Parameters", _text("spec", "parameters", "name", absent="<none>")),
        _AGE,
    ),
    "Role": (_CREATED_AT,),
    "ClusterRole": (_CREATED_AT,),
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "CustomResourceDefinition": (_CREATED_AT,),
}

_EVENT = (
    Column("Last Seen", _event_seen),
    Column("Type", _text("type")),
    Column("Reason", _text("reason")),
    Column("Object", _event_object),
    Column("Subobject", _text("involvedObject", "fieldPath"), 1),
    Column("Source", _text("source", "component"), 1),
    Column("Message", lambda document: _text("message")(document).strip()),
    Column("First Seen", lambda document: since(document.get("firstTimestamp")), 1),
    Column("Count", _count("count"), 1, "string"),
    Column("Name", _text("metadata", "name"), 1, format="name"),
)

NAME = Column("Name", _text("metadata", "name"), format="name", description="Name must be unique within a namespace.")


def _of_either_form(cell: Callable[[Document], Any]) -> Callable[[Document], Any]:
    """A cell of an Event of either group."""
    return lambda document: cell(to_core(document))


def columns_of(kind: str) -> tuple[Column, ...]:
    """The columns of a kind, its name among them; a name and an age for kinds of which nothing else is known."""
    if kind == "Event":
        return tuple(column._replace(cell=_of_either_form(column.cell)) for column in _EVENT)
    return (NAME, *COLUMNS.get(kind, (_AGE,)))
