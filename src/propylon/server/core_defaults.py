"""Defaults of Kubernetes' own kinds that are kept and not interpreted, as an API server fills them in. Pure.

Only fields that clients print or compare are filled in, so that `kubectl get -o yaml`, `diff` and `describe` show what
they show elsewhere. Source: the field documentation of core/v1, apps/v1 and batch/v1 in the Kubernetes API reference.
No addresses are assigned: a Service without `clusterIP: None` has none, as nothing here would answer at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Document = dict[str, Any]
_Defaults = Mapping[str, Any]

_NAMESPACE_FINALIZER = "kubernetes"
_PROBE: _Defaults = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_MODE = 0o644
_MOUNTED = ("configMap", "secret", "downwardAPI", "projected")
_POD_SPEC: _Defaults = {
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER: _Defaults = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_ROLLING: _Defaults = {"maxSurge": "25%", "maxUnavailable": "25%"}
_TOLERATED_SECONDS = 300


def default_core(group: str, kind: str, document: Document) -> Document:
    """The object with the defaults of its kind; the same object where there are none, or where it is malformed."""
    fill = _FILLERS.get((group, kind))
    if fill is None:
        return document
    spec = document.get("spec")
    return fill(document, spec) if isinstance(spec, Mapping) or spec is None else document


def _filled(value: Any, defaults: _Defaults) -> Document:
    """The mapping with the defaults where it has nothing, or null."""
    held = value if isinstance(value, Mapping) else {}
    return {**held, **{name: item for name, item in defaults.items() if held.get(name) is None}}


def _each(value: Any, fill: Callable[[Mapping[str, Any]], Any]) -> Any:
    if not isinstance(value, list):
        return value
    return [fill(item) if isinstance(item, Mapping) else item for item in value]


# -- pods -------------------------------------------------------------------------------------------------------------


def _container(container: Mapping[str, Any]) -> Document:
    image = str(container.get("image") or "")
    tag = image.rpartition("/")[2].partition(":")[2]
    newest = tag in ("", "latest") and "@" not in image
    filled = _filled(container, {**_CONTAINER, "imagePullPolicy": "Always" if newest else "IfNotPresent"})
    if "ports" in filled:
        filled["ports"] = _each(filled["ports"], lambda port: _filled(port, {"protocol": "TCP"}))
    for name in _PROBES:
        if isinstance(filled.get(name), Mapping):
            filled[name] = _probe(filled[name])
    if "env" in filled:
        filled["env"] = _each(filled["env"], _variable)
    return filled


def _probe(probe: Mapping[str, Any]) -> Document:
    filled = _filled(probe, _PROBE)
    if isinstance(filled.get("httpGet"), Mapping):
        filled["httpGet"] = _filled(filled["httpGet"], {"path": "/", "scheme": "HTTP"})
    return filled


def _variable(variable: Mapping[str, Any]) -> Document:
    source = variable.get("valueFrom")
    if not isinstance(source, Mapping) or not isinstance(source.get("fieldRef"), Mapping):
        return dict(variable)
    return {**variable, "valueFrom": {**source, "fieldRef": _filled(source["fieldRef"], {"apiVersion": "v1"})}}


def _volume(volume: Mapping[str, Any]) -> Document:
    filled = dict(volume)
    for name in _MOUNTED:
        if isinstance(filled.get(name), Mapping):
            filled[name] = _filled(filled[name], {"defaultMode": _FILE_MODE})
    if isinstance(filled.get("hostPath"), Mapping):
        filled["hostPath"] = _filled(filled["hostPath"], {"type": ""})
    return filled


def _pod_spec(spec: Mapping[str, Any]) -> Document:
    filled = _filled(spec, _POD_SPEC)
    for name in ("containers", "initContainers"):
        if name in filled:
            filled[name] = _each(filled[name], _container)
    if "volumes" in filled:
        filled["volumes"] = _each(filled["volumes"], _volume)
    account = filled.get("serviceAccountName") or filled.get("serviceAccount")
    if account:  # the older name of the same field
        filled |= {"serviceAccountName": account, "serviceAccount": account}
    return filled


def _template(template: Any, **defaults: Any) -> Any:
    if not isinstance(template, Mapping):
        return template
    spec = template.get("spec")
    metadata = template.get("metadata")
    filled = {**template, "metadata": {} if metadata is None else metadata}
    return {**filled, "spec": _pod_spec(_filled(spec, defaults))} if isinstance(spec, Mapping) else filled


def _pod(document: Document, spec: Any) -> Document:
    if spec is None:
        return document
    filled = _filled(
        _pod_spec(spec), {"enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority", "priority": 0}
    )
    held = [item for item in filled.get("tolerations") or () if isinstance(item, Mapping)]
    for state in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{state}"
        if not any(item.get("key") in (key, None) and item.get("effect") in ("NoExecute", None) for item in held):
            held.append(
                {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": _TOLERATED_SECONDS}
            )
    return {**document, "spec": {**filled, "tolerations": held}}


def quality_of_service(spec: Mapping[str, Any]) -> str:
    """The class of a pod by the resources its containers ask for: Guaranteed, Burstable or BestEffort."""
    containers = [item for item in spec.get("containers") or () if isinstance(item, Mapping)]
    found = [item.get("resources") or {} for item in containers]
    if not any(resources.get("requests") or resources.get("limits") for resources in found):
        return "BestEffort"
    for resources in found:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if not {"cpu", "memory"} <= limits.keys() or any(
            requests.get(name, limits[name]) != limits[name] for name in limits
        ):
            return "Burstable"
    return "Guaranteed"


# -- workloads --------------------------------------------------------------------------------------------------------


def _deployment(document: Document, spec: Any) -> Document:
    filled = _filled(spec, {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10})
    strategy = _filled(filled.get("strategy"), {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = _filled(strategy.get("rollingUpdate"), _ROLLING)
    filled["strategy"] = strategy
    return _workload(document, filled)


def _replica_set(document: Document, spec: Any) -> Document:
    return _workload(document, _filled(spec, {"replicas": 1}))


def _stateful_set(document: Document, spec: Any) -> Document:
    filled = _filled(
        spec,
        {
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "podManagementPolicy": "OrderedReady",
            "replicas": 1,
            "revisionHistoryLimit": 10,
        },
    )
    strategy = _filled(filled.get("updateStrategy"), {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = _filled(strategy.get("rollingUpdate"), {"partition": 0})
    return _workload(document, {**filled, "updateStrategy": strategy})


def _daemon_set(document: Document, spec: Any) -> Document:
    filled = _filled(spec, {"revisionHistoryLimit": 10})
    strategy = _filled(filled.get("updateStrategy"), {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        defaults = {"maxSurge": 0, "maxUnavailable": 1}
        strategy["rollingUpdate"] = _filled(strategy.get("rollingUpdate"), defaults)
    return _workload(document, {**filled, "updateStrategy": strategy})


def _job_spec(spec: Mapping[str, Any]) -> Document:
    filled = dict(spec)
    if "template" in filled:
        filled["template"] = _template(filled["template"])
    return filled


def _job(document: Document, spec: Any) -> Document:
    defaults = {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
        "suspend": False,
    }
    return _with_status({**document, "spec": _job_spec(_filled(spec, defaults))})


def _cron_job(document: Document, spec: Any) -> Document:
    defaults = {
        "concurrencyPolicy": "Allow",
        "failedJobsHistoryLimit": 1,
        "successfulJobsHistoryLimit": 3,
        "suspend": False,
    }
    filled = _filled(spec, defaults)
    template = filled.get("jobTemplate")
    if isinstance(template, Mapping) and isinstance(template.get("spec"), Mapping):
        filled["jobTemplate"] = {**_filled(template, {"metadata": {}}), "spec": _job_spec(template["spec"])}
    return _with_status({**document, "spec": filled})


def _workload(document: Document, spec: Document) -> Document:
    if "template" in spec:
        spec = {**spec, "template": _template(spec["template"])}
    return _with_status({**document, "spec": spec})


def _with_status(document: Document) -> Document:
    return document if document.get("status") is not None else {**document, "status": {}}


# -- the rest ---------------------------------------------------------------------------------------------------------


def _service(document: Document, spec: Any) -> Document:
    if spec is None or spec.get("type") == "ExternalName":
        return document
    defaults: Document = {"internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
    if spec.get("clusterIP") == "None":
        defaults["clusterIPs"] = ["None"]
        if not spec.get("selector"):  # whoever writes its endpoints decides on their families
            defaults |= {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
    elif spec.get("clusterIP"):
        defaults["clusterIPs"] = [spec["clusterIP"]]
    if spec.get("type") in ("LoadBalancer", "NodePort"):
        defaults["externalTrafficPolicy"] = "Cluster"
    if spec.get("type") == "LoadBalancer":
        defaults["allocateLoadBalancerNodePorts"] = True
    return {**document, "spec": _filled(spec, defaults)}


def _namespace(document: Document, spec: Any) -> Document:
    return {**document, "spec": _filled(spec, {"finalizers": [_NAMESPACE_FINALIZER]})}


def _cluster_role(document: Document, _spec: Any) -> Document:
    return document if "rules" in document else {**document, "rules": None}


_FILLERS: Mapping[tuple[str, str], Callable[[Document, Any], Document]] = {
    ("", "Namespace"): _namespace,
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
    ("rbac.authorization.k8s.io", "ClusterRole"): _cluster_role,
}
