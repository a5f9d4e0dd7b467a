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

    controller_name: Annotated[
        GatewayController, Doc("The controller that programs Gateways of this class; cannot be changed.")
    ]
    parameters_ref: Annotated[ParametersReference | None, Doc("Settings of the controller for this class.")] = None
    description: Annotated[str | None, Constraint(max_length=64), Doc("What the class is for, in a few words.")] = None


class SupportedFeature(Model, frozen=True):
    """A conformance feature the controller supports."""

    name: str


class GatewayClassStatus(Model, frozen=True):
    """Whether the controller accepted the class, and what it can do."""

    conditions: Conditions = _PENDING_CLASS
    supported_features: Annotated[
        tuple[SupportedFeature, ...], keyed("name", max=64), Doc("Conformance features, sorted by name.")
    ] = ()


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
    selector: Annotated[Selector, Doc("Which namespaces, when `from` is Selector.")] = None


class AllowedRoutes(Model, frozen=True):
    """Which routes may attach to a listener; without kinds, those its protocol suggests."""

    namespaces: Annotated[RouteNamespaces, Doc("Namespaces whose routes may attach.")] = RouteNamespaces()
    kinds: Annotated[
        tuple[RouteGroupKind, ...],
        atomic(max=8),
        Doc("Kinds of routes that may attach; those the protocol suggests when empty."),
    ] = ()


class ListenerNamespaces(Model, frozen=True):
    """The namespaces whose ListenerSets may attach: All, Same, None, or those a selector matches."""

    from_: Annotated[str, one_of("All", "Selector", "Same", "None")] = "None"
    selector: Annotated[Selector, Doc("Which namespaces, when `from` is Selector.")] = None


