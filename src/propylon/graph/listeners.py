"""One listener by itself: protocol, route kinds, certificates, client validation, filters. Conflicts come later."""

from typing import Literal, NamedTuple

import msgspec

from propylon import api
from propylon.graph.filters import build_external_auth
from propylon.graph.model import ClientValidation, ExternalAuth, Finding, Listener, ListenerKey, ListenerTls, SecretKey
from propylon.graph.references import Grants, Referrer
from propylon.graph.sources import Sources
from propylon.graph.targets import Resolver
from propylon.graph.tls import asks_cert_manager, resolve_authorities, resolve_certificate
from propylon.incremental import Collection, Engine, Look

KINDS_BY_PROTOCOL: dict[str, tuple[str, ...]] = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}


class Frontend(msgspec.Struct, frozen=True):
    """What is asked of clients on a port (or on all others), and what is wrong with it."""

    validation: ClientValidation | None
    """None if nothing is asked, or if no CA certificate is usable (then there is a finding Accepted)."""
    findings: tuple[Finding, ...] = ()


class GatewayTls(msgspec.Struct, frozen=True):
    """The Gateway-wide TLS settings, resolved."""

    default: Frontend
    per_port: dict[int, Frontend]
    client_certificate: SecretKey | None
    findings: tuple[Finding, ...]
    """About the Gateway itself."""

    def on(self, port: int) -> Frontend:
        """Return what is asked of clients on a port."""
        return self.per_port.get(port, self.default)


def frontend_key(gateway: api.ObjectKey, port: int | None) -> SecretKey:
    """Name the CA certificates for the clients of a Gateway, on one port or on all others."""
    return SecretKey("validation", gateway.namespace, f"gateway/{gateway.name}/{port or 'default'}")


