"""Where a Gateway is reached: read back from its Service. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from propylon import api
from propylon.proxies.kubernetes.documents import requested_addresses

MOST = 16
"""A Gateway's status holds no more addresses."""
_ANY = {"IPv4": "0.0.0.0", "IPv6": "::"}


class Observed(msgspec.Struct, frozen=True):
    """What a Service says of its Gateway's addresses."""

    addresses: tuple[api.GatewayStatusAddress, ...] = ()
    """Those that the world is told of."""
    cluster_ips: tuple[api.GatewayStatusAddress, ...] = ()
    """Cluster IPs that are none of `addresses`."""
    bind: tuple[str, ...] = ()
    """What the proxies in their pods listen on."""
    reason: str = ""
    """Why addresses are missing (a reason of the condition Programmed), "" if they are not."""
    message: str = ""


def observe(
    gateway: api.Gateway, service: api.Service | None, nodes: Sequence[api.Node], *, ready: bool = True
) -> Observed:
    """The addresses of a Gateway.

    `nodes`: those of the cluster, for Services of type NodePort. `ready`: whether the Service leads to any proxy.
    """
    if service is None:
        return Observed(reason="AddressNotAssigned", message="its Service does not exist yet")
    bind = tuple(_ANY[family] for family in service.spec.ip_families if family in _ANY) or (_ANY["IPv4"],)
    found = _found(service, nodes)[:MOST]
    name = f"Service {service.metadata.namespace}/{service.metadata.name}"
    have = {_canonical(value) for _, value in found}
    missing = [address for address in requested_addresses(gateway) if _canonical(address) not in have]
    inside = cluster_ips(service)
    known = {address.value: address for address in inside}
    addresses = tuple(known.get(value) or api.GatewayStatusAddress(type=kind, value=value) for kind, value in found)
    observed = Observed(addresses, tuple(a for a in inside if a not in addresses), bind)
    if missing:
        message = f"{name} of type {service.spec.type} did not get {', '.join(missing)}{_reasons(service)}"
        return msgspec.structs.replace(observed, reason="AddressNotUsable", message=message)
    if not addresses:
        message = f"{name} of type {service.spec.type} has no address yet{_reasons(service)}"
        return msgspec.structs.replace(observed, reason="AddressNotAssigned", message=message)
    if not ready:
        return msgspec.structs.replace(observed, reason="Pending", message=f"no proxy behind {name} is ready")
    return observed


def cluster_ips(service: api.Service) -> tuple[api.GatewayStatusAddress, ...]:
    """The cluster IPs of a Service, as addresses that are reachable from within the cluster (GEP-5093)."""
    ips = service.spec.cluster_ips or (service.spec.cluster_ip or "",)
    return tuple(
        api.GatewayStatusAddress(type="IPAddress", value=ip, routability="Cluster")
        for ip in ips
        if ip not in {"", "None"}
    )


def _found(service: api.Service, nodes: Sequence[api.Node]) -> list[tuple[str, str]]:
    if service.spec.type == "LoadBalancer":
        ingress = service.status.load_balancer.ingress
        found = [("IPAddress", entry.ip) if entry.ip else ("Hostname", entry.hostname or "") for entry in ingress]
    elif service.spec.type == "NodePort":
        found = [("IPAddress", address) for node in nodes for address in _node_addresses(node)]
        found.sort()
    else:
        found = [("IPAddress", address.value) for address in cluster_ips(service)]
    return list(dict.fromkeys((kind, value) for kind, value in found if value))


def _node_addresses(node: api.Node) -> list[str]:
    """Those the world sees, else those that nodes see."""
    for kind in ("ExternalIP", "InternalIP"):
        if found := [a.address for a in node.status.addresses if a.type == kind]:
            return found
    return []


def _reasons(service: api.Service) -> str:
    """What load balancers say about it: Cilium, for one, tells in a condition why there is no address."""
    told = [c.message or c.reason for c in service.status.conditions if c.status == "False"]
    return f": {'; '.join(told)}" if told else ""


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
