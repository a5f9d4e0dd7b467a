"""In which order a large world is read at the start, so that proxies can be told of the first clusters early.

A cluster is known when a route names a Service and the Service is there. So each route comes right after the Services
that its rules send requests to, and these after their EndpointSlices: nothing is computed twice, and Envoy, which takes
as long for clusters as all else takes here, has work after the first part. Only the places that decide about the order
are read here. What is wrong with a document is said where all of it is read.
"""

from collections.abc import Iterable
from itertools import chain

import msgspec

from propylon import api
from propylon.api.core import SERVICE_NAME_LABEL

Document = tuple[api.ObjectRef, bytes]
"""An object and its JSON."""

_LATE = {
    kind: place for place, kind in enumerate(("Gateway", "ListenerSet", "EndpointSlice", "Service", *api.ROUTE_KINDS))
}
"""Kinds that mean something else before all others are known, in this order."""


class _BackendRef(msgspec.Struct):
    name: str = ""
    namespace: str | None = None


class _Rule(msgspec.Struct):
    backend_refs: tuple[_BackendRef, ...] | None = msgspec.field(default=None, name="backendRefs")


class _RouteSpec(msgspec.Struct):
    rules: tuple[_Rule, ...] | None = None


class _Route(msgspec.Struct):
    spec: _RouteSpec = msgspec.field(default_factory=_RouteSpec)


class _SliceMetadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Slice(msgspec.Struct):
    metadata: _SliceMetadata = msgspec.field(default_factory=_SliceMetadata)


_read_route = msgspec.json.Decoder(_Route).decode
_read_slice = msgspec.json.Decoder(_Slice).decode


def in_reading_order(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Gateways and all that they depend on, so that their proxies can be started; then backends and routes. Each kind
    in the order in which it came but for Services and EndpointSlices that routes name.
    """
    ordered = sorted(documents, key=lambda document: _LATE.get(document[0].kind, -1))
    backend = _LATE["EndpointSlice"]
    first = next((i for i, (ref, _) in enumerate(ordered) if _LATE.get(ref.kind, -1) >= backend), len(ordered))
    rest = ordered[first:]
    backends: dict[tuple[str, str], list[Document]] = {}
    """By namespace and name of a Service: its EndpointSlices and itself."""
    routes: list[Document] = []
    for document in rest:
        ref, raw = document
        if ref.kind in api.ROUTE_KINDS:
            routes.append(document)
        else:
            name = _service_of(raw) if ref.kind == "EndpointSlice" else ref.name
            backends.setdefault((ref.namespace, name), []).append(document)
    along: list[Document] = []
    for route in routes:
        for key in _services_named(route):
            along += backends.pop(key, ())
        along.append(route)
    # Filters may name the others.
    return ordered[:first], [*chain.from_iterable(backends.values()), *along]


def _services_named(route: Document) -> Iterable[tuple[str, str]]:
    ref, raw = route
    try:
        rules = _read_route(raw).spec.rules or ()
    except msgspec.DecodeError:
        return ()
    return [(backend.namespace or ref.namespace, backend.name) for rule in rules for backend in rule.backend_refs or ()]


def _service_of(endpoint_slice: bytes) -> str:
    try:
        return (_read_slice(endpoint_slice).metadata.labels or {}).get(SERVICE_NAME_LABEL, "")
    except msgspec.DecodeError:
        return ""
