"""How objects point at each other: parents, backends, Secrets, policy targets, parameters."""

from __future__ import annotations

from typing import Annotated

from propylon.api.schema import Constraint, Doc, Group, Kind, Model, NamespaceName, ObjectName, PortNumber, SectionName

GATEWAY_GROUP = "gateway.networking.k8s.io"
EXPERIMENTAL_GROUP = "gateway.networking.x-k8s.io"

Weight = Annotated[int, Constraint(minimum=0, maximum=1_000_000, format="int32")]


class LocalObjectReference(Model, frozen=True):
    """An object in the same namespace."""

    group: Group
    kind: Kind
    name: ObjectName


class ObjectReference(Model, frozen=True):
    """An object, maybe in another namespace (which then must grant it)."""

    group: Group
    kind: Kind
    name: ObjectName
    namespace: Annotated[NamespaceName | None, Doc("Another namespace needs a ReferenceGrant there.")] = None


class SecretObjectReference(Model, frozen=True):
    """A Secret, or another kind that holds a certificate."""

    name: ObjectName
    group: Group = ""
    kind: Kind = "Secret"
    namespace: Annotated[NamespaceName | None, Doc("Another namespace needs a ReferenceGrant there.")] = None


class BackendObjectReference(Model, frozen=True):
    """Where traffic goes: a Service with a port, or another kind of backend."""

    name: ObjectName
    group: Group = ""
    kind: Kind = "Service"
    namespace: Annotated[NamespaceName | None, Doc("Another namespace needs a ReferenceGrant there.")] = None
    port: Annotated[PortNumber | None, Doc("The Service's port, not the pods'; needed for Services.")] = None


class BackendRef(BackendObjectReference, frozen=True):
    """A backend and its share of the traffic, in proportion to the sum of all weights."""

    weight: Annotated[Weight, Doc("Share of the traffic, in proportion to the sum of all weights; 0 gets none.")] = 1


class ParentReference(Model, frozen=True):
    """What a route attaches to: a Gateway, a ListenerSet or a Service; all of it, one section, or one port."""

    name: ObjectName
    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    namespace: Annotated[NamespaceName | None, Doc("The route's own when absent.")] = None
    section_name: Annotated[
        SectionName | None, Doc("One listener of the parent (or port of a Service); all when absent.")
    ] = None
    port: Annotated[PortNumber | None, Doc("Only listeners on this port.")] = None


class ParentGatewayReference(Model, frozen=True):
    """The Gateway that a ListenerSet adds listeners to."""

    name: ObjectName
    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    namespace: NamespaceName | None = None


class ParametersReference(Model, frozen=True):
    """Parameters of a GatewayClass; namespaced kinds need the namespace."""

    group: Group
    kind: Kind
    name: ObjectName
    namespace: NamespaceName | None = None


class LocalParametersReference(Model, frozen=True):
    """Parameters of a Gateway, in its own namespace."""

    group: Group
    kind: Kind
    name: ObjectName


class LocalPolicyTargetReferenceWithSectionName(Model, frozen=True):
    """What a policy is about: an object of its namespace, or one section of it (a Service's port, say)."""

    group: Group
    kind: Kind
    name: ObjectName
    section_name: SectionName | None = None
