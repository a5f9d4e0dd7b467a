"""What can be said of an object by itself: versions that go, annotations in the wrong place."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from propylon import api
from propylon.api.kinds import by_kind

_FOR_WHAT_IS_MADE = (
    "service.beta.kubernetes.io/",
    "service.kubernetes.io/",
    "cloud.google.com/",
    "lbipam.cilium.io/",
    "io.cilium/lb-ipam",
    "metallb.io/",
    "metallb.universe.tf/",
    "networking.gke.io/",
)
"""Annotations that controllers read on Services. A Gateway's Service gets those of spec.infrastructure."""


class Doubt(NamedTuple):
    """Something about one field of an object."""

    code: str
    field: str
    message: str
    remedy: str


_ANNOTATIONS = {
    "external-dns.alpha.kubernetes.io/": "external-dns.kubernetes.io/",
    "metallb.universe.tf/": "metallb.io/",
}
"""Prefixes of annotations that have become others: those of ExternalDNS with v0.22, of MetalLB with v0.13."""
_ISSUERS = ("cert-manager.io/issuer", "cert-manager.io/cluster-issuer")


def manifest_doubts(ref: api.ObjectRef, document: Mapping[str, Any]) -> Iterator[Doubt]:
    """Look at one document as it is written."""
    yield from _version(ref, str(document.get("apiVersion", "")))
    yield from _old_annotations(document)
    yield from _old_fields(ref, document.get("spec"))
    if ref.group == "rbac.authorization.k8s.io" and ref.kind in {"Role", "ClusterRole"}:
        yield from _wrong_groups(document.get("rules"))
    if ref.kind == "Gateway" and ref.group == api.GATEWAY_GROUP:
        for name in sorted((document.get("metadata") or {}).get("annotations") or {}):
            if name.startswith(_FOR_WHAT_IS_MADE):
                yield Doubt(
                    "annotation_misplaced",
                    f"metadata.annotations[{name}]",
                    f"annotation {name} on a Gateway is not passed on to the Service that is made for it",
                    f"move it to spec.infrastructure.annotations[{name}]",
                )


def issued_secrets(
    documents: Iterable[tuple[api.ObjectRef, Mapping[str, Any]]],
) -> dict[api.ObjectKey, tuple[api.ObjectRef, str]]:
    """Secrets that cert-manager makes, and where that is said: in Certificates, annotated Gateways and ListenerSets
    (https://cert-manager.io/docs/usage/gateway/).
    """
    found = {}
    for ref, document in documents:
        spec = document.get("spec")
        if not isinstance(spec, Mapping):
            continue
        if ref.group == "cert-manager.io" and ref.kind == "Certificate":
            found[api.ObjectKey(ref.namespace, str(spec.get("secretName", "")))] = (ref, "spec.secretName")
        annotations = (document.get("metadata") or {}).get("annotations") or {}
        if ref.kind in {"Gateway", "ListenerSet"} and any(name in annotations for name in _ISSUERS):
            for index, listener in enumerate(_mappings(spec.get("listeners"))):
                for number, secret in enumerate(_mappings((listener.get("tls") or {}).get("certificateRefs"))):
                    if secret.get("namespace") in {None, ref.namespace}:  # cert-manager writes to no other one
                        field = f"spec.listeners[{index}].tls.certificateRefs[{number}]"
                        found.setdefault(api.ObjectKey(ref.namespace, str(secret.get("name", ""))), (ref, field))
    return found


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())


def _old_annotations(document: Mapping[str, Any]) -> Iterator[Doubt]:
    metadata, infrastructure = document.get("metadata"), (document.get("spec") or {})
    infrastructure = infrastructure.get("infrastructure") if isinstance(infrastructure, Mapping) else None
    for path, holder in (("metadata", metadata), ("spec.infrastructure", infrastructure)):
        annotations = holder.get("annotations") if isinstance(holder, Mapping) else None
        for name in sorted(annotations) if isinstance(annotations, Mapping) else ():
            for old, new in _ANNOTATIONS.items():
                if str(name).startswith(old):
                    now = new + str(name).removeprefix(old)
                    yield Doubt(
                        "field_deprecated",
                        f"{path}.annotations[{name}]",
                        f"annotation {name} is now called {now}",
                        f"write {now}",
                    )


def _wrong_groups(rules: Any) -> Iterator[Doubt]:
    """Resources of the Gateway API that a role names in another API group: it grants nothing on them."""
    groups = {info.plural: info.group for info in api.KINDS if info.group == api.GATEWAY_GROUP}
    for index, rule in enumerate(_mappings(rules)):
        named, resources = rule.get("apiGroups"), rule.get("resources")
        if not (isinstance(named, list) and isinstance(resources, list)) or "*" in named:
            continue
        for number, resource in enumerate(resources):
            group = groups.get(str(resource).partition("/")[0])
            if group is not None and group not in named:
                written = ", ".join(repr(str(each)) for each in named) or "none"
                yield Doubt(
                    "role_of_wrong_group",
                    f"rules[{index}].resources[{number}]",
                    f"there are no {resource} in the API groups of the rule ({written}): it grants nothing on them",
                    f"add {group} to apiGroups",
                )


def _old_fields(ref: api.ObjectRef, spec: Any) -> Iterator[Doubt]:
    """Fields that are accepted, and that later releases drop or have replaced."""
    if not isinstance(spec, Mapping):
        return
    if ref.group == api.GATEWAY_GROUP and ref.kind in {"HTTPRoute", "GRPCRoute"}:
        for index, rule in enumerate(_mappings(spec.get("rules"))):
            if "sessionPersistence" in rule:
                yield Doubt(
                    "field_deprecated",
                    f"spec.rules[{index}].sessionPersistence",
                    "sessionPersistence of a rule is deprecated since Gateway API v1.7.0 (GEP-4894)",
                    "move it to spec.sessionPersistence of an XBackend, and refer to that in backendRefs",
                )
    if ref.group == api.GATEWAY_GROUP and ref.kind == "Gateway":
        for index, address in enumerate(_mappings(spec.get("addresses"))):
            if address.get("type") == "NamedAddress":
                yield Doubt(
                    "field_deprecated",
                    f"spec.addresses[{index}].type",
                    "addresses of type NamedAddress are deprecated",
                    "write an IPAddress, or a type with the implementation's own prefix (example.com/name)",
                )
    if ref.kind == "CiliumLoadBalancerIPPool" and "cidrs" in spec:
        yield Doubt(
            "field_deprecated",
            "spec.cidrs",
            "cidrs of a CiliumLoadBalancerIPPool are now called blocks",
            "write blocks",
        )


def _version(ref: api.ObjectRef, written: str) -> Iterator[Doubt]:
    if ref.kind == "CiliumLoadBalancerIPPool" and written == "cilium.io/v2alpha1":
        yield Doubt("version_deprecated", "apiVersion", f"{ref.kind} has become v2", "write apiVersion: cilium.io/v2")
    info = by_kind(ref.group, ref.kind)
    group, _, version = written.rpartition("/")
    if info is None or group != api.GATEWAY_GROUP or version == "v1" or "v1" not in info.served_versions:
        return
    yield Doubt(
        "version_deprecated",
        "apiVersion",
        f"{ref.kind} has become v1; {version} is kept for old manifests only",
        f"write apiVersion: {group}/v1",
    )
