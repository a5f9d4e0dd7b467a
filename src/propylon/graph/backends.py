"""Backends: every port of every Service and XBackend, how it is spoken to, or why it cannot be."""

from typing import NamedTuple

import msgspec

from propylon import api
from propylon.graph.model import ApplicationProtocol, Backend, BackendKey, BackendTls, Endpoint, Finding, SecretKey
from propylon.graph.policies import Policies, Target, authorities_of, backend_tls, validation_key
from propylon.graph.references import Grants, Referrer
from propylon.graph.sources import Sources
from propylon.graph.tls import resolve_certificate
from propylon.incremental import Collection, Engine, Index, Look
from propylon.incremental.union import Union

APPLICATION_PROTOCOLS: dict[str, ApplicationProtocol] = {
    "kubernetes.io/h2c": "HTTP2",
    "kubernetes.io/ws": "HTTP",
    "kubernetes.io/wss": "HTTP",
    "http": "HTTP",
    "https": "HTTP",
    "http2": "HTTP2",
    "h2": "HTTP2",
    "h2c": "HTTP2",
    "grpc": "HTTP2",
}
"""Service appProtocol (KEP-3726 and what is written by habit); others leave the choice to the route."""

X_PROTOCOLS: dict[str, ApplicationProtocol] = {
    "HTTP": "HTTP",
    "HTTP11": "HTTP",
    "HTTP2": "HTTP2",
    "H2C": "HTTP2",
    "GRPC": "HTTP2",
    "TCP": "TCP",
    "WSS": "HTTP",
}

SlicesOf = Index[api.ObjectKey, api.ObjectKey, api.EndpointSlice]
Overrides = Index[tuple[str, str, str], BackendKey, tuple[Endpoint, ...]]
"""Endpoints given from outside, by the object that they are for: all of its ports together, as most have none."""


class Backends(NamedTuple):
    """The collections about backends."""

    backends: Collection[BackendKey, Backend]
    authorities: Collection[SecretKey, bytes]
    """CA certificates of XBackends."""
    slices: SlicesOf
    overrides: Overrides


def service_port_key(service: api.Service, port: api.ServicePort) -> BackendKey:
    """Name a Service's port. Only a UDP port that shares its number with a TCP port needs a kind of its own."""
    twin = port.protocol == "UDP" and any(p.port == port.port and p.protocol != "UDP" for p in service.spec.ports)
    metadata = service.metadata
    return BackendKey("Service/UDP" if twin else "Service", metadata.namespace, metadata.name, port.port)


def service_port(service: api.Service, key: BackendKey) -> api.ServicePort | None:
    """Find the port a key stands for."""
    for port in service.spec.ports:
        if port.port == key.port and service_port_key(service, port) == key:
            return port
    return None


def override_of(look: Look, overrides: Overrides, key: BackendKey) -> tuple[Endpoint, ...] | None:
    """Return the endpoints that were given from outside for this port, or else for all ports."""
    kind = key.kind.partition("/")[0]
    given = look.by(overrides, (kind, key.namespace, key.name))
    if not given:
        return None
    by_key = dict(given)
    candidates = (key, *(BackendKey(kind, key.namespace, key.name, port) for port in (key.port, 0)))
    return next((by_key[each] for each in candidates if each in by_key), None)


def overridden(look: Look, overrides: Overrides, key: BackendKey) -> bool:
    """Tell whether endpoints were given from outside for this port or for all ports."""
    return override_of(look, overrides, key) is not None


def build_backends(
    engine: Engine, sources: Sources, grants: Grants, policies: Policies, cluster_domain: str
) -> Backends:
    """Derive backends from Services, XBackends and BackendTLSPolicies."""
    slices: SlicesOf = sources.endpoint_slices.index("slices by service", slice_service)
    overrides: Overrides = sources.endpoint_overrides.index(
        "endpoint overrides by backend", lambda key, _: ((key.kind.partition("/")[0], key.namespace, key.name),)
    )
    named: SlicesOf = sources.endpoint_slices.index(
        "slices of DNS names by service", lambda key, s: slice_service(key, s) if s.address_type == "FQDN" else ()
    )

    def of_service(key: api.ObjectKey, service: api.Service, look: Look) -> dict[BackendKey, Backend]:
        return {
            backend_key: _service_backend(look, overrides, policies, named, key, service, port, backend_key)
            for port in service.spec.ports
            for backend_key in (service_port_key(service, port),)
        }

    def of_x_backend(key: api.ObjectKey, x_backend: api.XBackend, look: Look) -> dict[BackendKey, Backend]:
        backend = _x_backend(look, sources, overrides, grants, key, x_backend, cluster_domain)
        return {backend.key: backend}

    def authorities(key: api.ObjectKey, x_backend: api.XBackend, look: Look) -> dict[SecretKey, bytes]:
        tls = x_backend.spec.tls
        if tls.mode == "None" or tls.validation is None:
            return {}
        found = authorities_of(look, sources, grants, "XBackend", key, tls.validation)
        return {validation_key("XBackend", key): found.pem} if found.valid else {}

    backends: Collection[BackendKey, Backend] = Union(
        engine,
        "backends",
        engine.flat_derive("backends of services", sources.services, of_service),
        engine.flat_derive("backends of XBackends", sources.x_backends, of_x_backend),
    )
    return Backends(
        backends, engine.flat_derive("XBackend authorities", sources.x_backends, authorities), slices, overrides
    )


def slice_service(key: api.ObjectKey, endpoint_slice: api.EndpointSlice) -> tuple[api.ObjectKey, ...]:
    """Return the Service a slice belongs to, if any."""
    name = endpoint_slice.service_name
    return (api.ObjectKey(key.namespace, name),) if name else ()


