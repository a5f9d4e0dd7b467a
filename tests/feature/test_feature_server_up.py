"""`propylon up` and kubectl together: env, users and what they may, objects of files, restarts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.instance import Instance, eventually
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = pytest.mark.feature

KUBECTL = str(Path(sys.executable).parent / "kubectl")


def run(kubeconfig: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)}
    command = [KUBECTL, *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def kubeconfig_of(instance: Instance) -> Path:
    def answered() -> Path | None:
        told = instance.run("env").stdout
        path = Path(told.removeprefix("export KUBECONFIG=").strip())
        return path if path.is_file() and run(path, "get", "--raw", "/readyz").stdout == "ok" else None

    return eventually(answered, "the Kubernetes API answers")


def test_kubectl_feeds_and_reads_an_instance(tmp_path: Path) -> None:
    manifests = write(tmp_path / "m", gateway=GATEWAY, services=service("a"))
    with Instance(tmp_path, str(manifests), "--echo", "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        kubeconfig = kubeconfig_of(instance)
        applied = run(kubeconfig, "apply", "-f", "-", given=route("shop", "shop.example.com", to("a")))
        assert applied.returncode == 0, applied.stderr
        accepted = "jsonpath={.status.parents[0].conditions[?(@.type=='Accepted')].status}=True"
        waited = run(kubeconfig, "wait", "httproute/shop", f"--for={accepted}", "--timeout=20s")
        assert waited.returncode == 0, waited.stderr
        with instance.client("default/web", "http") as client:
            assert eventually(lambda: client.get("shop.example.com", "/x").status_code == 200, "the route serves")
        listed = run(kubeconfig, "get", "gateways,httproutes").stdout
        assert "web" in listed
        assert "shop" in listed
        before = kubeconfig.read_text(encoding="utf-8")
        instance.kill()
        instance.start()
        instance.ready()
        assert kubeconfig_of(instance) == kubeconfig
        assert kubeconfig.read_text(encoding="utf-8") == before, "the address and the certificate stay"
        assert run(kubeconfig, "get", "httproute", "shop", "-o", "name").returncode == 0
        assert instance.stop() == 0


def test_a_developer_may_edit_routes_in_a_namespace_and_nothing_else(tmp_path: Path) -> None:
    roles = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: routes, namespace: default}
rules: [{apiGroups: [gateway.networking.k8s.io], resources: [httproutes], verbs: [get, list, watch, create, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: developers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: routes}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: developers}]
"""
    manifests = write(tmp_path / "m", gateway=GATEWAY, roles=roles)
    with Instance(tmp_path, str(manifests), "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        kubeconfig_of(instance)
        developer = tmp_path / "developer.yaml"
        issued = instance.run("user", "add", "ada", "--group", "developers", check=True).stdout
        developer.write_text(issued, encoding="utf-8")
        assert yaml.safe_load(issued)["users"][0]["name"] == "ada"
        assert "ada" in run(developer, "auth", "whoami").stdout
        made = run(developer, "apply", "-f", "-", given=route("mine", "mine.example.com", to("a")))
        assert made.returncode == 0, made.stderr
        for arguments in (
            ("get", "secrets"),
            ("get", "httproutes", "-n", "kube-system"),
            ("delete", "httproute", "mine"),
            ("patch", "gateway", "web", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}'),
            ("create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--user=ada"),
            ("get", "pods", "--as=root"),
        ):
            refused = run(developer, *arguments)
            assert "Forbidden" in refused.stderr or "forbidden" in refused.stderr, (arguments, refused)
        assert run(developer, "auth", "can-i", "delete", "gateways").stdout.strip() == "no"
        stranger = tmp_path / "stranger.yaml"
        document = yaml.safe_load(issued)
        document["users"][0]["user"] = {"token": "nonsense"}
        stranger.write_text(yaml.safe_dump(document), encoding="utf-8")
        assert "Unauthorized" in run(stranger, "get", "--raw", "/api").stderr + run(stranger, "get", "pods").stderr
        audit = (instance.data_dir / "api" / "audit.log").read_text(encoding="utf-8").splitlines()
        assert any(entry["user"] == "ada" and entry["code"] == 403 for entry in map(json.loads, audit))


def test_without_the_api(tmp_path: Path) -> None:
    manifests = write(tmp_path / "m", gateway=GATEWAY)
    with Instance(tmp_path, str(manifests), "--no-api", "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        assert instance.run("env").returncode == 3
        view = instance.run("config", "view", check=True).stdout
        assert ["api", "false"] in [line.split() for line in view.splitlines()]