class AllowedListeners(Model, frozen=True):
    """Which ListenerSets may add listeners to the Gateway."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class ListenerTLSConfig(Model, frozen=True):
    """How a listener handles TLS: terminate it with these certificates, or pass it through."""

    mode: Annotated[
        str,
        one_of("Terminate", "Passthrough"),
        Doc("Terminate decrypts here; Passthrough hands the encrypted stream to the backend."),
    ] = "Terminate"
    certificate_refs: Annotated[
        tuple[SecretObjectReference, ...],
        atomic(max=64),
        Doc("Secrets with certificate and key; the first fitting one is shown to clients."),
    ] = ()
    options: Annotated[Options, Doc("Settings of the implementation.")] = field(default_factory=dict)


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

    name: Annotated[SectionName, Doc("Unique within the Gateway; routes refer to it as sectionName.")]
    port: Annotated[PortNumber, Doc("Port clients connect to; several listeners may share it.")]
    protocol: Annotated[ProtocolType, Doc("HTTP, HTTPS, TLS, TCP or UDP.")]
    hostname: Annotated[Hostname | None, Doc("Host, exact or with a leading wildcard label; any when absent.")] = None
    tls: Annotated[ListenerTLSConfig | None, Doc("Needed for HTTPS and TLS, not allowed for HTTP, TCP and UDP.")] = None
    allowed_routes: Annotated[
        AllowedRoutes, Doc("Which routes may attach; those of the Gateway's namespace by default.")
    ] = AllowedRoutes()
    filters: Annotated[ListenerFilters | None, EXPERIMENTAL] = None


class GatewaySpecAddress(Model, frozen=True):
    """An address the Gateway asks for; without a value, any of that type."""

    type: Annotated[AddressType, Doc("IPAddress, Hostname, NamedAddress or a type of the implementation.")] = (
        "IPAddress"
    )
    value: Annotated[str | None, Constraint(max_length=253)] = None
    routability: Annotated[Routability | None, EXPERIMENTAL] = None

    @property
    def wants_cluster_ip(self) -> bool:
        """Whether nothing but the cluster IP of a Service will do (GEP-5093)."""
        return self.type == "IPAddress" and self.routability == "Cluster"


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

    client_certificate_ref: Annotated[
        SecretObjectReference | None, Doc("Secret with the certificate and key shown to backends.")
    ] = None


class FrontendTLSValidation(Model, frozen=True):
    """Which client certificates are accepted, and whether one must be shown."""

    ca_certificate_refs: Annotated[
        tuple[ObjectReference, ...],
        atomic(min=1, max=16),
        Doc("ConfigMaps with the authorities that sign client certificates."),
    ]
    mode: Annotated[
        str,
        one_of("AllowValidOnly", "AllowInsecureFallback"),
        Doc("AllowValidOnly refuses clients without a valid certificate; AllowInsecureFallback does not."),
    ] = "AllowValidOnly"


class TLSConfig(Model, frozen=True):
    """What is asked of clients that connect with TLS."""

    validation: FrontendTLSValidation | None = None


class TLSPortConfig(Model, frozen=True):
    """What is asked of clients on one port instead of the default."""

    port: PortNumber
    tls: TLSConfig


class FrontendTLSConfig(Model, frozen=True):
    """What is asked of clients: on every port, and the ports that differ."""

    default: Annotated[TLSConfig, Doc("What is asked of clients on every HTTPS port without an entry of its own.")]
    per_port: Annotated[
        tuple[TLSPortConfig, ...], keyed("port", max=64), Doc("Ports that ask for something else.")
    ] = ()


class GatewayTLSConfig(Model, frozen=True):
    """TLS settings of the whole Gateway, towards backends and towards clients."""

    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(Model, frozen=True):
    """The class of the Gateway, its listeners and its addresses."""

    gateway_class_name: Annotated[
        ObjectName, Doc("The GatewayClass, and by it the controller, that programs this Gateway.")
    ]
    listeners: Annotated[tuple[Listener, ...], keyed("name", min=1, max=64), Doc("Where traffic is accepted.")]
    addresses: Annotated[
        tuple[GatewaySpecAddress, ...], atomic(max=16), Doc("Addresses asked for; the controller chooses when empty.")
    ] = ()
    infrastructure: Annotated[
        GatewayInfrastructure | None, Doc("Labels, annotations and parameters of what is created for this Gateway.")
    ] = None
    allowed_listeners: Annotated[
        AllowedListeners | None, Doc("Which ListenerSets may add listeners; none by default.")
    ] = None
    tls: Annotated[GatewayTLSConfig | None, Doc("Client certificates, towards backends and from clients.")] = None
    default_scope: Annotated[
        str | None,
        one_of("All", "None"),
        EXPERIMENTAL,
        Doc("Whether routes that ask for default Gateways get this one."),
    ] = None


class ListenerStatus(Model, frozen=True):
    """How one listener fares."""

    name: SectionName
    attached_routes: Annotated[Count, Doc("Number of routes attached.")]
    conditions: Conditions
    supported_kinds: Annotated[tuple[RouteGroupKind, ...], atomic(max=8)] = ()


class GatewayStatus(Model, frozen=True):
    """Where the Gateway is reached and how it fares."""

    conditions: Conditions = _PENDING_GATEWAY
    addresses: Annotated[tuple[GatewayStatusAddress, ...], atomic(max=16), Doc("Where the Gateway is reached.")] = ()
    listeners: Annotated[tuple[ListenerStatus, ...], keyed("name", max=64)] = ()
    attached_listener_sets: Annotated[
        int | None, Constraint(format="int32"), Doc("Number of ListenerSets attached.")
    ] = None


class Gateway(Model, frozen=True):
    """A data plane: addresses and listeners to which routes attach."""

    metadata: ObjectMeta
    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "Gateway"


class ListenerEntry(Model, frozen=True):
    """A listener that a ListenerSet adds to its Gateway."""

    name: Annotated[SectionName, Doc("Unique within the set; routes refer to it as sectionName.")]
    port: Annotated[PortNumber, Doc("Port clients connect to; several listeners may share it.")]
    protocol: Annotated[ProtocolType, Doc("HTTP, HTTPS, TLS, TCP or UDP.")]
    hostname: Annotated[Hostname | None, Doc("Host, exact or with a leading wildcard label; any when absent.")] = None
    tls: ListenerTLSConfig | None = None
    allowed_routes: Annotated[
        AllowedRoutes, Doc("Which routes may attach; those of the set's namespace by default.")
    ] = AllowedRoutes()
    filters: Annotated[ListenerFilters | None, EXPERIMENTAL] = None


class ListenerSetSpec(Model, frozen=True):
    """The Gateway to add listeners to, and the listeners."""

    parent_ref: Annotated[ParentGatewayReference, Doc("The Gateway that gets the listeners; it must allow them.")]
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
