"""The objects that scenarios are made of: documents as a user would write them, of any size."""

from collections.abc import Iterator
from typing import Any

from propylon import api

Document = dict[str, Any]

GROUP = "gateway.networking.k8s.io"
NAMESPACE = "bench"
DOMAIN = "example.com"


def gateway_class() -> Document:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "bench"},
        "spec": {"controllerName": "propylon.dev/gateway-controller"},
    }


def gateway(name: str = "gw", address: str = "127.0.0.1", port: int = 8080) -> Document:
    """One HTTP listener that takes routes of its own namespace."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "gatewayClassName": "bench",
            "addresses": [{"type": "IPAddress", "value": address}],
            "listeners": [{"name": "http", "protocol": "HTTP", "port": port}],
        },
    }


def service(name: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }


def endpoint_slice(name: str, address: str = "127.0.0.1", port: int = 1, count: int = 1) -> Document:
    """Endpoints of the Service of that name: `count` addresses from `address` on."""
    head, _, last = address.rpartition(".")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [f"{head}.{int(last) + i}"]} for i in range(count)],
    }


def route(
    name: str, hostname: str, backend: str | None, *, gateway_name: str = "gw", tag: str = "", path: str = "/"
) -> Document:
    """A route of one hostname: `/tag` is answered by the proxy with a redirect that shows `tag`, the rest by `backend`.

    Without a backend there is the redirect alone, for every path.
    """
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": f"{tag or 'first'}.example.org"}}
    match = [{"path": {"type": "PathPrefix", "value": "/tag" if backend else path}}]
    rules: list[Document] = [{"matches": match, "filters": [redirect]}]
    if backend:
        rules.append({"backendRefs": [{"name": backend, "port": 80}]})
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": gateway_name}], "hostnames": [hostname], "rules": rules},
    }


def hostname_of(number: int) -> str:
    return f"h{number}.{DOMAIN}"


def address_of(number: int) -> str:
    """Loopback address of one of many Gateways."""
    return f"127.0.{number // 250}.{number % 250 + 1}"


def base(*, port: int = 8080) -> list[Document]:
    """Class, namespace and one Gateway."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [gateway_class(), namespace, gateway(port=port)]


def many_routes(size: int, *, gateways: int = 1, port: int = 8080) -> Iterator[Document]:
    """`size` routes, each with a hostname, a Service and an EndpointSlice of its own, spread over `gateways`."""
    yield gateway_class()
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for number in range(gateways):
        yield gateway(f"gw{number}" if gateways > 1 else "gw", address_of(number), port)
    for number in range(size):
        name = f"r{number}"
        yield service(name)
        yield endpoint_slice(name)
        yield route(name, hostname_of(number), name, gateway_name=f"gw{number % gateways}" if gateways > 1 else "gw")


def tagged(size: int, tag: str) -> Document:
    """The last route of `hostnames`, with another tag."""
    return route(f"r{size - 1}", hostname_of(size - 1), "web", tag=tag)


def hostnames(size: int, port: int, endpoint: str = "127.0.0.1") -> list[Document]:
    """N routes of one hostname each that share one Service: what the floor has, as objects."""
    web = [service("web"), endpoint_slice("web", endpoint)]
    return [*base(port=port), *web, *(route(f"r{i}", hostname_of(i), "web") for i in range(size))]


def stored(document: Document, version: int = 1) -> Document:
    """The document as a store hands it out."""
    metadata = {
        **document["metadata"],
        "uid": f"{document['kind']}-{document['metadata']['name']}",
        "resourceVersion": str(version),
        "generation": version,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {**document, "metadata": metadata}


def ref_of(document: Document) -> api.ObjectRef:
    """The reference under which a store keeps the document."""
    group, _, _ = document["apiVersion"].rpartition("/")
    metadata = document["metadata"]
    return api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])
