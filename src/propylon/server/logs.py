"""`pods/log`: what containers print. Of pods that are shown here the program that runs them knows; of stored pods
their node does, which is asked as Kubernetes asks a kubelet: `GET /containerLogs/NAMESPACE/POD/CONTAINER` over mutual
TLS with certificates of our authority, at the address and port of the Node's status.
"""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from propylon.api.meta import ObjectRef
from propylon.server import errors
from propylon.server.errors import ApiError
from propylon.server.lists import whole_number
from propylon.server.machine import LogOptions, OwnLog
from propylon.server.requests import Answer, Request
from propylon.store import LocalStore, NotFound

if TYPE_CHECKING:
    from propylon.server.credentials import Credentials

KUBELET_CLIENT = ("propylon", ("system:masters",))
"""As whom nodes are asked."""
_CONNECT_SECONDS = 10.0
_TEXT = "text/plain; charset=utf-8"

Document = Mapping[str, Any]


def no_own_logs(_ref: ObjectRef, _options: LogOptions) -> AsyncIterator[bytes] | None:
    """Nothing runs here."""
    return None


def log_options(request: Request, now: dt.datetime) -> LogOptions:
    """Read the parameters of a request. Raises ApiError (400, 422)."""
    said = request.parameters
    since: dt.datetime | None = None
    if said.get("sinceSeconds") and said.get("sinceTime"):
        raise _invalid("at most one of `sinceTime` or `sinceSeconds` may be specified", "")
    if said.get("sinceSeconds"):
        seconds = _positive(said, "sinceSeconds")
        since = now - dt.timedelta(seconds=min(seconds, 10**9))
    elif said.get("sinceTime"):
        try:
            since = dt.datetime.fromisoformat(said["sinceTime"].replace("Z", "+00:00"))
        except ValueError as error:
            raise errors.bad_request(f'parsing time "{said["sinceTime"]}" as RFC 3339: cannot parse') from error
        if since.tzinfo is None:
            raise errors.bad_request(f'parsing time "{said["sinceTime"]}" as RFC 3339: no time zone')
    return LogOptions(
        container=said.get("container", ""),
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        since=since,
        tail=whole_number(said, "tailLines") if said.get("tailLines") else None,
        limit_bytes=_positive(said, "limitBytes") if said.get("limitBytes") else None,
        timestamps=request.flag("timestamps"),
    )


def _positive(said: Mapping[str, str], name: str) -> int:
    value = whole_number(said, name)
    if value < 1:
        raise _invalid("must be greater than 0", name)
    return value


def _invalid(message: str, field: str) -> ApiError:
    text = f"{field}: Invalid value: {message}" if field else f"Forbidden: {message}"
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": field}
    details = {"kind": "PodLogOptions", "name": "", "causes": [cause]}
    return ApiError(422, "Invalid", f'PodLogOptions "" is invalid: {text}', details)


def container_of(pod: Document, wanted: str) -> str:
    """The container whose log is meant. Raises ApiError (400) if there is none of that name, or a choice."""
    spec = pod.get("spec") or {}
    groups = ("containers", "initContainers", "ephemeralContainers")
    names = {group: [str(entry.get("name")) for entry in spec.get(group) or []] for group in groups}
    name = pod["metadata"]["name"]
    if wanted:
        if not any(wanted in found for found in names.values()):
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    usual = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if usual in names["containers"]:
        return str(usual)
    if len(names["containers"]) == 1 and not names["initContainers"]:
        return names["containers"][0]
    choices = f"choose one of: [{' '.join(names['containers'])}]"
    if names["initContainers"]:
        choices += f" or one of the init containers: [{' '.join(names['initContainers'])}]"
    raise errors.bad_request(f"a container name must be specified for pod {name}, {choices}")


def kubelet_of(node: Document) -> tuple[str, int] | None:
    """Address and port at which a Node's kubelet says it is; None if it does not."""
    status = node.get("status") or {}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    addresses = {entry.get("type"): entry.get("address") for entry in reversed(status.get("addresses") or [])}
    address = addresses.get("InternalIP") or addresses.get("ExternalIP") or addresses.get("Hostname")
    return (str(address), port) if address and isinstance(port, int) and 0 < port < 65536 else None


class PodLogs:
    """Answers requests for logs."""

    def __init__(self, store: LocalStore, credentials: Credentials, own: OwnLog) -> None:
        self._store = store
        self._credentials = credentials
        self._own = own
        self._context: ssl.SSLContext | None = None

    async def answer(self, request: Request, pod: Document) -> Answer:
        """The log of one of the pod's containers. Raises ApiError."""
        options = log_options(request, dt.datetime.now(dt.UTC))
        options = msgspec.structs.replace(options, container=container_of(pod, options.container))
        metadata = pod["metadata"]
        own = self._own(ObjectRef("", "Pod", metadata["namespace"], metadata["name"]), options)
        if own is not None:
            return Answer(stream=own, content_type=_TEXT)
        return await self._of_node(request, pod, options.container)

    async def _of_node(self, request: Request, pod: Document, container: str) -> Answer:
        name = pod["metadata"]["name"]
        node_name = (pod.get("spec") or {}).get("nodeName")
        if not node_name:
            raise errors.bad_request(f"pod {name} does not have a host assigned: this API stores pods and runs none")
        try:
            node = self._store.get(ObjectRef("", "Node", "", str(node_name)))
        except NotFound as error:
            raise errors.bad_request(f'pod {name} is on node "{node_name}", which does not exist') from error
        place = kubelet_of(node)
        if place is None:
            raise errors.bad_request(f'pod {name} is on node "{node_name}", which has no kubelet endpoint')
        host, port = place
        path = f"/containerLogs/{pod['metadata']['namespace']}/{name}/{container}"
        shown = f"[{host}]" if ":" in host else host
        query = {key: value for key, value in request.parameters.items() if key != "container"}
        return await self._ask(f"https://{shown}:{port}{path}", query)

    async def _ask(self, url: str, query: Mapping[str, str]) -> Answer:
        import aiohttp  # noqa: PLC0415 - few need it

        # A stream that is followed may be silent for ever.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls()), timeout=timeout)
        try:
            response = await session.get(url, params=query, allow_redirects=False)
            if response.status >= HTTPStatus.BAD_REQUEST:
                text = (await response.text(errors="replace")).strip()
                raise ApiError(response.status, "BadRequest", text or f"the node answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await session.close()
            raise ApiError(500, "InternalError", f'Get "{url}": {error or type(error).__name__}') from error
        except BaseException:
            await session.close()
            raise

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in response.content.iter_any():
                    yield piece
            except aiohttp.ClientError:
                return  # the node is gone; what it sent so far stands
            finally:
                response.close()
                await session.close()

        return Answer(stream=pieces(), content_type=_TEXT)

    def _tls(self) -> ssl.SSLContext:
        """Who we are to nodes, and that theirs are certificates of our authority."""
        if self._context is None:
            context = ssl.create_default_context(cadata=self._credentials.ca_pem.decode())
            certificate, key = self._credentials.issue_client(*KUBELET_CLIENT)
            with tempfile.TemporaryDirectory(dir=self._credentials.directory) as directory:
                # The ssl module reads keys from files only.
                pair = Path(directory) / "pair.pem"
                pair.touch(mode=0o600)
                pair.write_bytes(certificate + key)
                context.load_cert_chain(pair)
            self._context = context
        return self._context
