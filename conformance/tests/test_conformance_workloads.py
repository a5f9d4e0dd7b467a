"""What is made of Deployments and Services where no kube-controller-manager runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.workloads import HASH, SERVICE_LABEL, deployment_status, plan_pods, pod_of, slice_of, template_hash

Object = dict[str, Any]


def deployment(replicas: int = 2, image: str = "echo") -> Object:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    metadata = {"name": "web", "namespace": "infra", "uid": "u", "generation": 3}
    return {"metadata": metadata, "spec": {"replicas": replicas, "template": template}}


def pods(of: Object, count: int, *, ready: bool = True) -> list[Object]:
    made = []
    for number in range(count):
        pod = pod_of(of, "node")
        condition = {"type": "Ready", "status": str(ready)}
        pod["status"] = {"podIP": f"10.128.0.{number + 1}", "conditions": [condition]}
        made.append(pod)
    return made


def test_pods_of_a_deployment() -> None:
    pod = pod_of(deployment(), "node")
    assert pod["metadata"]["name"].startswith(f"web-{template_hash(deployment())}-")
    assert pod["metadata"]["labels"] == {"app": "a", HASH: template_hash(deployment())}
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert pod["spec"]["nodeName"] == "node"


def test_as_many_as_are_wanted() -> None:
    held = pods(deployment(), 3)
    assert plan_pods(deployment(3), held) == ([], 0)
    assert plan_pods(deployment(5), held) == ([], 2)
    surplus, missing = plan_pods(deployment(1), held)
    assert (len(surplus), missing) == (2, 0)


def test_another_template_replaces_them() -> None:
    held = pods(deployment(), 2)
    surplus, missing = plan_pods(deployment(image="other"), held)
    assert (surplus, missing) == (held, 2)


def test_pods_that_are_being_deleted_do_not_count() -> None:
    held = pods(deployment(), 2)
    held[0]["metadata"]["deletionTimestamp"] = "2026-05-01T00:00:00Z"
    assert plan_pods(deployment(), held) == ([], 1)
    assert deployment_status(deployment(), held)["replicas"] == 1


def test_status() -> None:
    status = deployment_status(deployment(), [*pods(deployment(), 1), *pods(deployment(), 1, ready=False)])
    assert (status["replicas"], status["readyReplicas"], status["observedGeneration"]) == (2, 1, 3)
    assert status["conditions"][0]["status"] == "False"


def test_slices() -> None:
    ports = [
        {"name": "http", "port": 80, "targetPort": 3000, "appProtocol": "kubernetes.io/h2c"},
        {"name": "named", "port": 81, "targetPort": "metrics"},
        {"name": "same", "port": 82, "protocol": "UDP"},
    ]
    metadata = {"name": "web", "namespace": "infra", "uid": "s"}
    service = {"metadata": metadata, "spec": {"selector": {"app": "a"}, "ports": ports}}
    chosen = [*pods(deployment(), 1), *pods(deployment(), 1, ready=False)]
    chosen[0]["spec"]["containers"][0]["ports"] = [{"name": "metrics", "containerPort": 9000}]
    other = pods(deployment(), 1)
    other[0]["metadata"]["labels"]["app"] = "b"
    elsewhere = pods(deployment(), 1)
    elsewhere[0]["metadata"]["namespace"] = "other"
    addressless = pods(deployment(), 1)
    del addressless[0]["status"]["podIP"]
    found = slice_of(service, [*chosen, *other, *elsewhere, *addressless])
    assert found["metadata"]["labels"][SERVICE_LABEL] == "web"
    assert sorted(endpoint["conditions"]["ready"] for endpoint in found["endpoints"]) == [False, True]
    assert found["ports"] == [
        {"name": "http", "port": 3000, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        {"name": "named", "port": 9000, "protocol": "TCP"},
        {"name": "same", "port": 82, "protocol": "UDP"},
    ]
