"""What the controller must be allowed to do in a cluster: derived from what it reads, writes and makes."""

from collections.abc import Iterable
from typing import Any

from propylon.app.cluster import WRITTEN, ClusterRuntime
from propylon.app.cluster_authority import AUTHORITY_NAME
from propylon.app.cluster_documents import PATHS, former_slices
from propylon.app.cluster_proxies import XDS_NAME, KubernetesRuntime
from propylon.app.cluster_surroundings import CRD_NAMES
from propylon.store.cluster.rbac import build_manifests

Document = dict[str, Any]


def build_process_manifests(namespace: str, name: str) -> list[Document]:
    """Like `store.cluster.rbac.build_manifests`, with the rules for what is asked of a cluster and made for Gateways.

    For proxies that are processes: a Service and its EndpointSlices for each Gateway.
    """
    return _build(ClusterRuntime, namespace, name)


def build_pod_manifests(namespace: str, name: str) -> list[Document]:
    """The same for proxies that are pods."""
    manifests = _build(KubernetesRuntime, namespace, name)
    for manifest in manifests:
        if manifest["kind"] == "Role":
            manifest["rules"] += [
                {**_rule("", "secrets", ["update"]), "resourceNames": [AUTHORITY_NAME]},
                # Former releases wrote them; Kubernetes would leave them as they are.
                {
                    **_rule("discovery.k8s.io", "endpointslices", ["delete"]),
                    "resourceNames": list(former_slices(XDS_NAME)),
                },
            ]
    return manifests


def _build(runtime: type[ClusterRuntime], namespace: str, name: str) -> list[Document]:
    manifests = build_manifests(namespace, name, runtime.watched, WRITTEN)
    for manifest in manifests:
        if manifest["kind"] == "ClusterRole":
            manifest["rules"] += [*_surroundings(), *_made(runtime.made)]
    return manifests


def _surroundings() -> list[Document]:
    return [
        # Which channel and release is installed.
        {**_rule("apiextensions.k8s.io", "customresourcedefinitions", ["get"]), "resourceNames": list(CRD_NAMES)},
        _rule("networking.k8s.io", "servicecidrs", ["list"]),
    ]


def _made(kinds: Iterable[str]) -> list[Document]:
    by_group: dict[str, list[str]] = {}
    for kind in kinds:
        prefix = PATHS[kind].prefix
        group = "" if prefix == "/api/v1" else prefix.split("/")[2]
        by_group.setdefault(group, []).append(PATHS[kind].plural)
    return [
        {"apiGroups": [group], "resources": sorted(plurals), "verbs": ["create", "delete", "get", "list", "patch"]}
        for group, plurals in sorted(by_group.items())
    ]


def _rule(group: str, resource: str, verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs}
