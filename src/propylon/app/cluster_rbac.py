"""What the controller must be allowed to do when it makes proxies of pods: derived from what it makes."""

from typing import Any

from propylon.app.cluster import WRITTEN
from propylon.app.cluster_authority import AUTHORITY_NAME
from propylon.app.cluster_documents import PATHS
from propylon.app.cluster_proxies import KubernetesRuntime
from propylon.proxies.kubernetes.apply import KINDS
from propylon.store.cluster.rbac import build_manifests

Document = dict[str, Any]


def build_pod_manifests(namespace: str, name: str) -> list[Document]:
    """Like `store.cluster.rbac.build_manifests`, with the rules for what is made for Gateways."""
    manifests = build_manifests(namespace, name, KubernetesRuntime.watched, WRITTEN)
    for manifest in manifests:
        if manifest["kind"] == "ClusterRole":
            manifest["rules"] += _made()
        elif manifest["kind"] == "Role":
            manifest["rules"] += [
                {**_rule("", "secrets", ["update"]), "resourceNames": [AUTHORITY_NAME]},
                # By which the Service leads to who leads. An apply creates what is not there.
                _rule("discovery.k8s.io", "endpointslices", ["create", "patch"]),
            ]
    return manifests


def _made() -> list[Document]:
    by_group: dict[str, list[str]] = {}
    for kind in KINDS:
        prefix = PATHS[kind].prefix
        group = "" if prefix == "/api/v1" else prefix.split("/")[2]
        by_group.setdefault(group, []).append(PATHS[kind].plural)
    return [
        {"apiGroups": [group], "resources": sorted(plurals), "verbs": ["create", "delete", "get", "list", "patch"]}
        for group, plurals in sorted(by_group.items())
    ]


def _rule(group: str, resource: str, verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs}
