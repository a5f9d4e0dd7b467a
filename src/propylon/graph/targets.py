"""Where backendRefs lead: kind, grant, existence, port and protocol, checked in this order."""

from propylon import api
from propylon.graph.backends import service_port_key
from propylon.graph.model import (
    ApplicationProtocol,
    Backend,
    BackendKey,
    BackendRef,
    ClusterKey,
    Filter,
    Finding,
    Value,
)
from propylon.graph.references import Grants, Referrer, granted, not_permitted
from propylon.graph.sources import Sources
from propylon.incremental import Collection, Look

DEFAULT_PROTOCOL: dict[str, ApplicationProtocol] = {
    "HTTPRoute": "HTTP",
    "GRPCRoute": "HTTP2",
    "TLSRoute": "TCP",
    "TCPRoute": "TCP",
    "UDPRoute": "UDP",
}


_KINDS = frozenset({("", "Service"), (api.EXPERIMENTAL_GROUP, "XBackend")})


class Resolver(Value, frozen=True):
    """Resolves references on behalf of one object, within one computation."""

    look: Look
    sources: Sources
    grants: Grants
    backends: Collection[BackendKey, Backend]
    referrer: Referrer
    speaks: str
    """The route kind whose protocol the backend has to speak."""

    def backend(
        self, ref: api.BackendObjectReference, field: str, weight: int = 1, filters: tuple[Filter, ...] = ()
    ) -> BackendRef:
        """Resolve a reference; where it leads nowhere, its finding says why and its share is kept."""
        backend = self._find(ref, field)
        if isinstance(backend, Finding):
            return BackendRef(weight, None, filters, backend)
        found = self._usable(backend, field)
        if isinstance(found, Finding):
            return BackendRef(weight, None, filters, found, backend.key)
        return BackendRef(weight, found, filters, None, backend.key)

    def _find(self, ref: api.BackendObjectReference, field: str) -> Backend | Finding:
        if (ref.group, ref.kind) not in _KINDS:
            kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
            message = f"backends of kind {kind} are not supported, only Service and XBackend"
            return Finding("ResolvedRefs", "InvalidKind", message, field)
        namespace = ref.namespace or self.referrer.namespace
        target = api.ObjectRef(ref.group, ref.kind, namespace, ref.name)
        if not granted(self.look, self.grants, self.referrer, target):
            return Finding("ResolvedRefs", "RefNotPermitted", not_permitted(self.referrer, target), field)
        key = target.key
        return self._service(key, ref.port, field) if ref.kind == "Service" else self._x_backend(key, field)

    def _usable(self, found: Backend, field: str) -> ClusterKey | Finding:
        if found.finding is not None:
            message = f"{_name(found)}: {found.finding.message}"
            reason = found.finding.reason
            condition = "ResolvedRefs" if reason == "UnsupportedProtocol" else "Warning"
            return Finding(condition, reason, message, field)
        protocol = spoken(self.speaks, found)
        if protocol is None:
            message = (
                f"{_name(found)} port {found.key.port} speaks {found.protocol}, "
                f"which a route of kind {self.speaks} cannot use"
            )
            return Finding("ResolvedRefs", "UnsupportedProtocol", message, field)
        return ClusterKey(found.key, protocol)

    def _service(self, target: api.ObjectKey, number: int | None, field: str) -> Backend | Finding:
        datagrams = self.speaks == "UDPRoute"
        if number is not None and not datagrams:
            # The port that a TCP speaker means has this key, if there is one: the Service need not be looked at.
            backend = self.look.get(self.backends, BackendKey("Service", target.namespace, target.name, number))
            if backend is not None:
                return backend
        service = self.look.get(self.sources.services, target)
        if service is None:
            message = f"Service {target} does not exist"
            return Finding("ResolvedRefs", "BackendNotFound", message, field)
        if number is None:
            message = f"a port is needed to refer to Service {target}: it has {_ports(service)}"
            return Finding("ResolvedRefs", "BackendNotFound", message, f"{field}.port")
        ports = [p for p in service.spec.ports if p.port == number]
        port = next((p for p in ports if (p.protocol == "UDP") == datagrams), ports[0] if ports else None)
        if port is None:
            message = f"Service {target} has no port {number}; it has {_ports(service)}"
            return Finding("ResolvedRefs", "BackendNotFound", message, f"{field}.port")
        backend = self.look.get(self.backends, service_port_key(service, port))
        if backend is None:
            return Finding("ResolvedRefs", "BackendNotFound", f"Service {target} does not exist", field)
        return backend

    def _x_backend(self, target: api.ObjectKey, field: str) -> Backend | Finding:
        x_backend = self.look.get(self.sources.x_backends, target)
        number = None if x_backend is None else x_backend.spec.port.number or 0
        backend = (
            None
            if number is None
            else self.look.get(self.backends, BackendKey("XBackend", target.namespace, target.name, number))
        )
        if backend is None:
            return Finding("ResolvedRefs", "BackendNotFound", f"XBackend {target} does not exist", field)
        return backend


def _name(backend: Backend) -> str:
    return f"{backend.key.kind} {backend.key.namespace}/{backend.key.name}"


def spoken(route_kind: str, backend: Backend) -> ApplicationProtocol | None:
    """Return how a route of this kind speaks to the backend; None if it cannot."""
    wanted = DEFAULT_PROTOCOL[route_kind]
    if (wanted == "UDP") != (backend.protocol == "UDP"):
        return None
    if wanted in {"TCP", "UDP"}:
        return wanted
    if backend.protocol == "TCP":
        return None
    if wanted == "HTTP2":
        return wanted
    return backend.protocol or wanted


def _ports(service: api.Service) -> str:
    ports = [f"{p.port} ({p.name})" if p.name else str(p.port) for p in service.spec.ports]
    return ", ".join(ports) or "none"
