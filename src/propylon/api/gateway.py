"""GatewayClass, Gateway and ListenerSet: who programs a data plane, and what it listens on."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import field

from propylon.api.filters import HTTPExternalAuthFilter
from propylon.api.meta import Condition, Conditions, LabelSelector, ObjectMeta, waiting_for_controller
from propylon.api.references import (
    GATEWAY_GROUP,
    LocalObjectReference,
    LocalParametersReference,
    ObjectReference,
    ParametersReference,
    ParentGatewayReference,
    SecretObjectReference,
)
from propylon.api.schema import (
    EXPERIMENTAL,
    AddressType,
    AnnotationValue,
    Constraint,
    Count,
    Doc,
    GatewayController,
    Group,
    Hostname,
    Kind,
    LabelValue,
    Model,
    ObjectName,
    PortNumber,
    ProtocolType,
    SectionName,
    atomic,
    keyed,
    one_of,
)

Options = Annotated[dict[str, AnnotationValue], Constraint(max_properties=16)]
Routability = Annotated[str, Constraint(max_length=253)]
Selector = Annotated[LabelSelector | None, Constraint(map_type="atomic")]

_PENDING_CLASS: tuple[Condition, ...] = (waiting_for_controller("Accepted"),)
_PENDING_GATEWAY: tuple[Condition, ...] = (waiting_for_controller("Accepted"), waiting_for_controller("Programmed"))


class GatewayClassSpec(Model, frozen=True):
    """Which controller programs Gateways of this class, and with which parameters."""

    controller_name: GatewayController
    parameters_ref: ParametersReference | None = None
    description: Annotated[str | None, Constraint(max_length=64)] = None


class SupportedFeature(Model, frozen=True):
    """A conformance feature the controller supports."""

    name: str


class GatewayClassStatus(Model, frozen=True):
    """Whether the controller accepted the class, and what it can do."""

    conditions: Conditions = _PENDING_CLASS
    supported_features: Annotated[tuple[SupportedFeature, ...], keyed("name", max=64)] = ()


class GatewayClass(Model, frozen=True):
    """A kind of Gateway, offered by one controller."""

    metadata: ObjectMeta
    spec: GatewayClassSpec
    status: GatewayClassStatus = GatewayClassStatus()
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "GatewayClass"


class RouteGroupKind(Model, frozen=True):
    """A kind of route."""

    kind: Kind
    group: Group = GATEWAY_GROUP


class RouteNamespaces(Model, frozen=True):
    """The namespaces whose routes may attach: All, Same (the listener's own), or those a selector matches."""

    from_: Annotated[str, one_of("All", "Selector", "Same")] = "Same"
    selector: Selector = None


class AllowedRoutes(Model, frozen=True):
    """Which routes may attach to a listener; without kinds, those its protocol suggests."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[tuple[RouteGroupKind, ...], atomic(max=8)] = ()


class ListenerNamespaces(Model, frozen=True):
    """The namespaces whose ListenerSets may attach: All, Same, None, or those a selector matches."""

    from_: Annotated[str, one_of("All", "Selector", "Same", "None")] = "None"
    selector: Selector = None


class AllowedListeners(Model, frozen=True):
    """Which ListenerSets may add listeners to the Gateway."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class ListenerTLSConfig(Model, frozen=True):
    """How a listener handles TLS: terminate it with these certificates, or pass it through."""

    mode: Annotated[str, one_of("Terminate", "Passthrough")] = "Terminate"
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], atomic(max=64)] = ()
    options: Options = field(default_factory=dict)


class ListenerFilter(Model, frozen=True):
    """Something done to every request of a listener before it is routed."""

    type: Annotated[str, one_of("ExternalAuth", "ExtensionRef")]
    external_auth: HTTPExternalAuthFilter | None = None
    extension_ref: LocalObjectReference | None = None


class ListenerFilters(Model, frozen=True):
    """What is done to the requests of a listener before they are routed."""

    requests: Annotated[tuple[ListenerFilter, ...], atomic(max=16)] = ()


class Listener(Model, frozen=True):
    """A port, protocol and hostname on which a Gateway accepts traffic."""

    name: SectionName
    port: PortNumber
    protocol: ProtocolType
    hostname: Annotated[Hostname | None, Doc("Host, exact or with a leading wildcard label; any when absent.")] = None
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()
    filters: Annotated[ListenerFilters | None, EXPERIMENTAL] = None


