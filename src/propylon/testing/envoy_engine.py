"""Real Envoy as an engine: the same Graph translated, Envoys started, backends that remember what reached them.

Nothing leaves the machine: listeners are on loopback addresses of this run alone, and every backend that can be
reached is one of ours, whatever its endpoints are in the manifests.
"""

import asyncio
import ipaddress
import secrets
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from propylon import api
from propylon.app.offline import Manifests
from propylon.envoy import EnvoySettings, build_forms, build_translation, names
from propylon.explain import Request
from propylon.explain.places import Arrival, arrive
from propylon.explain.request import Asked, parse
from propylon.graph.model import Endpoint
from propylon.testing.backends import RECORD_HEADER, Backends, Record
from propylon.testing.client import Client, Told
from propylon.testing.model import Answer, EngineError, Pairs, Way
from propylon.testing.proxy import ROUTE_HEADER, Proxies, Resources

T = TypeVar("T")
_EVER_DIFFERENT = frozenset({"x-request-id", "x-envoy-upstream-service-time", "date"})


class EnvoyEngine:
    """Asks real Envoy. Starts one Envoy for each Gateway when it is asked for the first time."""

    def __init__(self, manifests: Manifests) -> None:
        """`manifests` belong to this engine from now on: their Graph gets other endpoints. Raises EngineError."""
        self._manifests = manifests
        short = None if len(tempfile.gettempdir()) < 60 else "/tmp"  # the path of a socket has 107 bytes
        self._directory = Path(tempfile.mkdtemp(prefix="propylon-test-", dir=short))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="envoy of tests", daemon=True)
        self._thread.start()
        # 127.192.0.0 and up: below are the addresses of `propylon up`.
        block = ipaddress.IPv4Network(f"127.{192 + secrets.randbelow(63)}.{secrets.randbelow(256)}.0/24")
        self._proxies = Proxies(self._directory, block)
        self._backends = Backends("127.0.0.1")
        self._client = Client()
        self._bound: dict[api.ObjectKey, dict[str, tuple[str, int]] | EngineError] = {}
        try:
            self._call(self._proxies.start())
            self._take_backends()
            settings = EnvoySettings(access_log=False)
            engine, graph = manifests.engine, manifests.graph
            self._translation = build_translation(engine, graph, settings, build_forms(engine, graph, settings))
            failures = engine.commit().failures
            if failures:
                raise EngineError(f"the manifests cannot be translated: {failures[0][2]!r}")
        except BaseException:
            self.close()
            raise

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _take_backends(self) -> None:
        """Put backends of ours in the place of those that are referred to and are not known to have no endpoints."""
        manifests = self._manifests
        known = any(True for _ in manifests.sources.endpoint_slices)
        for backend in sorted({key.backend for (_, key), _ in manifests.graph.clusters.items()}):
            if known and not manifests.graph.endpoints.get(backend):
                continue
            port = self._call(self._backends.ensure(backend))
            manifests.sources.endpoint_overrides.set(backend, (Endpoint("127.0.0.1", port),))

    def close(self) -> None:
        """End every Envoy and server, and remove their files."""
        self._client.close()
        try:
            self._call(self._proxies.stop())
            self._loop.call_soon_threadsafe(self._backends.close)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            shutil.rmtree(self._directory, ignore_errors=True)

    # -- asking ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request, samples: int) -> Answer:
        """What Envoy does with a request, in so many tries. Raises ExplainError, EngineError."""
        asked = parse(request)
        arrival = arrive(self._manifests.graph, asked)
        place = None
        if isinstance(arrival, Arrival):
            place = self._listeners(arrival.port.key.gateway).get(names.listener(arrival.port.key))
        if place is None:
            return Answer("envoy", (Way("refused", 1.0, None),), "", None, None)
        found: dict[Way, int] = {}
        routes: set[str | None] = set()
        for _ in range(max(1, samples)):
            told = self._client.ask(place, asked)
            way = self._way(told, asked)
            found[way] = found.get(way, 0) + 1
            routes.add(dict(told.headers).get(ROUTE_HEADER))
        total = sum(found.values())
        ways = tuple(msgspec.structs.replace(way, share=count / total) for way, count in found.items())
        route, rule = _route(routes.pop()) if len(routes) == 1 else (None, None)
        return Answer("envoy", ways, route, rule, self._rule_name(route, rule), samples=total)

    def _listeners(self, gateway: api.ObjectKey) -> dict[str, tuple[str, int]]:
        if gateway not in self._bound:
            try:
                resources, clusters = self._resources(gateway), self._clusters(gateway)
                self._bound[gateway] = self._call(self._proxies.run("/".join(gateway), resources, clusters))
            except EngineError as error:
                self._bound[gateway] = error
        bound = self._bound[gateway]
        if isinstance(bound, EngineError):
            raise bound
        return bound

    def _resources(self, gateway: api.ObjectKey) -> Resources:
        return {
            (resource.type_url, resource.name): resource.body
            for part in self._translation
            for (node, _), resource in part.items()
            if node == gateway
        }

    def _clusters(self, gateway: api.ObjectKey) -> frozenset[str]:
        """Names of the clusters that lead to backends."""
        return frozenset(
            names.cluster(key) for (node, key), _ in self._manifests.graph.clusters.items() if node == gateway
        )

    def _rule_name(self, route: str | None, index: int | None) -> str | None:
        if not route or index is None:
            return None
        kind, _, name = route.partition(" ")
        found = self._manifests.graph.routes.get(api.ObjectRef(api.GATEWAY_GROUP, kind, *name.split("/", 1)))
        return next((rule.name for rule in found.rules if rule.index == index), None) if found is not None else None

    def _way(self, told: Told, asked: Asked) -> Way:
        headers: Pairs = tuple(pair for pair in told.headers if pair[0] not in {RECORD_HEADER, ROUTE_HEADER, "date"})
        headers = tuple(_steady(pair, ()) for pair in headers)
        if told.record is not None:
            record = self._backends.records[told.record]
            return _forwarded(record, told, headers, asked)
        if told.status is None:
            return Way("refused" if told.refused else "closed", 1.0, None)
        location = dict(headers).get("location", "")
        grpc = dict(headers).get("grpc-status")
        outcome: Any = "redirected" if location and (300 <= told.status < 400 or grpc) else "answered"
        return Way(
            outcome,
            1.0,
            told.status,
            int(grpc) if grpc is not None and grpc.isdigit() else None,
            location=location,
            response_headers=headers,
        )


def _forwarded(record: Record, told: Told, headers: Pairs, asked: Asked) -> Way:
    key = record.backend
    kind = key.kind.partition("/")[0]
    sent = tuple(name for name, _ in asked.headers)
    return Way(
        "forwarded",
        1.0,
        told.status,
        0 if asked.grpc and told.status == 200 else None,
        f"{kind} {key.namespace}/{key.name}:{key.port}",
        path=record.path,
        host=record.host,
        headers=None if record.headers is None else tuple(_steady(pair, sent) for pair in record.headers),
        response_headers=headers if told.status is not None else None,
    )


def _steady(pair: tuple[str, str], sent: tuple[str, ...]) -> tuple[str, str]:
    """A header without a value that is another one each time."""
    name, value = pair
    return (name, "(any)") if name in _EVER_DIFFERENT and name not in sent else (name, value)


def _route(name: str | None) -> tuple[str | None, int | None]:
    """`HTTPRoute/shop/cart/0`, as routes are named (`names.route`), is `HTTPRoute shop/cart` and rule 0."""
    if name is None:
        return None, None
    parts = name.split("/")
    if len(parts) != 4 or not parts[3].isdigit():
        return None, None
    return f"{parts[0]} {parts[1]}/{parts[2]}", int(parts[3])
