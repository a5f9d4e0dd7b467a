"""Defaults and demands of Kubernetes' own kinds."""

from typing import Any

import pytest

from propylon.server.core_defaults import default_core, quality_of_service
from propylon.server.core_rules import check_change, check_core
from propylon.server.resources import Scale
from propylon.server.scale import scale_document


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "example.com/x"}]}}
    whole = {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": whole}


def test_a_deployment_is_filled_in_once() -> None:
    filled = default_core("apps", "Deployment", deployment())
    assert filled["spec"]["replicas"] == 1
    assert filled["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    container = filled["spec"]["template"]["spec"]["containers"][0]
    assert container["imagePullPolicy"] == "Always"
    assert default_core("apps", "Deployment", filled) == filled
    recreated = default_core("apps", "Deployment", deployment(replicas=0, strategy={"type": "Recreate"}))
    assert recreated["spec"]["replicas"] == 0
    assert recreated["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("h:5000/a", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
    ],
)
def test_images_with_a_tag_are_pulled_once(image: str, policy: str) -> None:
    pod = {"kind": "Pod", "spec": {"containers": [{"name": "a", "image": image}]}}
    assert default_core("", "Pod", pod)["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_services_have_families_but_no_address() -> None:
    def filled(**spec: Any) -> dict[str, Any]:
        found: dict[str, Any] = default_core("", "Service", {"kind": "Service", "spec": spec})["spec"]
        return found

    assert "clusterIP" not in filled(type="ClusterIP")
    assert filled(clusterIP="None", selector={"a": "b"})["ipFamilies"] == ["IPv4"]
    assert filled(clusterIP="None")["ipFamilyPolicy"] == "RequireDualStack"
    assert filled(type="ExternalName", externalName="example.org") == {
        "type": "ExternalName",
        "externalName": "example.org",
    }


def test_nonsense_is_left_alone() -> None:
    for spec in (3, "x", []):
        assert default_core("apps", "Deployment", {"spec": spec}) == {"spec": spec}
    default_core("", "Pod", {"spec": {"containers": 3, "volumes": [3], "tolerations": ["x"]}})


@pytest.mark.parametrize(
    ("resources", "shown"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], shown: str) -> None:
    assert quality_of_service({"containers": [{"name": "a", "resources": resources}]}) == shown


def test_workloads_need_a_selector_that_fits() -> None:
    assert check_core("apps", "Deployment", deployment()) == []
    fields = [field for _, _, field in check_core("apps", "Deployment", {"spec": {}})]
    assert fields == ["spec.selector", "spec.template.metadata.labels", "spec.template.spec.containers"]
    other = deployment(selector={"matchLabels": {"app": "y"}})
    assert [field for _, _, field in check_core("apps", "Deployment", other)] == ["spec.template.metadata.labels"]


def test_what_may_not_change() -> None:
    binding = {"metadata": {}, "roleRef": {"kind": "Role", "name": "a"}}
    other = {"metadata": {}, "roleRef": {"kind": "Role", "name": "b"}}
    group = "rbac.authorization.k8s.io"
    assert check_change(group, "RoleBinding", binding, binding) == []
    assert check_change(group, "RoleBinding", binding, other)[0][2] == "roleRef"
    going = {"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a.example.com/x"]}}
    more = {"metadata": {"finalizers": ["a.example.com/x", "b.example.com/y"]}}
    assert check_change("", "ConfigMap", going, more)[0][0] == "FieldValueForbidden"
    assert check_change("", "ConfigMap", going, {"metadata": {}}) == []


def test_scale_shows_the_selector_in_its_written_form() -> None:
    expressions = [{"key": "b", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]
    document = deployment(selector={"matchLabels": {"app": "x"}, "matchExpressions": expressions})
    shown = scale_document(document, Scale(".spec.replicas", ".status.replicas", ".spec.selector"))
    assert shown["status"] == {"replicas": 0, "selector": "app=x,b in (x,y),!c"}
