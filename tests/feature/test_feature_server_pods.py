"""Proxies as Pods of a Node that is this machine, their logs, and Events, seen by kubectl."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from propylon.server.credentials import Credentials
from support.instance import Instance, eventually
from support.manifests import GATEWAY, OFFSET, route, service, to, write

pytestmark = pytest.mark.feature

KUBECTL = str(Path(sys.executable).parent / "kubectl")
POD = "web-propylon"


class Site:
    """An instance and kubectl for it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.environment = {**os.environ, "KUBECONFIG": str(instance.data_dir / "kubeconfig"), "HOME": "/nonexistent"}

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [KUBECTL, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment,
        )

    def __call__(self, *arguments: str, given: str = "") -> str:
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def pod(self) -> dict[str, Any]:
        return self.get("pod", POD)

    def container(self) -> dict[str, Any]:
        status: dict[str, Any] = self.pod()["status"]["containerStatuses"][0]
        return status

    def events(self, name: str, reason: str) -> list[dict[str, Any]]:
        selector = f"involvedObject.name={name},reason={reason}"
        items: list[dict[str, Any]] = self.get("events", "--field-selector", selector)["items"]
        return items


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("pods")
    manifests = write(
        directory / "m", gateway=GATEWAY, services=service("a"), route=route("shop", "shop.example.com", to("a"))
    )
    with Instance(directory, str(manifests), "--echo", "--port-offset", str(OFFSET)) as instance:
        instance.ready()
        found = Site(instance)
        eventually(lambda: found.run("get", "--raw", "/readyz").stdout == "ok", "the API answers")
        eventually(lambda: found.container()["ready"], "the Pod is ready")
        yield found


def test_the_machine_is_a_node(site: Site) -> None:
    (node,) = site.get("nodes")["items"]
    conditions = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert int(node["status"]["capacity"]["cpu"]) == os.cpu_count()
    described = site("describe", "node", node["metadata"]["name"])
    assert "Non-terminated Pods:          (1 in total)" in described
    line = site("get", "nodes", "--no-headers").split()
    assert line[:2] == [node["metadata"]["name"], "Ready"]


def test_the_proxy_is_a_pod(site: Site) -> None:
    pod = site.pod()
    gateway = site.get("gateway", "web")
    assert pod["metadata"]["ownerReferences"][0]["uid"] == gateway["metadata"]["uid"]
    assert pod["status"]["podIP"] == gateway["status"]["addresses"][0]["value"]
    assert pod["spec"]["nodeName"] == site.get("nodes")["items"][0]["metadata"]["name"]
    by_label = site("get", "pods", "-A", "-l", "gateway.networking.k8s.io/gateway-name=web", "-o", "name")
    assert by_label.split() == [f"pod/{POD}"]
    line = site("get", "pods", "-A", "-o", "wide", "--no-headers").split()
    assert line[:5] == ["default", POD, "1/1", "Running", "0"]
    assert pod["status"]["podIP"] in line
    assert f"Controlled By:  Gateway/{gateway['metadata']['name']}" in site("describe", "pod", POD)
    by_node = site("get", "pods", "-A", "--field-selector", f"spec.nodeName={pod['spec']['nodeName']}", "-o", "name")
    assert by_node.split() == [f"pod/{POD}"]


def test_labels_follow_the_gateway(site: Site) -> None:
    version = json.loads(site("get", "--raw", "/api/v1/namespaces/default/pods"))["metadata"]["resourceVersion"]
    infrastructure = {"labels": {"team": "edge"}, "annotations": {"example.com/note": "hello"}}
    site("patch", "gateway", "web", "--type=merge", "-p", json.dumps({"spec": {"infrastructure": infrastructure}}))
    site("wait", f"pod/{POD}", "--for=jsonpath={.metadata.labels.team}=edge", "--timeout=20s")
    pod = site.pod()
    assert pod["metadata"]["annotations"] == {"example.com/note": "hello"}
    assert int(pod["metadata"]["resourceVersion"]) > int(version)
    path = f"/api/v1/namespaces/default/pods?watch=true&timeoutSeconds=1&resourceVersion={version}"
    changes = [json.loads(line) for line in site("get", "--raw", path).splitlines()]
    assert changes[-1]["type"] == "MODIFIED"
    assert changes[-1]["object"]["metadata"]["labels"]["team"] == "edge"


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "pod", POD, "--wait=false"),
        ("label", "pod", POD, "a=b"),
        ("patch", "pod", POD, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Failed"}}'),
    ],
)
def test_nobody_writes_it(site: Site, arguments: tuple[str, ...]) -> None:
    refused = site.run(*arguments)
    assert refused.returncode != 0
    assert "read-only: it shows a running proxy; change its Gateway instead" in refused.stderr
    assert site.container()["ready"]


def test_other_pods_are_stored_as_before(site: Site) -> None:
    site("run", "mine", "--image=x")
    assert site("get", "pods", "-o", "name").split() == ["pod/mine", f"pod/{POD}"]
    assert "does not have a host assigned" in site.run("logs", "mine").stderr
    site("delete", "pod", "mine")
    assert site("get", "pods", "-o", "name").split() == [f"pod/{POD}"]


