"""What Kubernetes demands of its own kept kinds where leaving it out would surprise: workloads, bindings, finalizers.

Pure. Causes are (reason, message, field) in the words of an API server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Cause = tuple[str, str, str]
_WORKLOADS = frozenset({("apps", "Deployment"), ("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("apps", "DaemonSet")})
_BINDINGS = frozenset(
    {("rbac.authorization.k8s.io", "RoleBinding"), ("rbac.authorization.k8s.io", "ClusterRoleBinding")}
)
_REQUIRED = ("FieldValueRequired", "Required value")
IMMORTAL_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that nobody may delete."""


def check_core(group: str, kind: str, document: Mapping[str, Any]) -> list[Cause]:
    """What is wrong with an object of one of these kinds."""
    spec = _mapping(document.get("spec"))
    if (group, kind) in _WORKLOADS:
        return _check_workload(spec)
    if (group, kind) == ("", "Pod"):
        return _check_pod(spec, "spec")
    return []


def _check_workload(spec: Mapping[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    template = _mapping(spec.get("template"))
    labels = _mapping(template.get("metadata")).get("labels")
    selector = spec.get("selector")
    wanted = _mapping(_mapping(selector).get("matchLabels"))
    if not selector:
        causes.append((*_REQUIRED, "spec.selector"))
    if not selector or any(_mapping(labels).get(name) != value for name, value in wanted.items()):
        shown = json.dumps(labels, separators=(",", ":"), sort_keys=True)
        message = f"Invalid value: {shown}: `selector` does not match template `labels`"
        causes.append(("FieldValueInvalid", message, "spec.template.metadata.labels"))
    return causes + _check_pod(_mapping(template.get("spec")), "spec.template.spec")


def _check_pod(spec: Mapping[str, Any], path: str) -> list[Cause]:
    containers = spec.get("containers")
    if not containers:
        return [(*_REQUIRED, f"{path}.containers")]
    causes: list[Cause] = []
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        held = _mapping(container)
        causes += [
            (*_REQUIRED, f"{path}.containers[{index}].{field}") for field in ("name", "image") if not held.get(field)
        ]
    return causes


def check_change(group: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Cause]:
    """What may not change so. `before` is the object as it is shown."""
    causes: list[Cause] = []
    held, wanted = before["metadata"].get("finalizers") or [], after["metadata"].get("finalizers") or []
    new = [name for name in wanted if name not in held] if isinstance(wanted, list) else []
    if before["metadata"].get("deletionTimestamp") and new:
        shown = ", ".join(json.dumps(name) for name in new)
        message = "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
        causes.append(("FieldValueForbidden", f"{message}[]string{{{shown}}}", "metadata.finalizers"))
    if (group, kind) in _BINDINGS and _role(before) != _role(after):
        shown = json.dumps(_role(after), separators=(",", ":"))
        causes.append(("FieldValueInvalid", f"Invalid value: {shown}: cannot change roleRef", "roleRef"))
    return causes


def _role(binding: Mapping[str, Any]) -> dict[str, Any]:
    role = _mapping(binding.get("roleRef"))
    return {
        "APIGroup": role.get("apiGroup") or "rbac.authorization.k8s.io",
        "Kind": role.get("kind"),
        "Name": role.get("name"),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
