"""The columns of `propylon get`: those that kubectl shows for the same kinds."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Document = Mapping[str, Any]
Column = tuple[str, Callable[[Document], object]]


def _condition(document: Document, kind: str) -> str:
    for condition in document.get("status", {}).get("conditions", ()):
        if condition.get("type") == kind:
            return str(condition.get("status", ""))
    return ""


def _addresses(document: Document) -> str:
    return ",".join(str(a.get("value", "")) for a in document.get("status", {}).get("addresses", ()))


def _hostnames(document: Document) -> str:
    hostnames = document.get("spec", {}).get("hostnames", ())
    return str(list(hostnames)).replace("'", '"').replace(" ", "") if hostnames else ""


def _ports(document: Document) -> str:
    return ",".join(f"{p.get('port')}/{p.get('protocol', 'TCP')}" for p in document.get("spec", {}).get("ports", ()))


def age(document: Document, now: datetime | None = None) -> str:
    """Time since creation, the way kubectl words it: 12s, 5m, 3h, 2d."""
    created = document.get("metadata", {}).get("creationTimestamp")
    if not created:
        return ""
    moment = datetime.fromisoformat(str(created).replace("Z", "+00:00"))
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


_PARENTS: Column = (
    "ACCEPTED",
    lambda d: ",".join(
        str(c.get("status"))
        for p in d.get("status", {}).get("parents", ())
        for c in p.get("conditions", ())
        if c.get("type") == "Accepted"
    ),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "GatewayClass": (
        ("CONTROLLER", lambda d: d.get("spec", {}).get("controllerName", "")),
        ("ACCEPTED", lambda d: _condition(d, "Accepted")),
    ),
    "Gateway": (
        ("CLASS", lambda d: d.get("spec", {}).get("gatewayClassName", "")),
        ("ADDRESS", _addresses),
        ("PROGRAMMED", lambda d: _condition(d, "Programmed")),
    ),
    "ListenerSet": (
        ("ACCEPTED", lambda d: _condition(d, "Accepted")),
        ("PROGRAMMED", lambda d: _condition(d, "Programmed")),
    ),
    "HTTPRoute": (("HOSTNAMES", _hostnames), _PARENTS),
    "GRPCRoute": (("HOSTNAMES", _hostnames), _PARENTS),
    "TLSRoute": (("HOSTNAMES", _hostnames), _PARENTS),
    "TCPRoute": (_PARENTS,),
    "UDPRoute": (_PARENTS,),
    "Service": (
        ("TYPE", lambda d: d.get("spec", {}).get("type", "ClusterIP")),
        ("CLUSTER-IP", lambda d: d.get("spec", {}).get("clusterIP", "")),
        ("PORT(S)", _ports),
    ),
    "Secret": (
        ("TYPE", lambda d: d.get("type", "Opaque")),
        ("DATA", lambda d: len(d.get("data", {}))),
    ),
    "ConfigMap": (("DATA", lambda d: len(d.get("data", {}))),),
}


def columns(kind: str, *, namespaces: bool) -> tuple[Column, ...]:
    """Columns for one kind; NAMESPACE first if objects of several namespaces are listed."""
    first: tuple[Column, ...] = (
        (("NAMESPACE", lambda d: d.get("metadata", {}).get("namespace", "")),) if namespaces else ()
    )
    name: Column = ("NAME", lambda d: d.get("metadata", {}).get("name", ""))
    return (*first, name, *COLUMNS.get(kind, ()), ("AGE", age))
