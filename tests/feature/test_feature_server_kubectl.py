"""kubectl, unchanged, against the embedded API: what people type."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubectl import kubectl, namespace

__all__ = ["kubectl", "namespace"]

pytestmark = pytest.mark.feature

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop, namespace: {namespace}, labels: {{app: shop}}}}
spec:
  hostnames: [{host}]
  parentRefs: [{{name: web}}]
  rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]
"""


def test_version_and_resources(kubectl: Any) -> None:
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["minor"] == "37"
    resources = kubectl("api-resources", "--no-headers")
    line = next(line for line in resources.splitlines() if line.startswith("gateways "))
    assert line.split() == ["gateways", "gtw", "gateway.networking.k8s.io/v1", "true", "Gateway"]
    assert "gateway.networking.k8s.io/v1beta1" in kubectl("api-versions").split()
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "X509SHA256=" in kubectl("auth", "whoami")


def test_unknown_kinds_are_called_that(kubectl: Any) -> None:
    document = json.dumps({"apiVersion": "no.example.com/v1", "kind": "Thing", "metadata": {"name": "x"}})
    assert 'no matches for kind "Thing"' in kubectl.fails("apply", "-f", "-", given=document)
    assert 'no matches for kind "Thing"' in kubectl.fails("create", "-f", "-", given=document)


def test_explain_prints_our_documentation(kubectl: Any) -> None:
    told = kubectl("explain", "httproute.spec.rules")
    assert "HTTPRouteRule" in told
    assert "backendRefs" in told
    assert "KIND:       ReferenceGrant" in kubectl("explain", "referencegrants.spec")


