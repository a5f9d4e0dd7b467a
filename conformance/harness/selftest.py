"""Shows that the harness works, without any gateway: the suite's base manifests, requests to pods, logs, the end."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from . import netns
from .api import Api, Object, load_documents, wait_until
from .cluster import Cluster
from .embedded import Embedded
from .kubelet import Kubelet
from .pki import Authority

INFRASTRUCTURE = "gateway-conformance-infra"


class SelfTestError(Exception):
    """Something did not behave as a cluster does."""


async def self_test(
    cluster: Cluster | Embedded,
    kubelet: Kubelet,
    base: Path,
    directory: Path,
    say: Callable[[str], None],
    *,
    services: bool,
    check: Callable[[], None],
) -> None:
    """With ``services``, requests through a Service's addresses too. ``check`` raises if something that should run does
    not.

    Raises SelfTestError, TimeoutError or ApiError at the first thing that does not work."""
    api = cluster.api
    documents = [item for item in load_documents(base.read_text()) if item["kind"] != "Gateway"]
    namespaces = [item["metadata"]["name"] for item in documents if item["kind"] == "Namespace"]
    start = time.monotonic()
    await api.apply_all(documents)
    # After the Deployments, as the suite does.
    await api.apply_all(_secrets(directory))
    deployments = [item for item in documents if item["kind"] == "Deployment"]
    for deployment in deployments:
        await _available(api, deployment, check)
    for service in (item for item in documents if item["kind"] == "Service"):
        await _has_endpoints(api, service, check)
    pods = (await api.get("/api/v1/pods"))["items"]
    say(f"{len(deployments)} Deployments, {len(pods)} pods Ready in {time.monotonic() - start:.1f} s")

    by_app = {pod["metadata"]["labels"]["app"]: pod for pod in pods if pod["metadata"]["namespace"] == INFRASTRUCTURE}
    began = await _http(by_app["infra-backend-v1"], say)
    await _https(by_app["tls-backend"], say)
    await _udp(by_app["udp"], say)
    await _logs(api, by_app["infra-backend-v1"], began, say)
    if services:
        await _services(api, check, say)

    start = time.monotonic()
    for name in namespaces:
        await api.delete(f"/api/v1/namespaces/{name}")
    for name in namespaces:
        await wait_until(f"namespace {name} is gone", lambda name=name: _gone(api, name), seconds=60, check=check)  # type: ignore[misc]
    await wait_until("no pod has processes", lambda: _idle(kubelet), seconds=10, check=check)
    echoes = [name for name in netns.processes_left() if name in {"program", "sleep"}]
    if echoes:
        raise SelfTestError(f"processes of deleted pods are left: {echoes}")
    say(f"namespaces deleted, no process of a pod left, in {time.monotonic() - start:.1f} s")


def _secrets(directory: Path) -> list[Object]:
    authority = Authority(directory / "self-test")
    certificate, key = authority.issue("backend", "backend", names=["abc.example.com"])
    data = {
        "tls.crt": base64.b64encode(certificate.read_bytes()).decode(),
        "tls.key": base64.b64encode(key.read_bytes()).decode(),
    }
    wanted = [
        (INFRASTRUCTURE, "tls-checks-certificate"),
        (INFRASTRUCTURE, "tls-passthrough-checks-certificate"),
        ("gateway-conformance-app-backend", "tls-passthrough-checks-certificate"),
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": data,
        }
        for namespace, name in wanted
    ]


async def _available(api: Api, deployment: Object, check: Callable[[], None]) -> None:
    path = await api.path_of(deployment)
    wanted = deployment["spec"].get("replicas", 1)

    async def available() -> bool:
        status = (await api.get(path)).get("status", {})
        return bool(status.get("availableReplicas") == wanted == status.get("replicas"))

    await wait_until(f"{path} has {wanted} replicas available", available, seconds=60, check=check)


async def _has_endpoints(api: Api, service: Object, check: Callable[[], None]) -> None:
    metadata = service["metadata"]
    path = f"/apis/discovery.k8s.io/v1/namespaces/{metadata['namespace']}/endpointslices"
    selector = f"?labelSelector=kubernetes.io/service-name={metadata['name']}"

    async def ready() -> bool:
        slices = (await api.get(path + selector))["items"]
        endpoints = [endpoint for item in slices for endpoint in item["endpoints"] or []]
        return bool(endpoints) and all(endpoint["conditions"].get("ready") for endpoint in endpoints)

    name = f"{metadata['namespace']}/{metadata['name']}"
    await wait_until(f"Service {name} has ready endpoints", ready, seconds=30, check=check)


async def _http(pod: Object, say: Callable[[str], None]) -> str:
    """Asks a pod over HTTP. Returns the time before the request, for the logs."""
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ip, name = pod["status"]["podIP"], pod["metadata"]["name"]
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = (await client.get(f"http://{ip}:3000/self-test")).json()
    if (answer["pod"], answer["namespace"], answer["path"]) != (name, INFRASTRUCTURE, "/self-test"):
        raise SelfTestError(f"pod {name} answered {answer}")
    say(f"GET http://{ip}:3000/self-test: answered by pod {answer['pod']}")
    return began


async def _https(pod: Object, say: Callable[[str], None]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    ip = pod["status"]["podIP"]
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = (await client.get(f"https://{ip}:8443/")).json()
    if answer["pod"] != pod["metadata"]["name"]:
        raise SelfTestError(f"the TLS backend answered {answer}")
    say(f"GET https://{ip}:8443/: {answer['tls']['version']} with the certificate of its Secret")


async def _udp(pod: Object, say: Callable[[str], None]) -> None:
    ip = pod["status"]["podIP"]
    answer = await _ask_udp(ip)
    if answer["pod"] != pod["metadata"]["name"]:
        raise SelfTestError(f"the UDP backend answered {answer}")
    say(f"UDP {ip}:8080: answered by pod {answer['pod']}")


async def _ask_udp(ip: str, seconds: float = 5) -> Object:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, (ip, 8080))
        await loop.sock_sendall(client, b"gateway-api-conformance-udp-echo")
        answer: Object = json.loads(await asyncio.wait_for(loop.sock_recv(client, 2048), seconds))
        return answer


async def _services(api: Api, check: Callable[[], None], say: Callable[[str], None]) -> None:
    """Through the cluster's and the load balancer's address, TCP and UDP, to both pods of a Deployment."""
    path = f"/api/v1/namespaces/{INFRASTRUCTURE}/services"
    for name in ("infra-backend-v1", "udp-echo"):
        await api.merge(f"{path}/{name}", {"spec": {"type": "LoadBalancer"}})

    async def addressed() -> bool:
        found = [await api.get(f"{path}/{name}") for name in ("infra-backend-v1", "udp-echo")]
        return all(service["status"]["loadBalancer"].get("ingress") for service in found)

    await wait_until("the Services have load balancer addresses", addressed, seconds=10, check=check)
    service = await api.get(f"{path}/infra-backend-v1")
    for ip in (service["spec"]["clusterIP"], service["status"]["loadBalancer"]["ingress"][0]["ip"]):
        pods: set[str] = set()

        async def both(ip: str = ip, pods: set[str] = pods) -> bool:
            # A connection of its own for each request: that is what is spread over the pods.
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                pods.add((await client.get(f"http://{ip}:8080/")).json()["pod"])
            return len(pods) == 2

        await wait_until(f"{ip}:8080 leads to both pods", both, seconds=10, check=check)
        say(f"GET http://{ip}:8080/: answered by {' and '.join(sorted(pods))}")
    udp = await api.get(f"{path}/udp-echo")
    ip = udp["status"]["loadBalancer"]["ingress"][0]["ip"]

    async def answered() -> bool:
        try:
            return bool((await _ask_udp(ip, seconds=1))["service"] == "udp-echo")
        except OSError:  # refused, or TimeoutError: the translation is not written yet
            return False

    await wait_until(f"UDP {ip}:8080 is answered", answered, seconds=10, check=check)
    say(f"UDP {ip}:8080: answered by udp-echo")


async def _logs(api: Api, pod: Object, began: str, say: Callable[[str], None]) -> None:
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
    container = pod["spec"]["containers"][0]["name"]

    async def printed() -> bool:
        return "/self-test" in await api.text(path, {"container": container, "sinceTime": began})

    await wait_until("the request is in the pod's logs", printed, seconds=10)
    later = await api.text(path, {"container": container, "sinceTime": "2999-01-01T00:00:00Z"})
    if later:
        raise SelfTestError(f"logs since the year 2999: {later!r}")
    say(f"GET {path}: has the request")


async def _gone(api: Api, namespace: str) -> bool:
    return await api.find(f"/api/v1/namespaces/{namespace}") is None


async def _idle(kubelet: Kubelet) -> bool:
    return kubelet.running == 0