def test_logs(site: Site) -> None:
    with site.instance.client("default/web", "http") as client:
        assert eventually(lambda: client.get("shop.example.com", "/first").status_code == 200, "the route serves")
        eventually(lambda: "/first" in site("logs", POD), "the request is in the log")
        followed = subprocess.Popen(
            [KUBECTL, "logs", "-f", "--tail=1", POD], stdout=subprocess.PIPE, text=True, env=site.environment
        )
        try:
            assert followed.stdout is not None
            assert followed.stdout.readline()
            client.get("shop.example.com", "/second")
            assert any("/second" in line for line in followed.stdout)
        finally:
            followed.kill()
            followed.wait()
            followed.stdout.close()
    assert "/first" not in site("logs", POD, "--tail=1")
    stamped = site("logs", POD, "--since=1h", "--timestamps", "--tail=1")
    time, _, rest = stamped.partition(" ")
    assert time.endswith("Z")
    assert time[:19] in rest
    assert site("logs", POD, "--since-time=2999-01-01T00:00:00Z") == ""
    assert "container other is not valid for pod" in site.run("logs", POD, "-c", "other").stderr
    assert "previous terminated container" in site.run("logs", POD, "--previous").stderr


def test_a_crash(site: Site) -> None:
    before = site.container()
    os.kill(int(before["containerID"].rpartition("/")[2]), signal.SIGKILL)
    after = eventually(lambda: (found := site.container())["restartCount"] and found["ready"] and found, "it restarted")
    assert after["containerID"] != before["containerID"]
    assert after["lastState"]["terminated"]["startedAt"] == before["state"]["running"]["startedAt"]
    assert "/first" in site("logs", POD, "--previous")
    assert "/first" not in site("logs", POD)
    (told,) = eventually(lambda: site.events("web", "ProxyExited"), "the Gateway has an Event")
    assert (told["type"], told["source"]["component"]) == ("Warning", "propylon")
    assert "ProxyExited" in site("describe", "gateway", "web")
    assert "ProxyExited" in site("describe", "pod", POD)
    assert "Gateway/web" in site("events", "--for", "gateway/web")


def test_events_of_findings(site: Site) -> None:
    assert eventually(lambda: site.events("web", "Programmed"), "the Gateway is programmed")[0]["type"] == "Normal"
    site("apply", "-f", "-", given=route("broken", "broken.example.com", to("nothing")))
    (told,) = eventually(lambda: site.events("broken", "BackendNotFound"), "the finding is told")
    assert told["involvedObject"]["uid"] == site.get("httproute", "broken")["metadata"]["uid"]
    assert told["involvedObject"]["fieldPath"] == "spec.rules[0].backendRefs[0]"
    assert "BackendNotFound" in site("describe", "httproute", "broken")
    mend = '[{"op":"replace","path":"/spec/rules/0/backendRefs/0/name","value":"%s"}]'
    site("patch", "httproute", "broken", "--type=json", "-p", mend % "a")
    resolved = "jsonpath={.status.parents[0].conditions[?(@.type=='ResolvedRefs')].status}"
    site("wait", "httproute/broken", f"--for={resolved}=True", "--timeout=20s")
    eventually(lambda: not site.instance.status()["errors"], "it is mended")
    site("patch", "httproute", "broken", "--type=json", "-p", mend % "nothing")
    eventually(lambda: site.events("broken", "BackendNotFound")[0]["count"] == 2, "the repetition is counted")
    site("delete", "httproute", "broken")


def test_clients_create_events(site: Site) -> None:
    event = """
apiVersion: v1
kind: Event
metadata: {generateName: web-, namespace: default}
involvedObject: {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: web, namespace: default}
reason: Painted
message: It is green now
type: Normal
source: {component: painter}
firstTimestamp: "2999-01-01T00:00:00Z"
lastTimestamp: "2999-01-01T00:00:00Z"
"""
    site("create", "-f", "-", given=event)
    assert "It is green now" in site("events", "--for", "gateway/web")
    assert site.events("web", "Painted")[0]["source"] == {"component": "painter"}


def test_logs_of_a_stored_pod_come_from_its_node(site: Site, tmp_path: Path) -> None:
    """Of a pod on another Node, that Node's kubelet is asked, over mutual TLS of the API's authority."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello from the kubelet\n")

        def log_message(self, *_: object) -> None:
            pass

    for name in ("ca.crt", "ca.key"):
        shutil.copy(site.instance.data_dir / "api" / name, tmp_path)
    credentials = Credentials(tmp_path)
    credentials.ensure_server_certificate(["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(credentials.ca_path))
    context.load_cert_chain(credentials.server_certificate, credentials.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    kubelet = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kubelet.socket = context.wrap_socket(kubelet.socket, server_side=True)
    thread = threading.Thread(target=kubelet.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.server_port}},
        }
        site("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "far"}}))
        change = json.dumps({"status": status})
        site("patch", "node", "far", "--subresource=status", "--type=merge", "-p", change)
        spec = {"nodeName": "far", "containers": [{"name": "c", "image": "x"}]}
        site("run", "remote", "--image=x", "--overrides", json.dumps({"apiVersion": "v1", "spec": spec}))
        assert site("logs", "remote", "--tail=5") == "hello from the kubelet\n"
        assert asked == ["/containerLogs/default/remote/c?tailLines=5"]
    finally:
        kubelet.shutdown()
        thread.join()
        kubelet.server_close()
    refused = site.run("logs", "remote")
    assert f"127.0.0.1:{kubelet.server_port}/containerLogs/default/remote/c" in refused.stderr
    site("delete", "pod/remote", "node/far")


def test_the_pod_goes_with_its_gateway(site: Site) -> None:
    (site.instance.data_dir.parent / "m" / "gateway.yaml").unlink()
    eventually(lambda: POD not in site("get", "pods", "-o", "name"), "the Pod is gone", seconds=30)
    assert "not found" in site.run("logs", POD).stderr
