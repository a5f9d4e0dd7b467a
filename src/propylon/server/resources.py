"""What is served: the interpreted kinds, the Kubernetes kinds that are kept as they are, and whatever
CustomResourceDefinitions define. One registry, looked up by group, version and plural name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from propylon.api.kinds import KINDS, KindInfo
from propylon.api.meta import ObjectRef
from propylon.api.references import EXPERIMENTAL_GROUP, GATEWAY_GROUP
from propylon.store.kindinfo import is_namespaced
from propylon.store.protocol import GroupKind

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""The same, in the order in which API servers name those of custom kinds; Gateway API's are custom elsewhere."""
CRD_GROUP = "apiextensions.k8s.io"
EVENTS_GROUP = "events.k8s.io"
CRD_KIND = GroupKind(CRD_GROUP, "CustomResourceDefinition")


class Scale(NamedTuple):
    """Where the scale subresource finds what it shows, as JSON paths (".spec.replicas")."""

    spec_replicas: str
    status_replicas: str
    selector: str = ""


class CustomVersion(msgspec.Struct, frozen=True):
    """What a CustomResourceDefinition says of one version."""

    name: str
    schema: Mapping[str, Any]
    columns: tuple[Mapping[str, Any], ...] = ()
    status: bool = False
    scale: Scale | None = None
    deprecation: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A kind that the API serves. `versions` are in the order of preference; `info` is set for interpreted kinds,
    `custom` for those of CustomResourceDefinitions."""

    group: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    versions: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = True
    scale: Scale | None = None
    info: KindInfo | None = None
    custom: Mapping[str, CustomVersion] = MappingProxyType({})
    list_kind: str = ""
    verbs: tuple[str, ...] = ALL_VERBS
    deprecation: str = ""
    description: str = ""
    stored_group: str | None = None
    """The group under which objects are stored, where that is another one: one kind in two forms."""

    @property
    def qualified(self) -> str:
        """`httproutes.gateway.networking.k8s.io`, `services`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> GroupKind:
        """The kind as stores know it."""
        return GroupKind(self.group if self.stored_group is None else self.stored_group, self.kind)

    def api_version(self, version: str) -> str:
        """The apiVersion of objects of that version."""
        return f"{self.group}/{version}" if self.group else version

    def ref(self, namespace: str, name: str) -> ObjectRef:
        """An object of this kind, as the store knows it."""
        return ObjectRef(*self.group_kind, self.stored_namespace(namespace), name)

    def stored_namespace(self, namespace: str) -> str:
        """The namespace in the store of an object in `namespace` ("" for a cluster-scoped kind).

        The store takes every kind it has not heard of to live in namespaces, so that objects of cluster-scoped custom
        kinds are kept in "default"; nobody outside sees that.
        """
        if self.namespaced:
            return namespace
        return "default" if is_namespaced(self.group, self.kind) else ""

    def has_status(self, version: str) -> bool:
        """Whether /status is served in that version."""
        return self.custom[version].status if version in self.custom else self.status

    def scale_of(self, version: str) -> Scale | None:
        """Where /scale looks in that version; None if there is no such subresource."""
        return self.custom[version].scale if version in self.custom else self.scale


def takes_strategic_patches(resource: Resource) -> bool:
    """Whether strategic merge patches are known for a kind: for Kubernetes' own, not for custom resources."""
    return not resource.custom and resource.group not in (GATEWAY_GROUP, EXPERIMENTAL_GROUP)


_WORKLOAD = Scale(".spec.replicas", ".status.replicas", ".spec.selector")


def _kept(
    group: str,
    kind: str,
    plural: str,
    *,
    version: str = "v1",
    namespaced: bool = True,
    short: tuple[str, ...] = (),
    status: bool = True,
    scale: Scale | None = None,
    categories: tuple[str, ...] = (),
    description: str = "",
    deprecation: str = "",
    stored_group: str | None = None,
) -> Resource:
    return Resource(
        group=group,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        namespaced=namespaced,
        versions=(version,),
        short_names=short,
        status=status,
        scale=scale,
        categories=categories,
        list_kind=f"{kind}List",
        description=description,
        deprecation=deprecation,
        stored_group=stored_group,
    )