def _service_backend(
    look: Look,
    overrides: Overrides,
    policies: Policies,
    named: SlicesOf,
    service_key: api.ObjectKey,
    service: api.Service,
    port: api.ServicePort,
    key: BackendKey,
) -> Backend:
    named_protocol = (port.app_protocol or "").lower()
    protocol: ApplicationProtocol | None = (
        "UDP" if port.protocol == "UDP" else APPLICATION_PROTOCOLS.get(named_protocol)
    )
    tls, finding = _policy_for(look, policies, service_key, port)
    if port.protocol == "SCTP":
        finding = Finding("ResolvedRefs", "UnsupportedProtocol", f"SCTP port {key.port} of {_of(key)} is not supported")
    dns_name = "" if overridden(look, overrides, key) else _dns_name(look, named, service_key, service)
    return Backend(
        key,
        protocol,
        "DNS" if dns_name else "EDS",
        dns_name,
        tls,
        named_protocol not in {"kubernetes.io/h2c", "grpc", "h2c", "h2", "http2"},
        finding,
    )


def _dns_name(look: Look, named: SlicesOf, key: api.ObjectKey, service: api.Service) -> str:
    if service.spec.type == "ExternalName":
        return (service.spec.external_name or "").rstrip(".").lower()
    for _, endpoint_slice in look.by(named, key):
        for endpoint in endpoint_slice.endpoints:
            if endpoint.addresses and endpoint.conditions.ready is not False:
                return endpoint.addresses[0]
    return ""


def _policy_for(
    look: Look, policies: Policies, key: api.ObjectKey, port: api.ServicePort
) -> tuple[BackendTls | None, Finding | None]:
    """Find the policy that counts for a port: one for this very port before one for the whole Service."""
    of_service = look.by(policies.by_service, key)
    if not of_service:
        return None, None
    namespace, name = key
    for section in dict.fromkeys((port.name, "")):
        target = Target(namespace, name, section)
        claims = [claim for _, claim in of_service if target in claim.targets]
        if not claims:
            continue
        policy = min(claims)[1]
        verdict = look.get(policies.verdicts, policy)
        if verdict is None:
            return None, None
        bad = next((f for f in verdict.findings if f.condition == "Accepted" and f.reason != "Conflicted"), None)
        if bad is not None:
            message = f"BackendTLSPolicy {policy} for Service {namespace}/{name} cannot be met: {bad.message}"
            return verdict.tls, Finding("Warning", bad.reason, message)
        return verdict.tls, None
    return None, None


def _x_backend(
    look: Look,
    sources: Sources,
    overrides: Overrides,
    grants: Grants,
    key: api.ObjectKey,
    x_backend: api.XBackend,
    cluster_domain: str,
) -> Backend:
    spec = x_backend.spec
    backend_key = BackendKey("XBackend", key.namespace, key.name, spec.port.number or 0)
    finding: Finding | None = None
    dns_name = ""
    if spec.type == "ExternalHostname" and spec.external_hostname is not None:
        if not overridden(look, overrides, backend_key):
            dns_name = spec.external_hostname.hostname.lower()
        if f".{dns_name}".endswith(f".{cluster_domain}"):
            # XBackend's own rule: what is inside of the cluster is not reached around its Services.
            message = f"{dns_name} is a name of the cluster itself: refer to the Service"
            finding = Finding("Accepted", "UnsupportedValue", message, "spec.externalHostname.hostname")
    elif spec.type != "EndpointSelector":
        finding = Finding("Accepted", "UnsupportedValue", f"type {spec.type!r} is not supported", "spec.type")
    elif not overridden(look, overrides, backend_key):
        finding = Finding(
            "Accepted",
            "UnsupportedValue",
            "selecting pods is not supported yet: give it endpoints with --backend, or use a Service",
            "spec.type",
        )
    protocol = X_PROTOCOLS.get(spec.protocol or "")
    if spec.protocol and protocol is None:
        message = f"protocol {spec.protocol!r} is not supported"
        finding = finding or Finding("Accepted", "UnsupportedProtocol", message, "spec.protocol")
    tls, tls_finding = _x_tls(look, sources, grants, key, spec.tls)
    return Backend(
        backend_key, protocol, "DNS" if dns_name else "EDS", dns_name, tls, protocol != "HTTP2", finding or tls_finding
    )


def _x_tls(
    look: Look, sources: Sources, grants: Grants, key: api.ObjectKey, tls: api.BackendTLS
) -> tuple[BackendTls | None, Finding | None]:
    if tls.mode == "None":
        return None, None
    if tls.validation is None:
        message = f"TLS mode {tls.mode} needs tls.validation"
        return None, Finding("Accepted", "Invalid", message, "spec.tls.validation")
    result, findings = backend_tls(look, sources, grants, "XBackend", key, tls.validation)
    bad = next((f for f in findings if f.condition == "Accepted"), None)
    client: SecretKey | None = None
    if tls.mode == "ClientAndServer" and tls.client_certificate_ref is not None:
        referrer = Referrer(api.EXPERIMENTAL_GROUP, "XBackend", key.namespace)
        ref = tls.client_certificate_ref
        found = resolve_certificate(look, sources, grants, referrer, ref, "InvalidClientCertificateRef")
        client = found.key
        if client is None and bad is None:
            bad = Finding("Accepted", found.reason, found.message, "spec.tls.clientCertificateRef")
    origin = api.ObjectRef(api.EXPERIMENTAL_GROUP, "XBackend", *key)
    return msgspec.structs.replace(result, client_certificate=client, origin=origin), bad


def _of(key: BackendKey) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
