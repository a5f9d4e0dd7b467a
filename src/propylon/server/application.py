"""Requests into answers: routing, authorization, and the form of what is sent back."""

from __future__ import annotations

import asyncio
import logging
import platform
from typing import Any

from propylon.server import discovery, errors, openapi
from propylon.server.access import Access, Attributes
from propylon.server.bodies import read_object
from propylon.server.custom import Kinds
from propylon.server.errors import ApiError
from propylon.server.identity import User
from propylon.server.paths import JSON, Place, form_of, parse_path
from propylon.server.requests import Answer, Request, answer, encode, refusal
from propylon.server.resources import Registry
from propylon.server.reviews import Authenticate, review
from propylon.server.verbs import Verbs
from propylon.server.watches import Hub
from propylon.store import LocalStore

log = logging.getLogger("propylon.server")

KUBERNETES = (1, 37)
"""The Kubernetes whose API this is like; clients compare it with their own version."""
NOT_FOUND = b"404 page not found\n"
"""What answers for a kind that is not served. Clients put the verb and the kind into words of their own."""
_HEALTH = ("/healthz", "/livez", "/readyz")


def version_document() -> dict[str, Any]:
    """What /version answers."""
    from importlib.metadata import version  # noqa: PLC0415 - takes a while, and is not asked for at the start

    major, minor = KUBERNETES
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": str(major),
        "minor": str(minor),
        "gitVersion": f"v{major}.{minor}.0+propylon.{version('propylon')}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": f"{platform.system().lower()}/{machine}",
    }


class Application:
    """The API over one store. Lives in one event loop; `hub` must run there."""

    def __init__(self, store: LocalStore, hub: Hub, authenticate: Authenticate, *, address: str = "") -> None:
        """`authenticate` knows bearer tokens; `address` is the server's, as discovery tells it."""
        self.kinds = Kinds(store)
        self.access = Access(store)
        self.verbs = Verbs(store, hub, self.access)
        self._authenticate = authenticate
        self._address = address
        self._documents: tuple[int, dict[str, bytes], dict[str, str]] | None = None
        self._swagger: tuple[int, bytes] | None = None

    def close(self) -> None:
        """Stop following the store."""
        self.kinds.close()
        self.access.close()

    @property
    def registry(self) -> Registry:
        """What is served now."""
        return self.kinds.registry

    async def handle(self, request: Request) -> Answer:
        """Answer a request. Never raises for what the request is like."""
        try:
            return await self._handle(request)
        except ApiError as error:
            return refusal(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("a request failed: method=%s path=%s", request.method, request.path)
            return refusal(ApiError(500, "InternalError", f"Internal error occurred: {error}"))

    async def _handle(self, request: Request) -> Answer:
        place = parse_path(request.path)
        if place is None or not place.plural:
            return self._handle_path(request, place)
        virtual = discovery.VIRTUAL.get((place.group, place.version), ())
        if any(plural == place.plural for plural, _, _ in virtual):
            return self._handle_review(request, place)
        resource = self.registry.by_plural(place.group, place.version, place.plural)
        if resource is None:
            return Answer(404, NOT_FOUND, "text/plain; charset=utf-8")
        if place.rest:
            raise errors.no_such_path()
        return await self.verbs.handle(request, place, resource, self.registry)

    # -- reviews -----------------------------------------------------------------------------------------------------

    def _handle_review(self, request: Request, place: Place) -> Answer:
        if request.method != "POST" or place.name:
            raise errors.method_not_allowed()
        asked = Attributes("create", place.group, place.plural, namespace=place.namespace)
        if not self.access.allows(request.user, asked):
            message = asked.sentence(request.user)
            raise ApiError(403, "Forbidden", f"{place.plural}.{place.group} is forbidden: {message}", {})
        body = read_object(request.body, request.headers.get("content-type", ""))
        return answer(review(place, body, request.user, self.access, self._authenticate), 201)

    # -- paths that are no objects -----------------------------------------------------------------------------------

    def _handle_path(self, request: Request, place: Place | None) -> Answer:
        path = request.path.rstrip("/") or "/"
        self._authorize_path(request.user, request.method, path)
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        if path.startswith(_HEALTH):
            return Answer(body=b"ok", content_type="text/plain; charset=utf-8")
        if path == "/version":
            return answer(version_document())
        if path.startswith("/openapi"):
            return self._openapi(request, path)
        found = self._discovery(request, path, place)
        if found is None:
            raise errors.no_such_path()
        return found

    def _authorize_path(self, user: User, method: str, path: str) -> None:
        verb = {"GET": "get", "HEAD": "head", "POST": "post", "PUT": "put", "DELETE": "delete", "PATCH": "patch"}
        asked = Attributes(verb.get(method, method.lower()), path=path)
        if not self.access.allows(user, asked):
            raise ApiError(403, "Forbidden", f"forbidden: {asked.sentence(user)}", {})

    def _discovery(self, request: Request, path: str, place: Place | None) -> Answer | None:
        registry = self.registry
        if path == "/":
            return answer({"paths": self._paths(registry)})
        if path in ("/api", "/apis"):
            form = form_of(request.headers.get("accept", ""), discovery=True)
            if form.kind:
                document = discovery.aggregated(registry, core=path == "/api")
                kind = f"{JSON};g={form.group};v={form.version};as={form.kind}"
                return Answer(body=encode(document), content_type=kind)
            found = discovery.api_versions(self._address) if path == "/api" else discovery.group_list(registry)
            return answer(found)
        if place is not None:
            resources = discovery.resource_list(registry, place.group, place.version)
            return None if resources is None else answer(resources)
        group = discovery.group(registry, path.removeprefix("/apis/")) if path.startswith("/apis/") else None
        return None if group is None else answer(group)

    def _paths(self, registry: Registry) -> list[str]:
        groups = [f"/apis/{group}" for group in discovery.groups(registry)]
        return ["/api", "/api/v1", "/apis", *groups, *_HEALTH, "/openapi/v2", "/openapi/v3", "/version"]

    def _openapi(self, request: Request, path: str) -> Answer:
        registry = self.registry
        generation = self.kinds.generation
        if path == "/openapi/v2":
            accept = request.headers.get("accept", "")
            if openapi.V2_PROTOBUF in accept and JSON not in accept:
                return Answer(body=openapi.NOTHING_V2, content_type=openapi.V2_PROTOBUF.replace("@", "."))
            if accept and "json" not in accept and "*/*" not in accept:
                raise errors.not_acceptable(JSON)
            if self._swagger is None or self._swagger[0] != generation:
                self._swagger = (generation, encode(openapi.document_v2(registry)))
            return Answer(body=self._swagger[1])
        if self._documents is None or self._documents[0] != generation:
            documents = openapi.all_v3(registry)
            digests = {name: openapi.digest(raw) for name, raw in documents.items()}
            self._documents = (generation, documents, digests)
        _, documents, digests = self._documents
        if path == "/openapi/v3":
            return answer(openapi.index_v3(digests))
        name = path.removeprefix("/openapi/v3/")
        if name not in documents:
            raise errors.no_such_path()
        lasting = (("cache-control", "public, immutable"),) if request.parameters.get("hash") else ()
        return Answer(body=documents[name], headers=(("etag", f'"{digests[name]}"'), *lasting))