def build_gateway_tls(
    engine: Engine, sources: Sources, grants: Grants
) -> tuple[Collection[api.ObjectKey, GatewayTls], Collection[SecretKey, bytes]]:
    """Resolve spec.tls of every Gateway (GEP-91, GEP-3155): settings, and CA certificates by key."""

    def configs(gateway: api.Gateway) -> list[tuple[int | None, api.FrontendTLSValidation | None, str]]:
        tls = gateway.spec.tls
        if tls is None or tls.frontend is None:
            return []
        frontend = tls.frontend
        return [
            (None, frontend.default.validation, "spec.tls.frontend.default.validation"),
            *(
                (c.port, c.tls.validation, f"spec.tls.frontend.perPort[{i}].tls.validation")
                for i, c in enumerate(frontend.per_port)
            ),
        ]

    def authorities(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> dict[SecretKey, bytes]:
        referrer = Referrer(api.GATEWAY_GROUP, "Gateway", key.namespace)
        pems = {}
        for port, validation, field in configs(gateway):
            if validation is not None:
                refs = validation.ca_certificate_refs
                found = resolve_authorities(look, sources, grants, referrer, refs, "InvalidCACertificateKind", field)
                if found.valid:
                    pems[frontend_key(key, port)] = found.pem
        return pems

    def resolve(key: api.ObjectKey, gateway: api.Gateway, look: Look) -> GatewayTls | None:
        tls = gateway.spec.tls
        if tls is None:
            return None
        referrer = Referrer(api.GATEWAY_GROUP, "Gateway", key.namespace)
        frontends: dict[int | None, Frontend] = {}
        findings: list[Finding] = []
        for port, validation, field in configs(gateway):
            frontends[port] = _frontend(look, sources, grants, referrer, frontend_key(key, port), validation, field)
            if validation is not None and validation.mode == "AllowInsecureFallback":
                message = "clients are let in without a valid certificate (AllowInsecureFallback)"
                insecure = Finding(
                    "InsecureFrontendValidationMode", "ConfigurationChanged", message, f"{field}.mode", "True"
                )
                findings.append(insecure)
        client: SecretKey | None = None
        if tls.backend is not None and tls.backend.client_certificate_ref is not None:
            ref = tls.backend.client_certificate_ref
            found = resolve_certificate(look, sources, grants, referrer, ref, "InvalidClientCertificateRef")
            client = found.key
            if client is None:
                field = "spec.tls.backend.clientCertificateRef"
                findings.append(Finding("ResolvedRefs", found.reason, found.message, field))
        default = frontends.pop(None, Frontend(None))
        per_port = {port: frontend for port, frontend in frontends.items() if port is not None}
        return GatewayTls(default, per_port, client, tuple(findings))

    return (
        engine.derive("gateway TLS", sources.gateways, resolve),
        engine.flat_derive("frontend authorities", sources.gateways, authorities),
    )


def _frontend(
    look: Look,
    sources: Sources,
    grants: Grants,
    referrer: Referrer,
    key: SecretKey,
    validation: api.FrontendTLSValidation | None,
    field: str,
) -> Frontend:
    if validation is None:
        return Frontend(None)
    refs = validation.ca_certificate_refs
    reason = "InvalidCACertificateKind"
    found = resolve_authorities(look, sources, grants, referrer, refs, reason, f"{field}.caCertificateRefs")
    if found.valid:
        return Frontend(ClientValidation(key, validation.mode != "AllowInsecureFallback"), found.findings)
    why = "; ".join(f.message for f in found.findings)
    message = f"clients cannot be validated, no CA certificate is usable: {why}"
    return Frontend(None, (*found.findings, Finding("Accepted", "NoValidCACertificate", message, field)))


class Holder(NamedTuple):
    """The object that holds a listener, and the Gateway it belongs to."""

    gateway: api.ObjectKey
    kind: Literal["Gateway", "ListenerSet"]
    key: api.ObjectKey
    annotations: dict[str, str]


def build_listener(
    resolver: Resolver, holder: Holder, index: int, spec: api.Listener | api.ListenerEntry, tls: GatewayTls | None
) -> Listener:
    """Judge one listener by itself."""
    field = f"spec.listeners[{index}]"
    key = ListenerKey(holder.gateway, holder.kind, holder.key.namespace, holder.key.name, spec.name)
    findings: list[Finding] = []
    if spec.protocol not in KINDS_BY_PROTOCOL:
        known = ", ".join(KINDS_BY_PROTOCOL)
        message = f"protocol {spec.protocol!r} is not supported; supported are {known}"
        findings.append(Finding("Accepted", "UnsupportedProtocol", message, f"{field}.protocol"))
    supported, kind_finding = supported_kinds(spec.protocol, spec.allowed_routes.kinds, field)
    if kind_finding is not None:
        findings.append(kind_finding)
    listener_tls: ListenerTls | None = None
    if spec.protocol in {"HTTPS", "TLS"}:
        listener_tls, tls_findings = _tls(resolver, holder, spec, field, tls)
        findings.extend(tls_findings)
    filters: list[ExternalAuth] = []
    if spec.filters is not None and spec.protocol in {"HTTP", "HTTPS"}:
        filters, filter_findings = _filters(resolver, spec.filters, f"{field}.filters.requests")
        findings.extend(filter_findings)
    hostname = "" if spec.protocol in {"TCP", "UDP"} else (spec.hostname or "").lower()
    return Listener(
        key=key,
        index=index,
        port=spec.port,
        protocol=spec.protocol,
        hostname=hostname,
        tls=listener_tls,
        supported_kinds=supported,
        allowed_routes=spec.allowed_routes,
        filters=tuple(filters),
        findings=tuple(findings),
    )


def supported_kinds(
    protocol: str, wanted: tuple[api.RouteGroupKind, ...], field: str
) -> tuple[tuple[api.RouteGroupKind, ...], Finding | None]:
    """Return the route kinds a listener takes, and a finding if it asks for others."""
    natural = tuple(api.RouteGroupKind(kind) for kind in KINDS_BY_PROTOCOL.get(protocol, ()))
    if not wanted:
        return natural, None
    bad = [kind for kind in wanted if kind not in natural]
    good = tuple(dict.fromkeys((k.kind, k.group) for k in wanted if k in natural))
    supported = tuple(api.RouteGroupKind(kind, group) for kind, group in good)
    if not bad:
        return supported, None
    names = ", ".join(f"{kind.kind}.{kind.group}" for kind in bad)
    can = " and ".join(kind.kind for kind in natural) or "nothing"
    message = f"routes of kind {names} cannot attach to a {protocol} listener, which takes {can}"
    return supported, Finding("ResolvedRefs", "InvalidRouteKinds", message, f"{field}.allowedRoutes.kinds")


def _tls(
    resolver: Resolver, holder: Holder, spec: api.Listener | api.ListenerEntry, field: str, tls: GatewayTls | None
) -> tuple[ListenerTls | None, list[Finding]]:
    config = spec.tls or api.ListenerTLSConfig()
    where = f"{field}.tls"
    if config.mode == "Passthrough":
        if spec.protocol == "HTTPS":
            message = "an HTTPS listener cannot pass TLS through: use protocol TLS with a TLSRoute"
            return None, [Finding("Accepted", "UnsupportedValue", message, f"{where}.mode")]
        return ListenerTls("Passthrough", options=config.options), []
    findings: list[Finding] = []
    certificates: list[SecretKey] = []
    if not config.certificate_refs:
        message = f"a listener that terminates TLS needs a certificate: name a Secret in {where}.certificateRefs"
        findings.append(Finding("ResolvedRefs", "InvalidCertificateRef", message, f"{where}.certificateRefs"))
    for index, ref in enumerate(config.certificate_refs):
        found = resolve_certificate(
            resolver.look, resolver.sources, resolver.grants, resolver.referrer, ref, "InvalidCertificateRef"
        )
        if found.key is not None:
            certificates.append(found.key)
            continue
        message = found.message
        if message.endswith("does not exist") and asks_cert_manager(holder.annotations):
            message += (
                ", and certificates by cert-manager annotation are not supported yet: create it, or use --dev-certs"
            )
        findings.append(Finding("ResolvedRefs", found.reason, message, f"{where}.certificateRefs[{index}]"))
    frontend = tls.on(spec.port) if tls is not None and spec.protocol == "HTTPS" else Frontend(None)
    findings.extend(frontend.findings)
    unique = tuple(dict.fromkeys(certificates))
    return ListenerTls("Terminate", unique, frontend.validation, config.options), findings


def _filters(resolver: Resolver, filters: api.ListenerFilters, field: str) -> tuple[list[ExternalAuth], list[Finding]]:
    result: list[ExternalAuth] = []
    findings: list[Finding] = []
    for index, item in enumerate(filters.requests):
        where = f"{field}[{index}]"
        if item.type == "ExternalAuth" and item.external_auth is not None:
            built = build_external_auth(resolver, item.external_auth, f"{where}.externalAuth")
            result.append(built)
            bad = built.backend.finding
            if bad is not None:
                reason = bad.reason if bad.reason == "RefNotPermitted" else "InvalidListenerFilterRef"
                message = f"filters.requests[{index}]: {bad.message}"
                findings.append(Finding("ResolvedRefs", reason, message, bad.field))
            continue
        message = f"filters.requests[{index}]: filter {item.type} is not supported, only ExternalAuth"
        findings.append(Finding("Accepted", "UnsupportedValue", message, where))
        if item.extension_ref is not None:
            ref = item.extension_ref
            message = f"filters.requests[{index}]: extensions of kind {ref.kind}.{ref.group} are not known"
            findings.append(Finding("ResolvedRefs", "InvalidListenerFilterRef", message, f"{where}.extensionRef"))
    return result, findings