class GatewaySpecAddress(Model, frozen=True):
    """An address the Gateway asks for; without a value, any of that type."""

    type: AddressType = "IPAddress"
    value: Annotated[str | None, Constraint(max_length=253)] = None
    routability: Annotated[Routability | None, EXPERIMENTAL] = None


class GatewayStatusAddress(Model, frozen=True):
    """An address the Gateway is reached at."""

    value: Annotated[str, Constraint(min_length=1, max_length=253)]
    type: AddressType = "IPAddress"
    routability: Annotated[Routability | None, EXPERIMENTAL] = None


class GatewayInfrastructure(Model, frozen=True):
    """Labels, annotations and parameters for what the controller creates on behalf of the Gateway."""

    labels: Annotated[dict[str, LabelValue], Constraint(max_properties=8)] = field(default_factory=dict)
    annotations: Options = field(default_factory=dict)
    parameters_ref: LocalParametersReference | None = None


class GatewayBackendTLS(Model, frozen=True):
    """The certificate the Gateway shows to backends that ask for one."""

    client_certificate_ref: SecretObjectReference | None = None


class FrontendTLSValidation(Model, frozen=True):
    """Which client certificates are accepted, and whether one must be shown."""

    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], atomic(min=1, max=16)]
    mode: Annotated[str, one_of("AllowValidOnly", "AllowInsecureFallback")] = "AllowValidOnly"


class TLSConfig(Model, frozen=True):
    """What is asked of clients that connect with TLS."""

    validation: FrontendTLSValidation | None = None


class TLSPortConfig(Model, frozen=True):
    """What is asked of clients on one port instead of the default."""

    port: PortNumber
    tls: TLSConfig


class FrontendTLSConfig(Model, frozen=True):
    """What is asked of clients: on every port, and the ports that differ."""

    default: TLSConfig
    per_port: Annotated[tuple[TLSPortConfig, ...], keyed("port", max=64)] = ()


class GatewayTLSConfig(Model, frozen=True):
    """TLS settings of the whole Gateway, towards backends and towards clients."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(Model, frozen=True):
    """The class of the Gateway, its listeners and its addresses."""

    gateway_class_name: ObjectName
    listeners: Annotated[tuple[Listener, ...], keyed("name", min=1, max=64)]
    addresses: Annotated[tuple[GatewaySpecAddress, ...], atomic(max=16)] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLSConfig | None = None
    default_scope: Annotated[str | None, one_of("All", "None"), EXPERIMENTAL] = None


class ListenerStatus(Model, frozen=True):
    """How one listener fares."""

    name: SectionName
    attached_routes: Count
    conditions: Conditions
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], atomic(max=8)] = ()


class GatewayStatus(Model, frozen=True):
    """Where the Gateway is reached and how it fares."""

    conditions: Conditions = _PENDING_GATEWAY
    addresses: Annotated[tuple[GatewayStatusAddress, ...], atomic(max=16)] = ()
    listeners: Annotated[tuple[ListenerStatus, ...], keyed("name", max=64)] = ()
    attached_listener_sets: Annotated[int | None, Constraint(format="int32")] = None


class Gateway(Model, frozen=True):
    """A data plane: addresses and listeners to which routes attach."""

    metadata: ObjectMeta
    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "Gateway"


class ListenerEntry(Model, frozen=True):
    """A listener that a ListenerSet adds to its Gateway."""

    name: SectionName
    port: PortNumber
    protocol: ProtocolType
    hostname: Hostname | None = None
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()
    filters: Annotated[ListenerFilters | None, EXPERIMENTAL] = None


class ListenerSetSpec(Model, frozen=True):
    """The Gateway to add listeners to, and the listeners."""

    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[ListenerEntry, ...], keyed("name", min=1, max=64)]


class ListenerEntryStatus(Model, frozen=True):
    """How one listener of the set fares."""

    name: SectionName
    attached_routes: Count
    conditions: Conditions
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], atomic(max=8)] = ()


class ListenerSetStatus(Model, frozen=True):
    """How the set and each of its listeners fare."""

    conditions: Conditions = _PENDING_GATEWAY
    listeners: Annotated[tuple[ListenerEntryStatus, ...], keyed("name", max=64)] = ()


class ListenerSet(Model, frozen=True):
    """Listeners added to a Gateway from outside of it, by another team or namespace."""

    metadata: ObjectMeta
    spec: ListenerSetSpec
    status: ListenerSetStatus = ListenerSetStatus()
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "ListenerSet"


__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
