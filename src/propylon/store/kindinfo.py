"""What the store must know of a kind: its scope, whether status is a subresource, and which of its lists have keyed
entries.

Kinds that are interpreted come from the one table in `api`. For those that are only kept, the table below names the
cluster-scoped ones users of the Gateway API meet; any other unknown kind is taken to live in a namespace.
"""

from __future__ import annotations

from functools import lru_cache

from propylon.api.introspect import ItemsSpec, MapSpec, ScalarSpec, StructSpec, TypeSpec, struct_spec
from propylon.api.kinds import KindInfo, by_kind
from propylon.store.merge import ListKeys, Path

_CLUSTER_SCOPED_KINDS = frozenset(
    {
        ("", "PersistentVolume"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("cert-manager.io", "ClusterIssuer"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        ("cilium.io", "CiliumBGPAdvertisement"),
        ("cilium.io", "CiliumBGPClusterConfig"),
        ("cilium.io", "CiliumBGPPeerConfig"),
        ("cilium.io", "CiliumBGPPeeringPolicy"),
        ("cilium.io", "CiliumClusterwideNetworkPolicy"),
        ("cilium.io", "CiliumClusterwideEnvoyConfig"),
        ("cilium.io", "CiliumCIDRGroup"),
        ("cilium.io", "CiliumExternalWorkload"),
        ("cilium.io", "CiliumIdentity"),
        ("cilium.io", "CiliumL2AnnouncementPolicy"),
        ("cilium.io", "CiliumLoadBalancerIPPool"),
        ("cilium.io", "CiliumNode"),
        ("external-secrets.io", "ClusterSecretStore"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
        ("kyverno.io", "ClusterPolicy"),
        ("kyverno.io", "ClusterCleanupPolicy"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "IPAddress"),
        ("networking.k8s.io", "ServiceCIDR"),
        ("node.k8s.io", "RuntimeClass"),
        ("policy.networking.k8s.io", "AdminNetworkPolicy"),
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("storage.k8s.io", "CSIDriver"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "VolumeAttachment"),
    }
)

_WHOLE_OBJECTS = frozenset({"rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "node.k8s.io"})
"""Groups of kept kinds without a status."""


@lru_cache(maxsize=1024)
def is_namespaced(group: str, kind: str) -> bool:
    """Whether objects of this kind live in namespaces."""
    info = by_kind(group, kind)
    return info.namespaced if info is not None else (group, kind) not in _CLUSTER_SCOPED_KINDS


@lru_cache(maxsize=1024)
def has_status(group: str, kind: str) -> bool:
    """Whether writing an object leaves its status alone, and the other way round."""
    info = by_kind(group, kind)
    return info.status_subresource if info is not None else group not in _WHOLE_OBJECTS


@lru_cache(maxsize=1024)
def list_keys(group: str, kind: str) -> ListKeys:
    """How the entries of this kind's lists are identified, for merging."""
    info = by_kind(group, kind)
    known = _collect(info) if info is not None else {}
    known = {**_IN_EVERY_OBJECT, **known}
    return lambda path: known.get(path, ())


_IN_EVERY_OBJECT: dict[Path, tuple[str, ...]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): ("",),  # a set: each value is its own identity
}


def _collect(info: KindInfo) -> dict[Path, tuple[str, ...]]:
    found: dict[Path, tuple[str, ...]] = {}

    def walk(spec: TypeSpec, path: Path) -> None:
        match spec:
            case StructSpec():
                for name, field in spec.fields.items():
                    walk(field.type, (*path, name))
            case ItemsSpec():
                if spec.constraint.list_type == "map":
                    found[path] = spec.constraint.list_map_keys or ()
                elif spec.constraint.list_type == "set":
                    found[path] = ("",)
                if spec.constraint.list_type != "atomic":
                    walk(spec.items, path)
            case MapSpec() | ScalarSpec():
                pass

    walk(struct_spec(info.type), ())
    return found
