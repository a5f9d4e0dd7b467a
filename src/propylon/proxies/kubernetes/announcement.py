"""How a Gateway whose proxies are processes is found from within the cluster: the pure plan of its Service.

The Service has no selector: its EndpointSlices name the addresses that the processes serve at. Clients of the cluster
reach the Gateway by `<gateway>-<class>.<namespace>.svc`, or by the Service's cluster IP, which is also what a Gateway
gets that asks for an address of routability `Cluster` (GEP-5093).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from propylon import api
from propylon.proxies.kubernetes.documents import Document, gateway_document, object_name, service_port

KINDS = ("Service", "EndpointSlice")
"""What is made for Gateways, in the order to be applied."""
SLICE_MANAGER = "propylon.dev"
"""Whose EndpointSlices these are: Kubernetes' own controllers leave those of others alone."""


class Announced(msgspec.Struct, frozen=True):
    """What is to be known of a Gateway within the cluster."""

    gateway: api.Gateway
    ports: tuple[tuple[int, str], ...]
    """(port, "TCP" or "UDP") of its listeners, sorted; at least one."""
    addresses: tuple[str, ...]
    """IP addresses that its proxies listen at."""
    cluster_ip: str = ""
    """The cluster IP that it asks for, "" if it asks for none."""


def plan_announcement(announced: Announced, controller_name: str) -> tuple[Document, ...]:
    """The Service, and an EndpointSlice for each IP family."""
    gateway = announced.gateway
    name = object_name(gateway, controller_name)
    ports = [service_port(port, transport) for port, transport in announced.ports]
    spec: Document = {"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "ports": ports}
    if announced.cluster_ip:
        spec["clusterIP"] = announced.cluster_ip
    documents = [gateway_document(gateway, controller_name, "v1", "Service", name, {"spec": spec})]
    for family, addresses in _by_family(announced.addresses).items():
        content = {
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]} for p in ports],
        }
        document = gateway_document(
            gateway, controller_name, "discovery.k8s.io/v1", "EndpointSlice", f"{name}-{family.lower()}", content
        )
        document["metadata"]["labels"] |= {
            api.SERVICE_NAME_LABEL: name,
            "endpointslice.kubernetes.io/managed-by": SLICE_MANAGER,
        }
        documents.append(document)
    return tuple(documents)


def _by_family(addresses: Iterable[str]) -> dict[str, list[str]]:
    """Those that Kubernetes takes for endpoints: not this machine's own (loopback), link-local or multicast ones."""
    found: dict[str, list[str]] = {}
    for address in dict.fromkeys(addresses):
        ip = ipaddress.ip_address(address)
        if not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified):
            found.setdefault(f"IPv{ip.version}", []).append(str(ip))
    return found
