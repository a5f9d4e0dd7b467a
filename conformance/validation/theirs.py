"""What a real kube-apiserver says about an object: a dry run, so that nothing is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from propylon import api

from .ours import Answer, Part

_UNKNOWN_FIELD = re.compile(r'299 - "unknown field \\"((?:[^"\\]|\\.)*)\\""')


class ApiServer:
    """One API server, asked about documents."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._versions: dict[tuple[str, str], tuple[str, str]] = {}

    async def prepare_status(self, document: Mapping[str, Any]) -> None:
        """Creates the object, so that statuses can be written to it. Raises RuntimeError if it is refused."""
        answer = await self._client.post(self._collection(document), content=json.dumps(document))
        if answer.is_error:
            raise RuntimeError(f"{document['apiVersion']} {document['kind']}: {answer.text}")
        metadata = answer.json()["metadata"]
        self._versions[document["apiVersion"], document["kind"]] = metadata["name"], metadata["resourceVersion"]

    async def answer(self, document: Mapping[str, Any], part: Part) -> Answer:
        """The verdict on creating the object, or on writing its status to the prepared object of its kind."""
        parameters = {"dryRun": "All", "fieldValidation": "Warn"}
        path = self._collection(document)
        if part == "status":
            name, version = self._versions[document["apiVersion"], document["kind"]]
            metadata = {**document["metadata"], "name": name, "resourceVersion": version}
            response = await self._client.put(
                f"{path}/{name}/status", params=parameters, content=json.dumps({**document, "metadata": metadata})
            )
        else:
            response = await self._client.post(path, params=parameters, content=json.dumps(document))
        if response.is_error:
            message = (
                response.json().get("message", "") if "json" in response.headers["content-type"] else response.text
            )
            if response.status_code not in (400, 404, 405, 422):
                raise RuntimeError(f"{response.status_code}: {message}\n{json.dumps(document)[:2000]}")
            return Answer(False, reasons=(f"{response.status_code} {message[:600]}",))
        warnings = " ".join(response.headers.get_list("Warning"))
        dropped = [json.loads(f'"{match[1]}"') for match in _UNKNOWN_FIELD.finditer(warnings)]
        return Answer(True, response.json().get(part), tuple(sorted(dropped)))

    @staticmethod
    def _collection(document: Mapping[str, Any]) -> str:
        info = api.by_kind(api.group_of(document["apiVersion"]), document["kind"])
        assert info is not None
        root = f"/apis/{document['apiVersion']}" if "/" in document["apiVersion"] else f"/api/{document['apiVersion']}"
        namespace = f"/namespaces/{quote('default')}" if info.namespaced else ""
        return f"{root}{namespace}/{info.plural}"
