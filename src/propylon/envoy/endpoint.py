"""ClusterLoadAssignment: the addresses behind a backend."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from propylon.graph.endpoints import canonical_ip
from propylon.graph.model import Endpoint
from propylon.wire_format import Tag, varint

_CLUSTER_NAME, _LOCALITY, _ADDRESS = Tag(1), Tag(2), Tag(2)
"""Of ClusterLoadAssignment, and of SocketAddress (envoy/config/endpoint/v3, envoy/config/core/v3/address.proto)."""
_IN_LOCALITY = (2, 1, 1, 1)
"""LocalityLbEndpoints.lb_endpoints, LbEndpoint.endpoint, Endpoint.address and Address.socket_address."""
_SOCKET, _ONLY_SOCKET = Tag(*_IN_LOCALITY), Tag(2, *_IN_LOCALITY)
_PORT_VALUE, _PRIORITY = bytes((3 << 3,)), bytes((5 << 3,))
"""Tags of SocketAddress.port_value and of LocalityLbEndpoints.priority, which are numbers."""

DISCARD = Endpoint("127.0.0.1", 9)
"""The discard service (RFC 863): where the share of a datagram backend goes that has nowhere to go."""


def build_load_assignment(name: str, endpoints: Sequence[Endpoint]) -> Any:
    """Envoy's ClusterLoadAssignment; without endpoints an empty one (503)."""
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    for priority, group in enumerate(by_priority(endpoints)):
        out.endpoints.append(_locality(group, priority=priority))
    return out


def load_assignment_body(name: str, endpoints: Sequence[Endpoint]) -> bytes:
    """The bytes of `build_load_assignment`, put together from parts, as there are tens of thousands."""
    text = name.encode()
    if len(endpoints) == 1:
        socket = _socket(endpoints[0])
        return b"".join((_CLUSTER_NAME[len(text)], text, _ONLY_SOCKET[len(socket)], socket))
    parts = [_CLUSTER_NAME[len(text)], text]
    for priority, group in enumerate(by_priority(endpoints)):
        sockets = [_socket(each) for each in group]
        locality = b"".join([part for socket in sockets for part in (_SOCKET[len(socket)], socket)])
        if priority:
            locality += _PRIORITY + varint(priority)
        parts += (_LOCALITY[len(locality)], locality)
    return b"".join(parts)


def _socket(endpoint: Endpoint) -> bytes:
    address = endpoint.address.encode()
    return _ADDRESS[len(address)] + address + _port_value(endpoint.port)


@cache
def _port_value(port: int) -> bytes:
    return _PORT_VALUE + varint(port)


def build_weighted_load_assignment(name: str, shares: Sequence[tuple[int, Sequence[Endpoint]]]) -> Any:
    """One assignment of several backends, each a locality with its weight.

    A backend without endpoints keeps its share, which is discarded.
    """
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    for i, (weight, endpoints) in enumerate(shares):
        serving = by_priority(endpoints)
        locality = _locality(serving[0] if serving else [DISCARD])
        locality.locality.region = str(i)
        locality.load_balancing_weight.value = weight
        out.endpoints.append(locality)
    return out


def by_priority(endpoints: Sequence[Endpoint]) -> list[list[Endpoint]]:
    """Endpoints in groups, each address once: those further down serve only if there are none above.

    Draining ones are a priority of their own rather than of health status DRAINING: Envoy would not use that even if
    nothing else is left (KEP-1672: a terminating endpoint is better than none), and sessions would lose it at once.
    """
    if len(endpoints) == 1:
        return [list(endpoints)]
    serving = {(e.address, e.port): e for e in endpoints if not e.draining}
    draining = {(e.address, e.port): e for e in endpoints if e.draining}
    groups = [serving, {where: e for where, e in draining.items() if where not in serving}]
    return [sorted(group.values()) for group in groups if group]


def is_ip(address: str) -> bool:
    """Whether an address is an IP rather than a name; EDS knows IPs only."""
    return canonical_ip(address) is not None


def socket_address(host: str, port: int, *, udp: bool = False) -> Any:
    """An address of an IP or a DNS name."""
    protocol = address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port, protocol=protocol)
    )


def _locality(endpoints: Sequence[Endpoint], priority: int = 0) -> Any:
    return endpoint_components_pb2.LocalityLbEndpoints(
        priority=priority,
        lb_endpoints=[
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(address=socket_address(e.address, e.port))
            )
            for e in endpoints
        ],
    )
