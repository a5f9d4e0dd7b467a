"""Who a controller is to the API server: a ServiceAccount that has the permissions of `--print-rbac`, and tokens."""

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml
from cluster_plane import Plane
from cluster_site import COMMAND
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

NAMESPACE, NAME = "propylon-system", "propylon"

_LEEWAY_SECONDS = 60
"""So much longer an API server takes a token than it is good for: clocks differ."""


class Account:
    """The ServiceAccount of the printed RBAC. Tokens are signed here, with the key of the control plane."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        printed = subprocess.run([*COMMAND, "--print-rbac"], capture_output=True, text=True, check=True).stdout
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        plane.apply(*yaml.safe_load_all(printed))
        found = plane.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}")
        self._uid = found["metadata"]["uid"]

    def token(self, seconds: float) -> str:
        """A token that ends after so many seconds (RFC 7519, in the form of Kubernetes' bound tokens)."""
        now = int(time.time())
        issuer = self._plane.cluster.url
        claims = {
            "iss": issuer,
            "aud": [issuer],
            "sub": f"system:serviceaccount:{NAMESPACE}:{NAME}",
            "iat": now - 3600,
            "nbf": now - 3600,
            "exp": now + int(seconds) - _LEEWAY_SECONDS,
            "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": {"name": NAME, "uid": self._uid}},
        }
        signed = f"{_encoded({'alg': 'ES256', 'typ': 'JWT'})}.{_encoded(claims)}"
        key = self._plane.cluster.directory / "certificates" / "service-accounts.key"
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32) + s.to_bytes(32))}"

    def kubeconfig(self, path: Path, port: int, user: dict[str, Any]) -> Path:
        """A kubeconfig that reaches the API server by this port, as this user."""
        config = json.loads(self._plane.cluster.kubeconfig.read_text())
        server = self._plane.cluster.url.rpartition(":")[0]
        config["clusters"][0]["cluster"]["server"] = f"{server}:{port}"
        config["contexts"][0]["context"]["namespace"] = NAMESPACE
        config["users"] = [{"name": "user", "user": user}]
        path.write_text(json.dumps(config))
        return path


def _encoded(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
