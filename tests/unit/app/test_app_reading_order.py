"""In which order a large world is read at the start."""

import json
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from propylon import api
from propylon.app.reading_order import Document
from propylon.app.reading_order import in_reading_order as in_two


def document(kind: str, name: str, namespace: str = "shop", **more: Any) -> Document:
    return api.ObjectRef("", kind, namespace, name), json.dumps(more).encode()


def slice_of(service: str, suffix: str = "1", **more: str) -> Document:
    labels = {"kubernetes.io/service-name": service, **more}
    return document("EndpointSlice", f"{service}-{suffix}", metadata={"labels": labels})


def route(name: str, *backends: dict[str, str], kind: str = "HTTPRoute", namespace: str = "shop") -> Document:
    return document(kind, name, namespace, spec={"rules": [{"backendRefs": [backend]} for backend in backends]})


def in_reading_order(documents: Iterable[Document]) -> list[Document]:
    gateways, rest = in_two(documents)
    assert not [ref for ref, _ in gateways if ref.kind.endswith(("Route", "Service", "Slice"))]
    assert not [ref for ref, _ in rest if not ref.kind.endswith(("Route", "Service", "Slice"))]
    return gateways + rest


def names(documents: list[Document]) -> list[str]:
    return [f"{ref.kind} {ref.name}" for ref, _ in documents]


def world() -> Iterator[Document]:
    yield document("GatewayClass", "ours", "")
    yield document("Secret", "certificate")
    yield document("Gateway", "web")
    yield document("ListenerSet", "more")
    for name in ("cart", "login", "mirror"):
        yield slice_of(name, "b")
        yield slice_of(name, "a")
        yield document("Service", name)
    yield route("z", {"name": "cart"}, {"name": "cart"})
    yield route("y", {"name": "login"}, {"name": "cart"}, {"name": "nothing"})
    yield route("x", {"name": "mirror"}, namespace="elsewhere")


def test_services_come_right_before_the_first_route_that_names_them() -> None:
    assert names(in_reading_order(world())) == [
        "GatewayClass ours",
        "Secret certificate",
        "Gateway web",
        "ListenerSet more",
        "EndpointSlice mirror-b",
        "EndpointSlice mirror-a",
        "Service mirror",
        "EndpointSlice cart-b",
        "EndpointSlice cart-a",
        "Service cart",
        "HTTPRoute z",
        "EndpointSlice login-b",
        "EndpointSlice login-a",
        "Service login",
        "HTTPRoute y",
        "HTTPRoute x",
    ]


def test_a_service_elsewhere_is_found_by_its_namespace() -> None:
    far = document("Service", "cart", "backends")
    near = document("Service", "cart")
    there = route("a", {"name": "cart", "namespace": "backends"})
    assert in_reading_order([there, near, far]) == [near, far, there]


def test_kinds_of_routes_come_one_after_the_other() -> None:
    documents = [route("a", {"name": "cart"}, kind=kind) for kind in ("TCPRoute", "GRPCRoute", "HTTPRoute")]
    assert names(in_reading_order(documents)) == ["HTTPRoute a", "GRPCRoute a", "TCPRoute a"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b'{"spec": 1}', b'{"spec": {"rules": null}}', b'{"spec": {"rules": [{"backendRefs": [7]}]}}'],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "EndpointSlice"])
def test_what_cannot_be_read_stays_in_its_place(kind: str, raw: bytes) -> None:
    broken = api.ObjectRef("", kind, "shop", "broken"), raw
    after, before = route("r", {"name": "cart"}), document("Service", "cart")
    ordered = in_reading_order([after, before, broken])
    assert sorted(map(repr, ordered)) == sorted(map(repr, [after, before, broken]))
    assert ordered.index(before) < ordered.index(after)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_each_backend_comes_before_its_routes(seed: int) -> None:
    documents = list(world())
    Random(seed).shuffle(documents)
    ordered = in_reading_order(documents)
    assert sorted(map(repr, ordered)) == sorted(map(repr, documents))
    place = {name: at for at, name in enumerate(names(ordered))}
    for name, service in (("z", "cart"), ("y", "cart"), ("y", "login")):
        assert place[f"EndpointSlice {service}-a"] < place[f"HTTPRoute {name}"]
        assert place[f"Service {service}"] < place[f"HTTPRoute {name}"]
