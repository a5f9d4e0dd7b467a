"""A small client of the Kubernetes API: plain REST with a client certificate."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
FIELD_MANAGER = "conformance-harness"
# The C one, where PyYAML has it: the CRDs are large.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ApiError(Exception):
    """The API answered with an error; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One connection pool to one API server."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            verify=context,
            trust_env=False,
            timeout=httpx.Timeout(30),
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
        )
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        parameters: Mapping[str, str] | None = None,
    ) -> Object:
        """One call with a JSON body and a JSON answer. Raises ApiError, or httpx.TransportError."""
        answer = await self._client.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Accept": "application/json"},
            params=parameters,
        )
        if answer.is_error:
            raise ApiError(answer.status_code, _message(answer))
        result: Object = answer.json()
        return result

    async def get(self, path: str) -> Object:
        """One object, or a list."""
        return await self.request("GET", path)

    async def find(self, path: str) -> Object | None:
        """Like ``get``, or None where there is nothing."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def text(self, path: str, parameters: Mapping[str, str] | None = None) -> str:
        """The answer as it is: logs, health."""
        answer = await self._client.get(path, params=parameters)
        if answer.is_error:
            raise ApiError(answer.status_code, _message(answer))
        return answer.text

    async def create(self, path: str, body: Object) -> Object:
        """Creates an object, ``path`` being that of its collection."""
        return await self.request("POST", path, body)

    async def merge(self, path: str, body: Object) -> Object:
        """JSON merge patch (RFC 7396)."""
        return await self.request("PATCH", path, body, content_type="application/merge-patch+json")

    async def delete(self, path: str, body: Object | None = None) -> None:
        """Deletes an object; that it is gone already is no error."""
        try:
            await self.request("DELETE", path, body)
        except ApiError as error:
            if error.status != 404:
                raise

    async def apply(self, document: Object) -> Object:
        """Server-side apply, taking over every field."""
        path = await self.path_of(document)
        parameters = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self.request(
            "PATCH", path, document, content_type="application/apply-patch+yaml", parameters=parameters
        )

    async def apply_all(self, documents: Iterable[Object]) -> list[Object]:
        """Applies in the order given and returns what was written."""
        return [await self.apply(document) for document in documents]

    async def path_of(self, document: Object) -> str:
        """An object's path, by discovery. Namespaced objects without a namespace go to ``default``."""
        version, kind = document["apiVersion"], document["kind"]
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in self._kinds.get(version, {}):
            resources = (await self.get(prefix))["resources"]
            self._kinds[version] = {
                entry["kind"]: (entry["name"], entry["namespaced"]) for entry in resources if "/" not in entry["name"]
            }
        if kind not in self._kinds[version]:
            raise ApiError(404, f"the API server does not serve {kind} of {version}")
        plural, namespaced = self._kinds[version][kind]
        metadata = document["metadata"]
        namespace = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{prefix}{namespace}/{plural}/{metadata['name']}"

    async def follow(self, path: str) -> AsyncIterator[tuple[str, Object]]:
        """Lists a collection, then watches it, for ever: ("SYNC", list), then (ADDED | MODIFIED | DELETED, object).

        After a lost watch there is another SYNC. What its list lacks has been deleted meanwhile.
        """
        while True:
            listed = await self.get(path)
            yield "SYNC", listed
            version = listed["metadata"]["resourceVersion"]
            try:
                async for kind, item in self._watch(path, version):
                    yield kind, item
            except (ApiError, httpx.TransportError):
                # The list that follows tells whether the server is still there.
                continue

    async def _watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        parameters = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3000"}
        forever = httpx.Timeout(30, read=None)
        async with self._client.stream("GET", path, params=parameters, timeout=forever) as answer:
            if answer.is_error:
                await answer.aread()
                raise ApiError(answer.status_code, _message(answer))
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 500), event["object"].get("message", ""))
                yield event["type"], event["object"]


async def wait_until(
    what: str, condition: Callable[[], Awaitable[bool]], *, seconds: float, check: Callable[[], None] | None = None
) -> None:
    """Asks until the condition holds, five times a second. ``check`` may raise to end the wait early.

    Connection errors and API errors count as "not yet". Raises TimeoutError, naming ``what``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    last = ""
    while True:
        if check is not None:
            check()
        try:
            if await condition():
                return
        except (ApiError, httpx.TransportError) as error:
            last = f" (last answer: {error})"
        if loop.time() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}{last}")
        await asyncio.sleep(0.2)


def has_condition(document: Object, kind: str) -> bool:
    """True if a status has the condition with status True. The API may write ``null`` for an empty list."""
    conditions = (document.get("status") or {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def load_documents(text: str) -> list[Object]:
    """The objects of a YAML stream, empty documents left out."""
    return [document for document in yaml.load_all(text, Loader=_LOADER) if document]


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
