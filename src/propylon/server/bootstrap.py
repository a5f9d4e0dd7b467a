"""What every Kubernetes API has from the beginning: its own namespaces, and the ClusterRoles that everybody binds to.

They are ordinary objects afterwards. A role that lacks rules of a newer release gets them at the next start, unless its
annotation `rbac.authorization.kubernetes.io/autoupdate` says otherwise, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from propylon.server.access import DEFAULT_BINDINGS, DEFAULT_ROLES, RBAC_GROUP
from propylon.store import LocalStore, NotFound, ref_of_document

NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
LABEL = "kubernetes.io/bootstrapping"
_LABELS = {LABEL: "rbac-defaults"}
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"

Document = dict[str, Any]


def ensure_defaults(store: LocalStore) -> None:
    """Create what is missing. Raises StoreUnavailable."""
    with store.transaction():
        for wanted in default_objects():
            ref = ref_of_document(wanted)
            try:
                held = store.get(ref)
            except NotFound:
                store.create(wanted)
                continue
            if (updated := _with_missing_rules(held, wanted)) is not None:
                store.update(updated)


def default_objects() -> Iterator[Document]:
    """Everything that is there from the beginning."""
    for name in NAMESPACES:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for name, role in DEFAULT_ROLES.items():
        yield {**_rbac("ClusterRole", name), **role}
    for name, groups in DEFAULT_BINDINGS.items():
        yield {
            **_rbac("ClusterRoleBinding", name),
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC_GROUP, "kind": "Group", "name": group} for group in groups],
        }


def _rbac(kind: str, name: str) -> Document:
    metadata = {"name": name, "labels": dict(_LABELS), "annotations": {_AUTOUPDATE: "true"}}
    return {"apiVersion": f"{RBAC_GROUP}/v1", "kind": kind, "metadata": metadata}


def _with_missing_rules(held: Document, wanted: Mapping[str, Any]) -> Document | None:
    annotations = held["metadata"].get("annotations") or {}
    if held["kind"] != "ClusterRole" or annotations.get(_AUTOUPDATE) != "true":
        return None
    rules = held.get("rules") or []
    missing = [rule for rule in wanted["rules"] if rule not in rules]
    return {**held, "rules": [*rules, *missing]} if missing else None
