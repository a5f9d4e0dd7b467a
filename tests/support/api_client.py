"""A plain client of the embedded Kubernetes API: the administrator's certificate, one connection, JSON."""

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


class ApiClient:
    """One client. Requests raise OSError or http.client.HTTPException when the server goes away."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        """`directory` is where its keys are written."""
        config = yaml.safe_load(kubeconfig.read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        directory.mkdir(parents=True, exist_ok=True)
        keys = {"client-certificate-data": "admin.crt", "client-key-data": "admin.key"}
        for field, file in keys.items():
            (directory / file).write_bytes(base64.b64decode(user[field]))
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        self.context.load_cert_chain(directory / "admin.crt", directory / "admin.key")
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        self.place = host, int(port)
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self.place, context=self.context, timeout=30)

    def close(self) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """Code and JSON body of the answer."""
        raw = None if body is None else json.dumps(body)
        self._connection.request(method, path, raw, {"Content-Type": content_type, "Accept": "application/json"})
        answered = self._connection.getresponse()
        return answered.status, json.loads(answered.read() or b"{}")

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """The events of a watch until the server ends it or goes away, over a connection of its own."""
        connection = self._connect()
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answered = connection.getresponse()
            while line := answered.readline():
                yield json.loads(line)
        finally:
            connection.close()
