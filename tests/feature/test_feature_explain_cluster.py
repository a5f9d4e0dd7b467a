"""`explain` and `diff` of a Kubernetes cluster by kubeconfig: the API is that of `propylon up`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.envoy_proxy import free_port
from support.instance import COMMAND, Instance, eventually

pytestmark = pytest.mark.feature

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: example.com/c}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: c
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: PORT, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{name: http, port: BACKEND, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart, port: 80}]
  - matches: [{path: {value: /empty}}]
    backendRefs: [{name: empty, port: 80}]
"""


def run(*arguments: str) -> tuple[int, Any, str]:
    done = subprocess.run([*COMMAND, *arguments, "-o", "json"], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def cluster_of(kubeconfig: Path) -> tuple[str, ...]:
    return "--kubeconfig", str(kubeconfig)


def test_a_cluster_is_explained_and_compared(tmp_path: Path) -> None:
    port, backend = free_port(), free_port()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    text = MANIFESTS.replace("PORT", str(port)).replace("BACKEND", str(backend))
    (manifests / "all.yaml").write_text(text)
    url = f"http://a.test:{port}"
    with Instance(tmp_path, str(manifests)) as instance:
        kubeconfig = instance.data_dir / "kubeconfig"

        def explain(path: str, *arguments: str) -> tuple[int, Any, str]:
            return run("explain", url + path, "--kubeconfig", str(kubeconfig), *arguments)

        def served() -> bool:
            answer = httpx.get(f"http://127.0.0.1:{port}/empty", headers={"Host": "a.test"}, trust_env=False)
            return answer.status_code == 503 and kubeconfig.is_file() and explain("/cart")[0] != 2

        eventually(served, "the route and the API are served", 60)

        code, found, _ = explain("/cart/1")
        assert (code, found["outcome"]) == (0, "forwarded")
        assert found["backends"][0]["endpoints"] == [f"127.0.0.1:{backend}"]
        assert found["winner"]["object"] == "HTTPRoute shop/r"
        assert found["winner"]["place"] is None
        assert "127.0.0.1" in found["gates"][0]["why"]
        code, found, _ = explain("/empty")
        assert (code, found["status"]) == (1, 503)
        assert explain("/nosuch")[1]["status"] == 404

        context = yaml.safe_load(kubeconfig.read_text())["current-context"]
        assert explain("/cart", "--context", context)[0] == 0
        code, _, message = explain("/cart", "--context", "nosuch")
        assert code == 2
        assert "nosuch" in message
        assert context in message  # what there is
        assert explain("/cart", "--manifests", str(manifests))[0] == 2

        code, found, _ = run("check", *cluster_of(kubeconfig))
        assert (code, found["findings"]) == (0, [])

        # Applying the same changes nothing, whoever is asked; a changed rule does, and objects it leaves out stay.
        cluster = cluster_of(kubeconfig)
        code, found, _ = run("diff", "cluster:", str(manifests), *cluster)
        assert (code, found["changes"], found["conditions"]) == (0, [], [])
        changed = tmp_path / "changed.yaml"
        route = next(d for d in yaml.safe_load_all(text) if d["kind"] == "HTTPRoute")
        route["spec"]["rules"][0]["matches"][0]["path"]["value"] = "/basket"
        changed.write_text(yaml.safe_dump(route))
        code, found, _ = run("diff", f"cluster:{context}", str(changed), *cluster)
        assert code == 1
        assert sorted(each["before"] for each in found["changes"]) == ["", "HTTPRoute shop/r rule 0"]
        assert [(each["object"], each["change"]) for each in found["objects"]] == [("HTTPRoute shop/r", "changed")]
        code, found, _ = run("diff", f"instance:{instance.data_dir}", str(changed))
        assert code == 1
        assert "removed" in {each["change"] for each in found["objects"]}  # all there is
    code, _, message = explain("/cart")
    assert code == 2
    assert "does not answer" in message
