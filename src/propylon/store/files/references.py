"""Which fields of which kinds name other objects: what kustomize rewrites when it renames them.

This is kustomize's built-in table (its default nameReference configuration), no more: a directory must come out here
as it does in a cluster. Fields of the Gateway API are not in it, so renaming a Service leaves the backendRefs to it
as they are; the build warns about that (see `kustomize`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_POD_SPECS = {
    "Pod": "spec",
    "Deployment": "spec/template/spec",
    "ReplicaSet": "spec/template/spec",
    "ReplicationController": "spec/template/spec",
    "DaemonSet": "spec/template/spec",
    "StatefulSet": "spec/template/spec",
    "Job": "spec/template/spec",
    "CronJob": "spec/jobTemplate/spec/template/spec",
    "PodTemplate": "template/spec",
}

_IN_PODS = {
    "ConfigMap": (
        "volumes/configMap/name",
        "volumes/projected/sources/configMap/name",
        "containers/env/valueFrom/configMapKeyRef/name",
        "initContainers/env/valueFrom/configMapKeyRef/name",
        "containers/envFrom/configMapRef/name",
        "initContainers/envFrom/configMapRef/name",
    ),
    "Secret": (
        "volumes/secret/secretName",
        "volumes/projected/sources/secret/name",
        "containers/env/valueFrom/secretKeyRef/name",
        "initContainers/env/valueFrom/secretKeyRef/name",
        "containers/envFrom/secretRef/name",
        "initContainers/envFrom/secretRef/name",
        "imagePullSecrets/name",
    ),
    "ServiceAccount": ("serviceAccountName",),
    "PersistentVolumeClaim": ("volumes/persistentVolumeClaim/claimName",),
    "PriorityClass": ("priorityClassName",),
}

_ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    ("Service", "StatefulSet", "spec/serviceName"),
    ("Service", "Ingress", "spec/rules/http/paths/backend/serviceName"),
    ("Service", "Ingress", "spec/rules/http/paths/backend/service/name"),
    ("Service", "Ingress", "spec/backend/serviceName"),
    ("Service", "Ingress", "spec/defaultBackend/service/name"),
    ("Service", "APIService", "spec/service/name"),
    ("Service", "ValidatingWebhookConfiguration", "webhooks/clientConfig/service/name"),
    ("Service", "MutatingWebhookConfiguration", "webhooks/clientConfig/service/name"),
    ("Service", "CustomResourceDefinition", "spec/conversion/webhook/clientConfig/service/name"),
    ("Secret", "Ingress", "spec/tls/secretName"),
    ("Secret", "ServiceAccount", "imagePullSecrets/name"),
    ("Secret", "ServiceAccount", "secrets/name"),
    ("IngressClass", "Ingress", "spec/ingressClassName"),
    ("PersistentVolume", "PersistentVolumeClaim", "spec/volumeName"),
    ("StorageClass", "PersistentVolumeClaim", "spec/storageClassName"),
    ("StorageClass", "PersistentVolume", "spec/storageClassName"),
    ("StorageClass", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
    ("Deployment", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicaSet", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicationController", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("StatefulSet", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("Role", "RoleBinding", "roleRef/name"),
    ("ClusterRole", "RoleBinding", "roleRef/name"),
    ("ClusterRole", "ClusterRoleBinding", "roleRef/name"),
)

_BY_REFERRER: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
for _target, _referrer, _path in _ELSEWHERE:
    _BY_REFERRER.setdefault(_referrer, []).append((_target, tuple(_path.split("/"))))
for _referrer, _prefix in _POD_SPECS.items():
    for _target, _paths in _IN_PODS.items():
        for _path in _paths:
            _BY_REFERRER.setdefault(_referrer, []).append((_target, (*_prefix.split("/"), *_path.split("/"))))

Rename = Callable[[str, str, str], str]
"""(kind, namespace, name) -> the name by which that object goes now."""


def rewrite_references(value: dict[str, Any], rename: Rename) -> dict[str, Any]:
    """The object with its references renamed; itself when none changes."""
    namespace = str(value.get("metadata", {}).get("namespace") or "")
    for target, path in _BY_REFERRER.get(value["kind"], ()):
        # A reference that names its target's kind beside the name (roleRef, scaleTargetRef) speaks of that kind only.
        def renamed(name: Any, beside: Mapping[str, Any], target: str = target) -> Any:
            if not isinstance(name, str) or beside.get("kind", target) != target:
                return name
            return rename(target, namespace, name)

        value = map_path(value, path, renamed)
    if value["kind"] in ("RoleBinding", "ClusterRoleBinding"):
        value = map_path(value, ("subjects",), lambda subject, _: _renamed_subject(subject, rename))
    return value


def _renamed_subject(subject: Any, rename: Rename) -> Any:
    if not isinstance(subject, Mapping) or subject.get("kind") != "ServiceAccount":
        return subject
    name = str(subject.get("name"))
    new = rename("ServiceAccount", str(subject.get("namespace") or ""), name)
    return {**subject, "name": new} if new != name else subject


def map_path(value: Any, path: tuple[str, ...], change: Callable[[Any, Mapping[str, Any]], Any]) -> Any:
    """The value with everything at a path (through every entry of lists on the way) changed; itself when nothing is."""
    if isinstance(value, list):
        changed = [map_path(entry, path, change) for entry in value]
        return changed if any(new is not old for new, old in zip(changed, value, strict=True)) else value
    if not isinstance(value, dict) or path[0] not in value:
        return value
    inner = value[path[0]]
    if len(path) > 1:
        new = map_path(inner, path[1:], change)
    elif isinstance(inner, list):
        entries = [change(entry, value) for entry in inner]
        new = entries if entries != inner else inner
    else:
        new = change(inner, value)
    return {**value, path[0]: new} if new is not inner else value


def gateway_references(value: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """References of Gateway API objects: (field, kind, namespace, name), which kustomize does not rewrite."""
    if value["apiVersion"].partition("/")[0] not in ("gateway.networking.k8s.io", "gateway.networking.x-k8s.io"):
        return []
    own = str(value.get("metadata", {}).get("namespace") or "")
    found: list[tuple[str, str, str, str]] = []

    def walk(inner: Any, field: str) -> None:
        if isinstance(inner, Mapping):
            for name, child in inner.items():
                path = f"{field}.{name}"
                kind = _GATEWAY_FIELDS.get(name)
                if kind:
                    entries = enumerate(child) if isinstance(child, list) else [(None, child)]
                    for index, entry in entries:
                        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                            place = path if index is None else f"{path}[{index}]"
                            namespace = str(entry.get("namespace") or own)
                            found.append((f"{place}.name", str(entry.get("kind") or kind), namespace, entry["name"]))
                walk(child, path)
        elif isinstance(inner, list):
            for index, entry in enumerate(inner):
                walk(entry, f"{field}[{index}]")

    walk(value.get("spec"), "spec")
    return found


_GATEWAY_FIELDS = {
    "parentRefs": "Gateway",
    "parentRef": "Gateway",
    "backendRefs": "Service",
    "backendRef": "Service",
    "targetRefs": "Service",
    "certificateRefs": "Secret",
    "clientCertificateRef": "Secret",
    "caCertificateRefs": "ConfigMap",
}
