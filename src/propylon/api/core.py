"""The kinds of Kubernetes itself that gateways rely on, as far as this project reads them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
from msgspec import field

from propylon.api.meta import Condition, ObjectMeta
from propylon.api.schema import NOT_DEFAULTED, Constraint, Doc, Model, PortNumber, one_of

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service."""

_Port = Annotated[int, Constraint(minimum=0, maximum=65535, format="int32")]
_Transport = Annotated[str, one_of("TCP", "UDP", "SCTP")]


class NamespaceSpec(Model, frozen=True):
    """What keeps a namespace from vanishing."""

    finalizers: tuple[str, ...] = ()


class NamespaceStatus(Model, frozen=True):
    """Whether the namespace is Active or Terminating."""

    phase: str | None = None


class Namespace(Model, frozen=True):
    """A space of names; its labels are what `allowedRoutes` selectors look at."""

    metadata: ObjectMeta
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()
    api_version: str = "v1"
    kind: str = "Namespace"


class ServicePort(Model, frozen=True):
    """A port of a Service, and the port of the pods behind it (the same one when not given)."""

    port: PortNumber
    name: Annotated[str, NOT_DEFAULTED] = ""
    protocol: _Transport = "TCP"
    app_protocol: str | None = None
    target_port: Annotated[int | str | None, Doc("Port number or name of a container port; `port` when absent.")] = None
    node_port: _Port | None = None


class ServiceSpec(Model, frozen=True):
    """Ports, addresses and pods of a Service."""

    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = field(default_factory=dict)
    type: Annotated[str, one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")] = "ClusterIP"
    cluster_ip: str | None = None
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    external_name: str | None = None
    load_balancer_ip: str | None = None
    load_balancer_class: str | None = None
    load_balancer_source_ranges: tuple[str, ...] = ()
    external_traffic_policy: str | None = None
    internal_traffic_policy: str | None = None
    health_check_node_port: int | None = None
    publish_not_ready_addresses: bool | None = None
    session_affinity: Annotated[str, one_of("ClientIP", "None")] = "None"
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None


class LoadBalancerIngress(Model, frozen=True):
    """An address at which a load balancer is reached."""

    ip: str | None = None
    hostname: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(Model, frozen=True):
    """The addresses at which a load balancer is reached."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Model, frozen=True):
    """What became of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Model, frozen=True):
    """A name and ports in front of pods, or of a host outside (`externalName`)."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()
    api_version: str = "v1"
    kind: str = "Service"


class EndpointConditions(Model, frozen=True):
    """Whether an endpoint takes traffic; an absent `ready` counts as ready, an absent `serving` as `ready`."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetReference(Model, frozen=True):
    """The pod behind an endpoint, or the object an Event is about."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    api_version: str | None = None
    resource_version: str | None = None
    field_path: str | None = None


class ForZone(Model, frozen=True):
    """A zone that should use an endpoint."""

    name: str


class EndpointHints(Model, frozen=True):
    """Who should use an endpoint."""

    for_zones: tuple[ForZone, ...] = ()


class Endpoint(Model, frozen=True):
    """One backend instance; all its addresses are the same instance."""

    addresses: Annotated[tuple[str, ...], Constraint(min_items=1, max_items=100)]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    target_ref: TargetReference | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Model, frozen=True):
    """A port of every endpoint in a slice, named as in the Service."""

    name: str = ""
    protocol: _Transport = "TCP"
    port: _Port | None = None
    app_protocol: str | None = None


class EndpointSlice(Model, frozen=True):
    """Some of the endpoints of a Service, of one address family."""

    metadata: ObjectMeta
    address_type: Annotated[str, one_of("IPv4", "IPv6", "FQDN")]
    endpoints: Annotated[tuple[Endpoint, ...], Constraint(max_items=1000)] = ()
    ports: Annotated[tuple[EndpointPort, ...], Constraint(max_items=20000)] = ()
    api_version: str = "discovery.k8s.io/v1"
    kind: str = "EndpointSlice"

    @property
    def service_name(self) -> str | None:
        """The Service (of the same namespace) these endpoints belong to."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL)


class Secret(Model, frozen=True):
    """Confidential bytes by key; `data` is base64, `string_data` plain and stronger."""

    metadata: ObjectMeta
    data: dict[str, str] = field(default_factory=dict)
    string_data: dict[str, str] = field(default_factory=dict)
    type: str = "Opaque"
    immutable: bool | None = None
    api_version: str = "v1"
    kind: str = "Secret"

    def decoded(self, key: str) -> bytes | None:
        """The bytes under a key; None when there is no such key or its value is not base64."""
        if (plain := self.string_data.get(key)) is not None:
            return plain.encode()
        if (encoded := self.data.get(key)) is None:
            return None
        try:
            return base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            return None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, type={self.type}, keys={sorted(self.data)})"


class ConfigMap(Model, frozen=True):
    """Text by key; `binary_data` is base64."""

    metadata: ObjectMeta
    data: dict[str, str] = field(default_factory=dict)
    binary_data: dict[str, str] = field(default_factory=dict)
    immutable: bool | None = None
    api_version: str = "v1"
    kind: str = "ConfigMap"


class NodeAddress(Model, frozen=True):
    """An address of a node: InternalIP, ExternalIP, Hostname..."""

    type: str
    address: str


class Taint(Model, frozen=True):
    """What keeps pods away from a node."""

    key: str
    effect: str
    value: str | None = None


class NodeCondition(Model, frozen=True):
    """One observation about a node."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None


class NodeSpec(Model, frozen=True):
    """Where a node's pods get addresses from, and what keeps them away."""

    pod_cidr: str | None = None
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str | None = None
    unschedulable: bool | None = None
    taints: tuple[Taint, ...] = ()


class NodeStatus(Model, frozen=True):
    """How a node is reached and how it fares."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()


class Node(Model, frozen=True):
    """A machine of the cluster."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    api_version: str = "v1"
    kind: str = "Node"


class EventSource(Model, frozen=True):
    """Who reported an event."""

    component: str | None = None
    host: str | None = None


class Event(Model, frozen=True):
    """Something that happened to an object, for people."""

    metadata: ObjectMeta
    involved_object: TargetReference
    reason: str | None = None
    message: str | None = None
    type: str | None = None
    source: EventSource = EventSource()
    count: int | None = None
    action: str | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    reporting_component: Annotated[str, NOT_DEFAULTED] = ""
    reporting_instance: Annotated[str, NOT_DEFAULTED] = ""
    api_version: str = "v1"
    kind: str = "Event"


class LeaseSpec(Model, frozen=True):
    """Who holds a lease, since when and for how long."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Model, frozen=True):
    """A lock that expires unless renewed."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


class ClusterTrustBundleSpec(Model, frozen=True):
    """Certificates to trust, in PEM."""

    trust_bundle: str
    signer_name: str | None = None


class ClusterTrustBundle(Model, frozen=True):
    """Certificate authorities that the whole cluster may trust."""

    metadata: ObjectMeta
    spec: ClusterTrustBundleSpec
    api_version: str = "certificates.k8s.io/v1beta1"
    kind: str = "ClusterTrustBundle"


__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
