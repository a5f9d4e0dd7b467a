"""Endpoints: the addresses behind a backend, from EndpointSlices or from whoever stands in for them."""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

from propylon import api
from propylon.graph.backends import Backends, override_of, service_port
from propylon.graph.model import Backend, BackendKey, Endpoint, Transport
from propylon.graph.sources import Sources
from propylon.incremental import Collection, Engine, Look


def slice_endpoints(look: Look, sources: Sources, backends: Backends, key: BackendKey) -> tuple[Endpoint, ...]:
    """Gather what EndpointSlices say about a port of a Service."""
    if key.kind == "XBackend":
        return ()
    service_key = api.ObjectKey(key.namespace, key.name)
    service = look.get(sources.services, service_key)
    port = None if service is None else service_port(service, key)
    if port is None:
        return ()
    return endpoints_of([s for _, s in look.by(backends.slices, service_key)], port)


def build_endpoints(
    engine: Engine, sources: Sources, backends: Backends
) -> Collection[BackendKey, tuple[Endpoint, ...]]:
    """Tell for every backend where it is: an empty tuple if nowhere."""

    def locate(key: BackendKey, backend: Backend, look: Look) -> tuple[Endpoint, ...]:
        given = override_of(look, backends.overrides, key)
        if given is not None:
            return given
        if backend.discovery == "DNS":
            return (Endpoint(backend.dns_name, key.port),)
        return slice_endpoints(look, sources, backends, key) or look.get(sources.fallback_endpoints, key) or ()

    return engine.derive("endpoints", backends.backends, locate)


def endpoints_of(slices: Iterable[api.EndpointSlice], port: api.ServicePort) -> tuple[Endpoint, ...]:
    """Collect the endpoints of one Service port, sorted, each address once.

    Slice and Service ports go together by name and protocol; the port number is the slice's (the Service's targetPort
    was for whoever wrote the slice). An endpoint that is not ready but still serving while it terminates is kept as
    draining (KEP-1672); absent conditions count as ready (EndpointConditions).
    """
    found: dict[tuple[str, int], bool] = {}
    for endpoint_slice in slices:
        if endpoint_slice.address_type == "FQDN":
            continue
        for slice_port in endpoint_slice.ports:
            if slice_port.name != port.name or slice_port.protocol != port.protocol or slice_port.port is None:
                continue
            for endpoint in endpoint_slice.endpoints:
                draining = _draining(endpoint.conditions)
                if draining is None or not endpoint.addresses:
                    continue
                address = canonical_ip(endpoint.addresses[0])
                if address is not None:
                    place = (address, slice_port.port)
                    found[place] = draining and found.get(place, True)
    places = sorted(found.items()) if len(found) > 1 else found.items()
    return tuple([Endpoint(address, number, draining) for (address, number), draining in places])


def _draining(conditions: api.EndpointConditions) -> bool | None:
    """Tell whether the endpoint only finishes what it began; None if it takes nothing at all."""
    ready = conditions.ready is not False
    if ready:
        return False
    serving = ready if conditions.serving is None else conditions.serving
    return True if serving and conditions.terminating else None


@lru_cache(maxsize=100_000)
def canonical_ip(address: str) -> str | None:
    """The one spelling of an IP address; None if it is none."""
    try:
        socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        pass
    else:
        return address  # the usual case, for which `ipaddress` takes twenty calls: four numbers have one spelling
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


def transport_of(backend: Backend) -> Transport:
    """Return what a backend's endpoints speak underneath."""
    return "UDP" if backend.protocol == "UDP" else "TCP"
