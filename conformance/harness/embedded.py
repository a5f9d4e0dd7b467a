"""The program under test as the control plane: it serves the Kubernetes API itself, over a store of its own.

What is agreed: it serves ``URL``, writes an administrator's kubeconfig to ``kubeconfig``, and has its certificate
authority in ``api/ca.crt`` and ``api/ca.key`` beside it, by which the kubelet proves who it is.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from . import netns
from .api import Api, ApiError, wait_until
from .cluster import API_PORT
from .pki import Authority

_READY_SECONDS = 60


class Embedded:
    """Stands where ``Cluster`` stands in other modes. Starts nothing: the controller does."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.url = f"https://{netns.NODE_IP}:{API_PORT}"
        self.kubeconfig = self.data / "kubeconfig"
        self._api: Api | None = None
        self._authority: Authority | None = None

    @property
    def api(self) -> Api:
        """A client of it, once it is ready."""
        assert self._api is not None, "wait_ready first"
        return self._api

    @property
    def authority(self) -> Authority:
        """The program's own certificate authority, once it is ready."""
        assert self._authority is not None, "wait_ready first"
        return self._authority

    async def wait_ready(self, check: Callable[[], None]) -> None:
        """Returns when the API answers. Raises TimeoutError, or what ``check`` raises."""

        async def ready() -> bool:
            if not self.kubeconfig.exists():
                return False
            api = Api(self.url, _client_context(self.kubeconfig))
            try:
                answered = await api.text("/readyz") == "ok"
            except (ApiError, httpx.TransportError):
                answered = False
            if not answered:
                await api.close()
                return False
            self._api = api
            return True

        await wait_until("the embedded API is ready", ready, seconds=_READY_SECONDS, check=check)
        self._authority = Authority.adopt(self.data / "harness", self.data / "api" / "ca.crt", self.data / "api/ca.key")

    def check(self) -> None:
        """Nothing of it runs apart from the controller."""

    async def stop(self) -> None:
        """Closes the client's connections."""
        if self._api is not None:
            await self._api.close()


def _client_context(kubeconfig: Path) -> ssl.SSLContext:
    """TLS settings of the kubeconfig's only user."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]

    def plain(text: str) -> str:
        return base64.b64decode(text).decode()

    context = ssl.create_default_context(cadata=plain(cluster["certificate-authority-data"]))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(plain(user["client-certificate-data"]) + plain(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
