"""Wires the statuses of all kinds together."""

from typing import Any, NamedTuple

from propylon import api
from propylon.graph import Graph, Sources
from propylon.graph.model import Gateway, GatewayClass, Policy, PortKey
from propylon.incremental import Collection, Engine, Look, Source
from propylon.incremental.union import Union
from propylon.status.conditions import Status
from propylon.status.gateways import (
    Inputs,
    Rejections,
    attached_to,
    build_obstacles,
    class_status,
    gateway_status,
    listener_set_status,
)
from propylon.status.programmed import ChainPlace, PortProgrammed
from propylon.status.routes import policy_status, route_status, x_backend_status


class StatusCollections(NamedTuple):
    """What build_status derives."""

    statuses: Collection[api.ObjectRef, Status]
    """The desired status of every object that we may say something about; see `merge_status`."""


def build_status(
    engine: Engine,
    sources: Sources,
    graph: Graph,
    programmed: Source[PortKey | ChainPlace, PortProgrammed],
    rejections: Rejections,
) -> StatusCollections:
    """Derive the status of every object from the Graph and from what the proxies acknowledged or refused."""
    attached = graph.routes.index("routes by listener", attached_to)
    ports = graph.listeners_by_port.index("served ports by gateway", lambda key, _members: (key.gateway,))
    inputs = Inputs(sources, graph, programmed, rejections, attached, ports)
    obstacles = build_obstacles(engine, graph)
    by_name = graph.classes.index("classes by controller", lambda _key, c: (("", c.controller_name),))
    controllers = engine.derive("controllers", by_name, lambda key, _members, _look: key[1]).index(
        "controllers together", lambda _key, _name: ("",)
    )
    ours = frozenset({graph.settings.our_name})
    names: Collection[str, frozenset[str]] = engine.derive(
        "controller names", controllers, lambda _key, keys, _look: ours | {name for _, name in keys}
    )

    def of_class(key: api.ObjectKey, gateway_class: GatewayClass, look: Look) -> dict[api.ObjectRef, Status]:
        return {_ref("GatewayClass", key): class_status(inputs, gateway_class, look)}

    def of_gateway(key: api.ObjectKey, gateway: Gateway, look: Look) -> dict[api.ObjectRef, Status]:
        return {_ref("Gateway", key): gateway_status(inputs, obstacles, key, gateway, look)}

    def of_listener_set(key: api.ObjectKey, _set: api.ListenerSet, look: Look) -> dict[api.ObjectRef, Status]:
        status = listener_set_status(inputs, obstacles, key, look)
        return {} if status is None else {_ref("ListenerSet", key): status}

    def of_policy(_key: api.ObjectKey, policy: Policy, look: Look) -> dict[api.ObjectRef, Status]:
        return {policy.ref: policy_status(policy, look.get(names, "") or ours)}

    def of_x_backend(_key: api.ObjectKey, x_backend: api.XBackend, look: Look) -> dict[api.ObjectRef, Status]:
        return {api.ref_of(x_backend): x_backend_status(graph, x_backend, look, look.get(names, "") or ours)}

    parts: list[Collection[api.ObjectRef, Status]] = [
        engine.flat_derive("status of GatewayClasses", graph.classes, of_class),
        engine.flat_derive("status of Gateways", graph.gateways, of_gateway),
        engine.flat_derive("status of ListenerSets", sources.listener_sets, of_listener_set),
        engine.flat_derive("status of BackendTLSPolicies", graph.policies, of_policy),
        engine.flat_derive("status of XBackends", sources.x_backends, of_x_backend),
    ]
    route_sources: dict[str, Source[api.ObjectKey, Any]] = {
        "HTTPRoute": sources.http_routes,
        "GRPCRoute": sources.grpc_routes,
        "TLSRoute": sources.tls_routes,
        "TCPRoute": sources.tcp_routes,
        "UDPRoute": sources.udp_routes,
    }
    for kind, source in route_sources.items():
        parts.append(engine.flat_derive(f"status of {kind}s", source, route_status(graph, rejections, names, kind)))
    return StatusCollections(Union(engine, "statuses", *parts))


def _ref(kind: str, key: api.ObjectKey) -> api.ObjectRef:
    return api.ObjectRef(api.GATEWAY_GROUP, kind, *key)
