"""What `propylon status` tells, as one JSON object (its schema stands in docs/reference/status.md)."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from propylon import api
from propylon.graph import Graph
from propylon.graph.model import Gateway, Listener, Route

Status = Mapping[str, Any]


class Problem(NamedTuple):
    """One thing that is wrong or doubtful, at the place where its author can mend it."""

    severity: str
    """error or warning."""
    file: str
    line: int
    column: int
    object: str
    """`HTTPRoute shop/cart`, or empty if the text never became an object."""
    field: str
    message: str
    remedy: str = ""

    def line_of_text(self) -> str:
        """One line for a terminal: place, object, field, message, remedy."""
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        parts = [p for p in (place, self.object, self.field, self.message) if p]
        return ": ".join(parts) + (f" ({self.remedy})" if self.remedy else "")

    def short(self) -> str:
        """Place, object, field and the beginning of the message: enough to recognise it by."""
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(p for p in (place, self.object, self.field, self.message.partition(": ")[0]) if p)

    def as_document(self) -> dict[str, Any]:
        """As it stands in `errors`."""
        return {**self._asdict(), "line": self.line or None, "column": self.column or None}


def condition(status: Status, kind: str) -> str | None:
    """The status of one condition type: "True", "False", "Unknown", or None if it is not there."""
    return next((str(c["status"]) for c in status.get("conditions", ()) if c["type"] == kind), None)


def build_report(
    graph: Graph,
    statuses: Mapping[api.ObjectRef, Status],
    problems: Iterable[Problem],
    notices: Iterable[str] = (),
) -> dict[str, Any]:
    """Assemble the report; deterministic order."""
    bound_ports = {(key.gateway, key.port): port.bound_port for key, port in graph.bound_ports.items()}
    return {
        "gateways": [
            _gateway(gateway, graph.merged_listeners(key), statuses, bound_ports)
            for key, gateway in graph.gateways.items()
        ],
        "routes": [_route(route, statuses) for _, route in graph.routes.items()],
        "errors": [p.as_document() for p in problems],
        "notices": list(notices),
    }


def _gateway(
    gateway: Gateway,
    merged: Iterable[Listener],
    statuses: Mapping[api.ObjectRef, Status],
    bound_ports: Mapping[tuple[api.ObjectKey, int], int],
) -> dict[str, Any]:
    status = statuses.get(api.ObjectRef(api.GATEWAY_GROUP, "Gateway", *gateway.key), {})
    listeners = []
    for listener in merged:
        holder = statuses.get(
            api.ObjectRef(api.GATEWAY_GROUP, listener.key.kind, listener.key.namespace, listener.key.name), {}
        )
        own: dict[str, Any] = next((s for s in holder.get("listeners", ()) if s["name"] == listener.key.section), {})
        foreign = listener.key.kind == "ListenerSet"
        listeners.append(
            {
                "name": listener.key.section,
                **({"listener_set": f"{listener.key.namespace}/{listener.key.name}"} if foreign else {}),
                "port": listener.port,
                "bound_port": bound_ports.get((gateway.key, listener.port)),
                "protocol": listener.protocol,
                "hostname": listener.hostname,
                "attached_routes": own.get("attachedRoutes", 0),
                "conditions": [
                    {k: c.get(k, "") for k in ("type", "status", "reason", "message")}
                    for c in own.get("conditions", ())
                ],
            }
        )
    return {
        "namespace": gateway.key.namespace,
        "name": gateway.key.name,
        "class": gateway.class_name,
        "accepted": condition(status, "Accepted") == "True",
        "programmed": condition(status, "Programmed") == "True",
        "addresses": [a.value for a in gateway.addresses],
        "listeners": listeners,
    }


def _route(route: Route, statuses: Mapping[api.ObjectRef, Status]) -> dict[str, Any]:
    parents = []
    for parent in statuses.get(route.ref, {}).get("parents", ()):
        ref = parent["parentRef"]
        parents.append(
            {
                "gateway": f"{ref.get('namespace') or route.ref.namespace}/{ref['name']}",
                "section": ref.get("sectionName"),
                "accepted": condition(parent, "Accepted") == "True",
                "resolved_refs": condition(parent, "ResolvedRefs") == "True",
                "reasons": [
                    f"{c['type']}={c['status']}: {c['reason']}: {c.get('message', '')}"
                    for c in parent["conditions"]
                    if (c["status"] == "False") == (c["type"] != "PartiallyInvalid")
                ],
            }
        )
    return {"kind": route.ref.kind, "namespace": route.ref.namespace, "name": route.ref.name, "parents": parents}
