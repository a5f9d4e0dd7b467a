"""The running instance explains itself, and does what it says."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

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
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {value: /cart}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
    backendRefs: [{name: cart, port: 80}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: nosuch, port: 80}]
"""


def test_the_running_instance_explains_what_it_does(tmp_path: Path) -> None:
    port = free_port()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text(MANIFESTS.replace("PORT", str(port)))

    def explain(path: str) -> tuple[int, dict]:
        arguments = ["explain", f"http://a.test:{port}{path}", "-o", "json", "--data-dir", str(instance.data_dir)]
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
        return done.returncode, json.loads(done.stdout or "{}") or {"error": done.stderr}

    def ask(path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}", headers={"Host": f"a.test:{port}"}, trust_env=False)

    with Instance(tmp_path, "--echo", str(manifests)) as instance:
        eventually(lambda: ask("/cart").status_code == 200, "the route is served", 60)
        code, found = explain("/cart/1")
        assert (code, found["outcome"], found["status"]) == (0, "forwarded", None)
        assert found["winner"]["place"]["file"] == str(manifests / "all.yaml")
        (backend,) = found["backends"]
        assert backend["endpoints"]
        assert backend["path"] == "/new/1"
        assert backend["path"] in ask("/cart/1").text
        for path, status in (("/gone", 500), ("/nosuch", 404)):
            code, found = explain(path)
            assert (code, found["status"], ask(path).status_code) == (1, status, status)
        done = subprocess.run(
            [*COMMAND, "explain", "ftp://x", "--data-dir", str(instance.data_dir)], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "scheme" in done.stderr