_RBAC = "rbac.authorization.k8s.io"
_ALL = ("all",)

KEPT: tuple[Resource, ...] = (
    _kept(
        "", "Pod", "pods", short=("po",), categories=_ALL, description="A group of containers. Stored; runs nothing."
    ),
    _kept("", "ServiceAccount", "serviceaccounts", short=("sa",), status=False, description="An identity of programs."),
    _kept(
        "",
        "Endpoints",
        "endpoints",
        short=("ep",),
        status=False,
        description="Addresses behind a Service.",
        deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    _kept("", "PodTemplate", "podtemplates", status=False, description="What pods are to be like."),
    _kept(
        "",
        "ReplicationController",
        "replicationcontrollers",
        short=("rc",),
        scale=_WORKLOAD,
        categories=_ALL,
        description="Pods, as of old.",
    ),
    _kept(
        EVENTS_GROUP,
        "Event",
        "events",
        short=("ev",),
        status=False,
        stored_group="",
        description="Something that happened to an object: the Events of the core group under newer field names.",
    ),
    _kept("", "PersistentVolumeClaim", "persistentvolumeclaims", short=("pvc",), description="A claim to storage."),
    _kept("", "PersistentVolume", "persistentvolumes", namespaced=False, short=("pv",), description="Storage."),
    _kept("", "ResourceQuota", "resourcequotas", short=("quota",), description="Limits of a namespace."),
    _kept("", "LimitRange", "limitranges", short=("limits",), status=False, description="Limits of containers."),
    _kept(
        "apps",
        "Deployment",
        "deployments",
        short=("deploy",),
        scale=_WORKLOAD,
        categories=_ALL,
        description="Pods and how many of them. Stored; runs nothing.",
    ),
    _kept("apps", "ReplicaSet", "replicasets", short=("rs",), scale=_WORKLOAD, categories=_ALL, description="Pods."),
    _kept("apps", "StatefulSet", "statefulsets", short=("sts",), scale=_WORKLOAD, categories=_ALL, description="Pods."),
    _kept("apps", "DaemonSet", "daemonsets", short=("ds",), categories=_ALL, description="A pod on every node."),
    _kept("apps", "ControllerRevision", "controllerrevisions", status=False, description="A former state."),
    _kept("batch", "Job", "jobs", categories=_ALL, description="Pods that end."),
    _kept("batch", "CronJob", "cronjobs", short=("cj",), categories=_ALL, description="Jobs at given times."),
    _kept(
        "autoscaling",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        version="v2",
        short=("hpa",),
        categories=_ALL,
        description="How many pods there should be.",
    ),
    _kept("policy", "PodDisruptionBudget", "poddisruptionbudgets", short=("pdb",), description="Pods that must stay."),
    _kept("networking.k8s.io", "Ingress", "ingresses", short=("ing",), description="HTTP routing of old."),
    _kept(
        "networking.k8s.io",
        "IngressClass",
        "ingressclasses",
        namespaced=False,
        status=False,
        description="Who serves an Ingress.",
    ),
    _kept(
        "networking.k8s.io",
        "NetworkPolicy",
        "networkpolicies",
        short=("netpol",),
        status=False,
        description="Who may speak to pods.",
    ),
    _kept(_RBAC, "Role", "roles", status=False, description="What may be done in a namespace."),
    _kept(
        _RBAC, "RoleBinding", "rolebindings", status=False, description="Who may do in a namespace what a role says."
    ),
    _kept(_RBAC, "ClusterRole", "clusterroles", namespaced=False, status=False, description="What may be done."),
    _kept(
        _RBAC,
        "ClusterRoleBinding",
        "clusterrolebindings",
        namespaced=False,
        status=False,
        description="Who may do everywhere what a role says.",
    ),
    _kept(
        CRD_GROUP,
        "CustomResourceDefinition",
        "customresourcedefinitions",
        namespaced=False,
        short=("crd", "crds"),
        categories=("api-extensions",),
        description="A kind of objects that users define.",
    ),
    *(
        _kept(
            "admissionregistration.k8s.io",
            kind,
            plural,
            namespaced=False,
            status=kind == "ValidatingAdmissionPolicy",
            description="A demand on what is written. Stored; checks nothing.",
        )
        for kind, plural in (
            ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        )
    ),
    _kept(
        "scheduling.k8s.io",
        "PriorityClass",
        "priorityclasses",
        namespaced=False,
        short=("pc",),
        status=False,
        description="How important pods are.",
    ),
    _kept(
        "storage.k8s.io",
        "StorageClass",
        "storageclasses",
        namespaced=False,
        short=("sc",),
        status=False,
        description="A kind of storage.",
    ),
)
"""Kinds of Kubernetes that are stored and given back as they are."""


def _interpreted(info: KindInfo) -> Resource:
    return Resource(
        group=info.group,
        kind=info.kind,
        plural=info.plural,
        singular=info.singular,
        namespaced=info.namespaced,
        versions=info.served_versions,
        short_names=info.short_names,
        categories=_ALL if info.kind == "Service" else info.categories,
        verbs=CUSTOM_VERBS if info.group in (GATEWAY_GROUP, EXPERIMENTAL_GROUP) else ALL_VERBS,
        status=info.status_subresource,
        info=info,
        list_kind=f"{info.kind}List",
        description=(info.type.__doc__ or "").strip(),
    )


BUILT_IN: tuple[Resource, ...] = (*map(_interpreted, KINDS), *KEPT)


class Registry:
    """Everything served at one moment. Immutable; `with_custom` makes the next one."""

    def __init__(self, custom: Iterable[Resource] = ()) -> None:
        built_in_groups = {(resource.group, resource.plural) for resource in BUILT_IN}
        self.custom = tuple(resource for resource in custom if (resource.group, resource.plural) not in built_in_groups)
        self.all = (*BUILT_IN, *self.custom)
        self._by_plural = {(resource.group, resource.plural): resource for resource in self.all}
        self._by_kind = {(resource.group, resource.kind): resource for resource in self.all}
        self.groups: dict[str, tuple[str, ...]] = {}
        """Versions of every group, the preferred one first."""
        for resource in self.all:
            known = self.groups.get(resource.group, ())
            new = tuple(version for version in resource.versions if version not in known)
            self.groups[resource.group] = tuple(sorted((*known, *new), key=version_rank))

    def by_plural(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of a URL; None if it is not served in that version."""
        found = self._by_plural.get((group, plural))
        return found if found is not None and version in found.versions else None

    def by_kind(self, group: str, kind: str) -> Resource | None:
        """The resource of a kind."""
        return self._by_kind.get((group, kind))

    def in_version(self, group: str, version: str) -> list[Resource]:
        """What a group serves in a version, in the order of plural names."""
        found = [resource for resource in self.all if resource.group == group and version in resource.versions]
        return sorted(found, key=lambda resource: resource.plural)


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name."""
    number, stage, step = _split_version(version)
    if number < 0:
        return (3, 0, 0, version)
    return ({"": 0, "beta": 1, "alpha": 2}[stage], -number, -step, version)


def _split_version(version: str) -> tuple[int, str, int]:
    rest = version.removeprefix("v")
    for stage in ("alpha", "beta"):
        number, found, step = rest.partition(stage)
        if found and number.isdigit() and (step or "0").isdigit():
            return int(number), stage, int(step or 0)
    return (int(rest), "", 0) if rest.isdigit() and version.startswith("v") else (-1, "", 0)