def test_create_typed_objects(kubectl: Any, namespace: str) -> None:
    kubectl("create", "configmap", "c", "--from-literal=x=y", "-n", namespace)
    kubectl("create", "secret", "generic", "s", "--from-literal=p=w", "-n", namespace)
    kubectl("create", "deployment", "d", "--image=nginx", "--replicas=0", "-n", namespace)
    kubectl("create", "service", "clusterip", "v", "--tcp=80:8080", "-n", namespace)
    assert json.loads(kubectl("get", "configmap", "c", "-n", namespace, "-o", "json"))["data"] == {"x": "y"}
    assert kubectl("get", "secret", "s", "-n", namespace, "-o", "jsonpath={.data.p}") == "dw=="
    deployment = json.loads(kubectl("get", "deployment", "d", "-n", namespace, "-o", "json"))
    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx"
    assert deployment["status"]["conditions"][0]["reason"] == "NothingRunsPods"
    service = json.loads(kubectl("get", "service", "v", "-n", namespace, "-o", "json"))
    assert service["spec"]["ports"] == [{"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    table = kubectl("get", "service", "-n", namespace).splitlines()
    assert table[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert "already exists" in kubectl.fails("create", "configmap", "c", "-n", namespace)


def test_apply_get_label_patch_delete(kubectl: Any, namespace: str) -> None:
    route = ROUTE.format(namespace=namespace, host="a.example.com")
    assert "created" in kubectl("apply", "-f", "-", given=route)
    changed = ROUTE.format(namespace=namespace, host="b.example.com")
    assert "b.example.com" in kubectl.run("diff", "-f", "-", given=changed).stdout
    assert "configured" in kubectl("apply", "-f", "-", given=changed)
    table = kubectl("get", "httproute", "-n", namespace).splitlines()
    assert table[0].split() == ["NAME", "HOSTNAMES", "AGE"]
    assert table[1].split()[1] == '["b.example.com"]'
    kubectl("label", "httproute", "shop", "tier=front", "-n", namespace)
    kubectl("annotate", "httproute", "shop", "note=x", "-n", namespace)
    assert kubectl("get", "httproute", "-l", "tier in (front)", "-o", "name", "-n", namespace).strip().endswith("/shop")
    assert kubectl("get", "httproute", "-l", "tier!=front", "-o", "name", "-n", namespace) == ""
    assert kubectl("get", "httproute", "--field-selector=metadata.name=no", "-o", "name", "-n", namespace) == ""
    operation = [{"op": "replace", "path": "/spec/hostnames/0", "value": "c.example.com"}]
    kubectl("patch", "httproute", "shop", "-n", namespace, "--type=json", "-p", json.dumps(operation))
    kubectl(
        "patch", "httproute", "shop", "-n", namespace, "--type=merge", "-p", '{"spec":{"parentRefs":[{"name":"y"}]}}'
    )
    seen = yaml.safe_load(kubectl("get", "httproute", "shop", "-n", namespace, "-o", "yaml"))
    assert seen["spec"]["hostnames"] == ["c.example.com"]
    assert seen["spec"]["parentRefs"][0]["name"] == "y"
    assert seen["metadata"]["generation"] == 4
    assert "Hostnames" in kubectl("describe", "httproute", "shop", "-n", namespace)
    assert "deleted" in kubectl("delete", "httproute", "shop", "-n", namespace)
    assert "NotFound" in kubectl.fails("get", "httproute", "shop", "-n", namespace)


def test_apply_of_core_kinds_is_quiet_the_second_time(kubectl: Any, namespace: str) -> None:
    service = f"""
apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: {namespace}}}
spec: {{ports: [{{name: http, port: 80}}, {{name: tls, port: 443}}], selector: {{app: cart}}}}
"""
    assert "created" in kubectl("apply", "-f", "-", given=service)
    assert "unchanged" in kubectl("apply", "-f", "-", given=service)
    without = service.replace("{name: http, port: 80}, ", "")
    assert "configured" in kubectl("apply", "-f", "-", given=without)
    assert kubectl("get", "svc", "cart", "-n", namespace, "-o", "jsonpath={.spec.ports[*].port}") == "443"


def test_server_side_apply_keeps_owners_apart(kubectl: Any, namespace: str) -> None:
    mine = ROUTE.format(namespace=namespace, host="a.example.com")
    kubectl("apply", "--server-side", "--field-manager=me", "-f", "-", given=mine)
    theirs = mine.replace("a.example.com", "z.example.com")
    refused = kubectl.fails("apply", "--server-side", "--field-manager=they", "-f", "-", given=theirs)
    assert 'conflicts with "me"' in refused
    assert ".spec.hostnames" in refused
    labels = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop, namespace: {namespace}, labels: {{by: they}}}}
"""
    kubectl("apply", "--server-side", "--field-manager=they", "-f", "-", given=labels)
    kubectl("apply", "--server-side", "--field-manager=me", "-f", "-", given=mine.replace(", labels: {app: shop}", ""))
    seen = json.loads(kubectl("get", "httproute", "shop", "-n", namespace, "-o", "json", "--show-managed-fields"))
    assert seen["metadata"]["labels"] == {"by": "they"}, "mine went with my field, theirs stayed"
    owners = {entry["manager"]: entry["operation"] for entry in seen["metadata"]["managedFields"]}
    assert owners == {"me": "Apply", "they": "Apply"}
    assert "annotations" not in seen["metadata"]
    kubectl("apply", "--server-side", "--field-manager=they", "--force-conflicts", "-f", "-", given=theirs)
    assert (
        kubectl("get", "httproute", "shop", "-n", namespace, "-o", "jsonpath={.spec.hostnames}") == '["z.example.com"]'
    )


def test_dry_run_and_strict_validation(kubectl: Any, namespace: str) -> None:
    route = ROUTE.format(namespace=namespace, host="a.example.com")
    assert "(server dry run)" in kubectl("create", "--dry-run=server", "-f", "-", given=route)
    assert "NotFound" in kubectl.fails("get", "httproute", "shop", "-n", namespace)
    wrong = route.replace("hostnames:", "hostname:")
    assert 'unknown field "spec.hostname"' in kubectl.fails("create", "-f", "-", given=wrong)
    warned = kubectl.run("create", "--validate=warn", "-f", "-", given=wrong)
    assert warned.returncode == 0
    assert 'unknown field "spec.hostname"' in warned.stderr
    assert "hostname" not in json.loads(kubectl("get", "httproute", "shop", "-n", namespace, "-o", "json"))["spec"]
    bad = route.replace("a.example.com", "A_B").replace("name: shop,", "name: other,")
    assert "is invalid: spec.hostnames[0]" in kubectl.fails("create", "-f", "-", given=bad)


def test_wait_watch_and_status(kubectl: Any, namespace: str) -> None:
    kubectl("apply", "-f", "-", given=ROUTE.format(namespace=namespace, host="a.example.com"))
    waiting = subprocess.Popen(
        [
            str(kubectl._program),
            "wait",
            "--for=jsonpath={.status.parents[0].controllerName}=example.com/x",
            "httproute/shop",
            "-n",
            namespace,
            "--timeout=30s",
        ],
        env=kubectl._environment,
        stdout=subprocess.PIPE,
    )
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    condition["lastTransitionTime"] = "2026-01-02T03:04:05Z"
    parent = {"parentRef": {"name": "web"}, "controllerName": "example.com/x", "conditions": [condition]}
    patch = json.dumps({"status": {"parents": [parent]}, "spec": {"hostnames": ["ignored.example.com"]}})
    kubectl("patch", "httproute", "shop", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    assert waiting.wait(30) == 0
    seen = json.loads(kubectl("get", "httproute", "shop", "-n", namespace, "-o", "json"))
    assert seen["metadata"]["generation"] == 1
    assert seen["spec"]["hostnames"] == ["a.example.com"]


def test_scale_and_cascades(kubectl: Any, namespace: str) -> None:
    kubectl("create", "deployment", "d", "--image=nginx", "-n", namespace)
    kubectl("scale", "deployment", "d", "--replicas=3", "-n", namespace)
    assert kubectl("get", "deployment", "d", "-n", namespace).splitlines()[1].split()[1] == "0/3"
    uid = kubectl("get", "deployment", "d", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    owner = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": uid}]
    for name in ("kept", "gone"):
        kubectl("create", "configmap", name, "-n", namespace)
        patch = json.dumps({"metadata": {"ownerReferences": owner}})
        kubectl("patch", "configmap", name, "-n", namespace, "-p", patch)
        if name == "kept":
            kubectl("delete", "deployment", "d", "-n", namespace, "--cascade=orphan")
            kubectl("create", "deployment", "d", "--image=nginx", "-n", namespace)
            owner[0]["uid"] = kubectl("get", "deployment", "d", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    kubectl("delete", "deployment", "d", "-n", namespace)
    names = kubectl("get", "configmap", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}")
    assert names == "kept"


def test_deleting_a_namespace_takes_its_objects(kubectl: Any, namespace: str) -> None:
    kubectl("create", "configmap", "c", "-n", namespace)
    kubectl("delete", "namespace", namespace)
    assert "not found" in kubectl.fails("create", "configmap", "c", "-n", namespace)


def test_the_kubeconfig_is_private(kubectl: Any) -> None:
    path: Path = kubectl.server.kubeconfig
    assert path.stat().st_mode & 0o777 == 0o600
    assert "client-key-data" in path.read_text(encoding="utf-8")
