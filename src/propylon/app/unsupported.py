"""Objects that are stored and have no effect yet: their owners are told, instead of left to wonder.

Certificates, DNS records and load-balancer pools belong to companions that are not there yet.
"""

from collections.abc import Mapping
from typing import Any

from propylon import api
from propylon.graph.model import Finding

_CERTIFICATES = "certificates are not issued yet: create the Secret yourself, or have --dev-certs issue it"
_DNS = "DNS records are not written yet"
_POOLS = "address pools are not supported yet: every Gateway gets a loopback address, or the spec.addresses it asks for"

_GROUPS: Mapping[str, str] = {
    "cert-manager.io": _CERTIFICATES,
    "acme.cert-manager.io": _CERTIFICATES,
    "externaldns.k8s.io": _DNS,
    "metallb.io": _POOLS,
}
_KINDS: Mapping[tuple[str, str], str] = {
    ("cilium.io", "CiliumLoadBalancerIPPool"): _POOLS,
    ("cilium.io", "CiliumL2AnnouncementPolicy"): "addresses are not announced yet",
    ("kyverno.io", "ClusterPolicy"): "policies that change generated objects have no effect: use "
    "spec.infrastructure.annotations of the Gateway instead",
    ("bitnami.com", "SealedSecret"): "nothing here can unseal it: apply the Secret itself",
    ("gateway.networking.x-k8s.io", "XMesh"): "meshes are not supported",
    ("gateway.networking.x-k8s.io", "XTelemetryPolicy"): "telemetry policies are not supported yet",
    ("gateway.networking.x-k8s.io", "XBackendTrafficPolicy"): "backend traffic policies are not supported yet",
}
_ANNOTATIONS: Mapping[str, str] = {
    "cert-manager.io/": _CERTIFICATES,
    "acme.cert-manager.io/": _CERTIFICATES,
    "external-dns.alpha.kubernetes.io/": _DNS,
    "external-dns.kubernetes.io/": _DNS,
    "lbipam.cilium.io/": _POOLS,
    "io.cilium/lb-ipam": _POOLS,
    "metallb.io/": _POOLS,
    "metallb.universe.tf/": _POOLS,
}
_SPEAKING_KINDS = frozenset(
    {"Gateway", "ListenerSet", "Service", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"}
)


def without_effect(ref: api.ObjectRef, document: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What an object asks for and nobody does yet, as warnings; empty for almost every object."""
    infrastructure = (document.get("spec") or {}).get("infrastructure") if ref.kind == "Gateway" else None
    return _without_effect(
        ref,
        (document.get("metadata") or {}).get("annotations") or {},
        (infrastructure or {}).get("annotations") or {},
    )


def decoded_without_effect(ref: api.ObjectRef, decoded: Any) -> tuple[Finding, ...]:
    """The same of a decoded object, or of None: one of a kind that nobody interprets."""
    if decoded is None:
        return _without_effect(ref, {}, {})
    infrastructure = decoded.spec.infrastructure if isinstance(decoded, api.Gateway) else None
    annotations = infrastructure.annotations if infrastructure is not None else {}
    return _without_effect(ref, decoded.metadata.annotations, annotations)


def _without_effect(
    ref: api.ObjectRef, annotations: Mapping[str, Any], infrastructure: Mapping[str, Any]
) -> tuple[Finding, ...]:
    reason = _GROUPS.get(ref.group) or _KINDS.get((ref.group, ref.kind))
    if reason is not None:
        return (_finding(f"{ref.kind} is stored and has no effect: {reason}", ""),)
    if ref.kind not in _SPEAKING_KINDS or not (annotations or infrastructure):
        return ()
    found = _of_annotations(annotations, "metadata.annotations")
    return (*found, *_of_annotations(infrastructure, "spec.infrastructure.annotations"))


def _of_annotations(annotations: Mapping[str, Any], field: str) -> tuple[Finding, ...]:
    """One finding per reason, naming the first annotation that gives it."""
    found: dict[str, Finding] = {}
    for name in sorted(annotations):
        reason = next((reason for prefix, reason in _ANNOTATIONS.items() if name.startswith(prefix)), None)
        if reason is not None and reason not in found:
            found[reason] = _finding(f"annotation {name} has no effect: {reason}", f"{field}[{name}]")
    return tuple(found.values())


def _finding(message: str, field: str) -> Finding:
    return Finding("Warning", "NotSupportedYet", message, field)
