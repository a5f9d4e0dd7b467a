"""What this program must be allowed to do in a cluster, and nothing more: derived from what it reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from propylon.api.kinds import KindInfo

Document = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"


def build_rules(watched: Iterable[KindInfo], written: Iterable[KindInfo]) -> list[Document]:
    """The rules of the ClusterRole: read what is watched, patch the statuses of what is written, create Events."""
    rules: list[Document] = []
    by_group: dict[str, list[str]] = {}
    for info in watched:
        by_group.setdefault(info.group, []).append(info.plural)
    rules += [_rule(group, sorted(plurals), ["get", "list", "watch"]) for group, plurals in sorted(by_group.items())]
    statuses: dict[str, list[str]] = {}
    for info in written:
        statuses.setdefault(info.group, []).append(f"{info.plural}/status")
    rules += [_rule(group, sorted(plurals), ["patch"]) for group, plurals in sorted(statuses.items())]
    rules.append(_rule("", ["events"], ["create"]))
    return rules


def build_manifests(
    namespace: str, name: str, watched: Sequence[KindInfo], written: Sequence[KindInfo]
) -> list[Document]:
    """ServiceAccount, ClusterRole, Role (of the Lease) and their bindings, in the order to be applied."""
    subject = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    lease = [
        {**_rule("coordination.k8s.io", ["leases"], ["create"])},
        {**_rule("coordination.k8s.io", ["leases"], ["get", "update"]), "resourceNames": [name]},
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        _object("ClusterRole", {"name": name}, rules=build_rules(watched, written)),
        _object("ClusterRoleBinding", {"name": name}, roleRef=_role_ref("ClusterRole", name), subjects=subject),
        _object("Role", {"name": name, "namespace": namespace}, rules=lease),
        _object(
            "RoleBinding", {"name": name, "namespace": namespace}, roleRef=_role_ref("Role", name), subjects=subject
        ),
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _object(kind: str, metadata: Document, **fields: Any) -> Document:
    return {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": metadata, **fields}


def _role_ref(kind: str, name: str) -> Document:
    return {"apiGroup": _GROUP, "kind": kind, "name": name}
