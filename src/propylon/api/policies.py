"""ReferenceGrant, BackendTLSPolicy and XBackend: what may be referred to, and how backends are spoken to."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import field

from propylon.api.meta import Condition, ObjectMeta
from propylon.api.references import (
    EXPERIMENTAL_GROUP,
    GATEWAY_GROUP,
    LocalObjectReference,
    LocalPolicyTargetReferenceWithSectionName,
    ParentReference,
    SecretObjectReference,
)
from propylon.api.routes import SessionPersistence
from propylon.api.schema import (
    REQUIRED,
    AbsoluteURI,
    AnnotationValue,
    Constraint,
    Doc,
    GatewayController,
    Group,
    Hostname,
    InExperimental,
    Kind,
    LabelValue,
    Model,
    NamespaceName,
    ObjectName,
    PortNumber,
    PreciseHostname,
    atomic,
    keyed,
    one_of,
)


class ReferenceGrantFrom(Model, frozen=True):
    """Who may refer: objects of this kind in that namespace."""

    group: Group
    kind: Kind
    namespace: NamespaceName


class ReferenceGrantTo(Model, frozen=True):
    """What may be referred to: objects of this kind in the grant's namespace, or just the one named."""

    group: Group
    kind: Kind
    name: ObjectName | None = None


class ReferenceGrantSpec(Model, frozen=True):
    """Everyone in `from` may refer to everything in `to`."""

    from_: Annotated[tuple[ReferenceGrantFrom, ...], atomic(min=1, max=16)]
    to: Annotated[tuple[ReferenceGrantTo, ...], atomic(min=1, max=16)]


class ReferenceGrant(Model, frozen=True):
    """Lets objects of other namespaces refer to objects of this one."""

    metadata: ObjectMeta
    spec: ReferenceGrantSpec
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "ReferenceGrant"


class PolicyAncestorStatus(Model, frozen=True):
    """How a policy fares at one ancestor of its target (a Gateway, mostly), by one controller."""

    ancestor_ref: ParentReference
    controller_name: GatewayController
    conditions: Annotated[tuple[Condition, ...], keyed("type", min=1, max=8)]


class PolicyStatus(Model, frozen=True):
    """How a policy fares at each ancestor."""

    ancestors: Annotated[tuple[PolicyAncestorStatus, ...], atomic(max=16), REQUIRED] = ()


class SubjectAltName(Model, frozen=True):
    """An identity that the backend's certificate must carry."""

    type: Annotated[str, one_of("Hostname", "URI")]
    hostname: Hostname | None = None
    uri: AbsoluteURI | None = None


class BackendTLSPolicyValidation(Model, frozen=True):
    """How a backend's certificate is checked: the name to ask for, the authorities to trust, the identities to find."""

    hostname: Annotated[
        PreciseHostname, Doc("Name to ask for (SNI) and, unless subjectAltNames are given, to find in the certificate.")
    ]
    ca_certificate_refs: Annotated[
        tuple[LocalObjectReference, ...],
        atomic(max=8),
        InExperimental(Constraint(min_items=1)),
        Doc("ConfigMaps of the same namespace with the authorities to trust."),
    ] = ()
    well_known_ca_certificates: Annotated[
        str | None,
        Constraint(
            pattern=r"^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"
            r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$",
            min_length=1,
            max_length=253,
        ),
        Doc("System trusts what the operating system trusts."),
    ] = None
    subject_alt_names: Annotated[
        tuple[SubjectAltName, ...], atomic(max=5), Doc("One of these identities must be in the certificate.")
    ] = ()


class BackendTLSPolicySpec(Model, frozen=True):
    """The backends to speak TLS to, and how to check them."""

    target_refs: Annotated[
        tuple[LocalPolicyTargetReferenceWithSectionName, ...],
        atomic(min=1, max=16),
        Doc("Services of the same namespace; sectionName picks one port."),
    ]
    validation: BackendTLSPolicyValidation
    options: Annotated[dict[str, AnnotationValue], Constraint(max_properties=16)] = field(default_factory=dict)


class BackendTLSPolicy(Model, frozen=True):
    """Makes Gateways speak TLS to a Service, and says how they check its certificate."""

    metadata: ObjectMeta
    spec: BackendTLSPolicySpec
    status: PolicyStatus | None = None
    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "BackendTLSPolicy"


class BackendPort(Model, frozen=True):
    """The port of an XBackend's endpoints."""

    number: PortNumber | None = None


class ExternalHostnameBackend(Model, frozen=True):
    """A host outside of the cluster, found by DNS."""

    hostname: PreciseHostname


class EndpointSelectorBackend(Model, frozen=True):
    """The pods that carry these labels."""

    match_labels: Annotated[dict[str, LabelValue], Constraint(min_properties=1, max_properties=64)]


class BackendTLS(Model, frozen=True):
    """How TLS is spoken to an XBackend: not at all, checking the server, or showing a client certificate too."""

    mode: Annotated[str, one_of("None", "ServerOnly", "ClientAndServer")]
    client_certificate_ref: SecretObjectReference | None = None
    validation: BackendTLSPolicyValidation | None = None


class BackendSpec(Model, frozen=True):
    """Where an XBackend is and how it is spoken to."""

    type: Annotated[str, one_of("ExternalHostname", "EndpointSelector")]
    port: Annotated[BackendPort, Constraint(min_properties=1)]
    external_hostname: ExternalHostnameBackend | None = None
    endpoint_selector: EndpointSelectorBackend | None = None
    session_persistence: SessionPersistence | None = None
    protocol: Annotated[
        str | None,
        one_of("TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP", "GRPC", "WSS"),
        Doc("What is spoken to the backend."),
    ] = None
    tls: BackendTLS = BackendTLS("None")


class BackendAncestorStatus(Model, frozen=True):
    """How an XBackend fares at one Gateway, by one controller."""

    controller_name: GatewayController
    ancestor_ref: ParentReference
    conditions: Annotated[tuple[Condition, ...], keyed("type")] = ()


class BackendStatus(Model, frozen=True):
    """How an XBackend fares at each Gateway."""

    ancestors: Annotated[tuple[BackendAncestorStatus, ...], atomic(max=32)] = ()


class XBackend(Model, frozen=True):
    """A backend of its own, without a Service: a host outside of the cluster, or pods by label. Experimental."""

    metadata: ObjectMeta
    spec: BackendSpec
    status: BackendStatus = BackendStatus()
    api_version: str = f"{EXPERIMENTAL_GROUP}/v1alpha1"
    kind: str = "XBackend"


__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
