"""The roles of examples/rbac: users of `propylon user add`, real kubectl, what they may and what not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kubectl import kubectl

__all__ = ["kubectl"]

pytestmark = pytest.mark.feature

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "rbac"
Run = Callable[..., subprocess.CompletedProcess[str]]
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{hostnames: [{name}.example.com]}}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: edge}
spec: {gatewayClassName: mine, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mine}
spec: {controllerName: example.com/c}
"""


@pytest.fixture(scope="module")
def roles(kubectl: Any) -> None:
    kubectl("apply", "-f", str(EXAMPLES))
    kubectl("create", "namespace", "edge")
    kubectl("create", "secret", "generic", "hidden", "-n", "shop")


@pytest.fixture
def as_user(kubectl: Any, tmp_path: Path) -> Callable[[str, str], Run]:
    """Makes a user of a group and gives what runs kubectl as that user."""

    def make(name: str, group: str) -> Run:
        data_dir = str(Path(kubectl.server.kubeconfig).parent)
        command = [sys.executable, "-m", "propylon", "user", "add", name, "--group", group, "--data-dir", data_dir]
        issued = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        kubeconfig = tmp_path / f"{name}.yaml"
        kubeconfig.write_text(issued, encoding="utf-8")

        def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
            done: subprocess.CompletedProcess[str] = kubectl.run(
                *arguments, "--kubeconfig", str(kubeconfig), given=given
            )
            return done

        return run

    return make


def refused(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode != 0 and "orbidden" in done.stderr


@pytest.mark.usefixtures("roles")
def test_a_developer_edits_routes_of_a_namespace_and_nothing_else(as_user: Any) -> None:
    dora = as_user("dora", "shop-developers")
    for arguments in (("create",), ("apply",), ("apply", "--server-side", "--force-conflicts"), ("replace",)):
        done = dora(*arguments, "-f", "-", given=ROUTE.format(name="cart", namespace="shop"))
        assert done.returncode == 0, done.stderr
    assert dora("get", "httproutes", "-n", "shop", "-o", "name").stdout == "httproute.gateway.networking.k8s.io/cart\n"
    assert dora("label", "httproute", "cart", "a=b", "-n", "shop").returncode == 0
    assert dora("delete", "httproute", "cart", "-n", "shop").returncode == 0
    assert refused(dora("apply", "-f", "-", given=ROUTE.format(name="cart", namespace="edge")))
    assert refused(dora("apply", "-f", "-", given=GATEWAY.replace("edge", "shop")))
    for arguments in (
        ("get", "httproutes", "-A"),
        ("get", "secrets", "-n", "shop"),
        ("get", "services", "-n", "shop"),
        ("get", "namespaces"),
        ("get", "gateways", "-n", "shop"),
        ("create", "configmap", "mine", "-n", "shop"),
        ("patch", "httproute", "cart", "-n", "shop", "--subresource=status", "--type=merge", "-p", "{}"),
        ("create", "rolebinding", "more", "--clusterrole=cluster-admin", "--user=dora", "-n", "shop"),
        ("create", "token", "default", "-n", "shop"),
        ("get", "httproutes", "-n", "edge"),
        ("get", "pods", "-n", "shop", "--as=admin"),
    ):
        assert refused(dora(*arguments)), arguments


@pytest.mark.usefixtures("roles")
def test_an_operator_edits_gateways_and_reads_routes(as_user: Any) -> None:
    olga = as_user("olga", "cluster-operators")
    assert olga("apply", "-f", "-", given=GATEWAY).returncode == 0
    assert olga("label", "namespace", "shop", "edge=yes").returncode == 0
    assert olga("get", "httproutes", "-A").returncode == 0
    assert olga("create", "secret", "generic", "tls", "-n", "edge").returncode == 0
    assert refused(olga("apply", "-f", "-", given=ROUTE.format(name="a", namespace="edge")))
    assert refused(olga("apply", "-f", "-", given=CLASS))
    assert refused(olga("delete", "namespace", "shop"))
    assert refused(olga("create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--user=olga"))


@pytest.mark.usefixtures("roles")
def test_a_provider_edits_classes_and_reads_gateways(as_user: Any) -> None:
    paul = as_user("paul", "infrastructure-providers")
    assert paul("apply", "-f", "-", given=CLASS).returncode == 0
    assert paul("create", "namespace", "team").returncode == 0
    assert paul("get", "gateways,httproutes", "-A").returncode == 0
    assert refused(paul("apply", "-f", "-", given=GATEWAY))
    assert refused(paul("get", "secrets", "-A"))
    assert refused(paul("create", "clusterrole", "more", "--verb=*", "--resource=secrets"))
