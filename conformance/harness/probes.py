"""Whether a pod is ready: its containers' readiness probes, or that something listens in it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

import httpx

from .api import Object
from .netns import Sandbox

_INSECURE = ssl.create_default_context()
_INSECURE.check_hostname = False
_INSECURE.verify_mode = ssl.CERT_NONE  # a kubelet does not verify either


async def is_ready(containers: Sequence[Object], sandbox: Sandbox) -> bool:
    """True if every readiness probe succeeds once, or, where there is none, if the pod listens somewhere.

    httpGet and tcpSocket are asked; other kinds of probe count as successful.
    """
    probed = [container for container in containers if "readinessProbe" in container]
    if not probed:
        return sandbox.listens()
    for container in probed:
        if not await _succeeds(container["readinessProbe"], container, sandbox.ip):
            return False
    return True


async def _succeeds(probe: Object, container: Object, ip: str) -> bool:
    seconds = float(probe.get("timeoutSeconds", 1))
    if check := probe.get("httpGet"):
        scheme = check.get("scheme", "HTTP").lower()
        host = check.get("host") or ip
        url = f"{scheme}://{host}:{_port(check['port'], container)}{check.get('path', '/')}"
        headers = {entry["name"]: entry["value"] for entry in check.get("httpHeaders", [])}
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(verify=_INSECURE, trust_env=False, timeout=seconds) as client:
                return (await client.get(url, headers=headers)).status_code < 400
        return False
    if check := probe.get("tcpSocket"):
        with contextlib.suppress(OSError, TimeoutError):
            opening = asyncio.open_connection(check.get("host") or ip, _port(check["port"], container))
            _, writer = await asyncio.wait_for(opening, seconds)
            writer.close()
            return True
        return False
    return True


def _port(port: int | str, container: Object) -> int:
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    return int(port)
