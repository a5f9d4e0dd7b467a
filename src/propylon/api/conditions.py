"""Every condition type and reason of Gateway API v1.7.0; members are named as their values, enums as in Go."""

from enum import StrEnum


class GatewayClassConditionType(StrEnum):
    """What is observed about a GatewayClass."""

    Accepted = "Accepted"
    SupportedVersion = "SupportedVersion"


class GatewayClassConditionReason(StrEnum):
    """Why a GatewayClass is or is not accepted."""

    Accepted = "Accepted"
    InvalidParameters = "InvalidParameters"
    Pending = "Pending"
    Unsupported = "Unsupported"
    Waiting = "Waiting"
    SupportedVersion = "SupportedVersion"
    UnsupportedVersion = "UnsupportedVersion"


class GatewayConditionType(StrEnum):
    """What is observed about a Gateway; Scheduled and Ready are deprecated or reserved."""

    AddressesAssigned = "AddressesAssigned"
    Programmed = "Programmed"
    InsecureFrontendValidationMode = "InsecureFrontendValidationMode"
    Accepted = "Accepted"
    Scheduled = "Scheduled"
    ResolvedRefs = "ResolvedRefs"
    Ready = "Ready"


class GatewayConditionReason(StrEnum):
    """Why a Gateway's condition is what it is."""

    AddressesAssigned = "AddressesAssigned"
    PartiallyAssigned = "PartiallyAssigned"
    NotAssigned = "NotAssigned"
    Programmed = "Programmed"
    Invalid = "Invalid"
    NoResources = "NoResources"
    AddressNotAssigned = "AddressNotAssigned"
    AddressNotUsable = "AddressNotUsable"
    ConfigurationChanged = "ConfigurationChanged"
    Accepted = "Accepted"
    ListenersNotValid = "ListenersNotValid"
    Pending = "Pending"
    UnsupportedAddress = "UnsupportedAddress"
    InvalidParameters = "InvalidParameters"
    Scheduled = "Scheduled"
    NotReconciled = "NotReconciled"
    ResolvedRefs = "ResolvedRefs"
    InvalidClientCertificateRef = "InvalidClientCertificateRef"
    RefNotPermitted = "RefNotPermitted"
    ListenersNotResolved = "ListenersNotResolved"
    Ready = "Ready"
    ListenersNotReady = "ListenersNotReady"


class ListenerConditionType(StrEnum):
    """What is observed about a listener of a Gateway; Detached and Ready are deprecated or reserved."""

    Conflicted = "Conflicted"
    Accepted = "Accepted"
    Detached = "Detached"
    ResolvedRefs = "ResolvedRefs"
    Programmed = "Programmed"
    OverlappingTLSConfig = "OverlappingTLSConfig"
    Ready = "Ready"


class ListenerConditionReason(StrEnum):
    """Why a listener's condition is what it is."""

    HostnameConflict = "HostnameConflict"
    ProtocolConflict = "ProtocolConflict"
    NoConflicts = "NoConflicts"
    Accepted = "Accepted"
    Attached = "Attached"
    PortUnavailable = "PortUnavailable"
    UnsupportedProtocol = "UnsupportedProtocol"
    NoValidCACertificate = "NoValidCACertificate"
    UnsupportedValue = "UnsupportedValue"
    ResolvedRefs = "ResolvedRefs"
    InvalidCertificateRef = "InvalidCertificateRef"
    InvalidRouteKinds = "InvalidRouteKinds"
    RefNotPermitted = "RefNotPermitted"
    InvalidCACertificateRef = "InvalidCACertificateRef"
    InvalidCACertificateKind = "InvalidCACertificateKind"
    Programmed = "Programmed"
    Invalid = "Invalid"
    Pending = "Pending"
    OverlappingHostnames = "OverlappingHostnames"
    OverlappingCertificates = "OverlappingCertificates"
    Ready = "Ready"


class ListenerSetConditionType(StrEnum):
    """What is observed about a ListenerSet."""

    Programmed = "Programmed"
    Accepted = "Accepted"


class ListenerSetConditionReason(StrEnum):
    """Why a ListenerSet's condition is what it is."""

    Programmed = "Programmed"
    Accepted = "Accepted"
    NotAllowed = "NotAllowed"
    ParentNotAccepted = "ParentNotAccepted"
    ListenersNotValid = "ListenersNotValid"
    Invalid = "Invalid"
    Pending = "Pending"


class ListenerEntryConditionType(StrEnum):
    """What is observed about a listener of a ListenerSet."""

    Conflicted = "Conflicted"
    Accepted = "Accepted"
    ResolvedRefs = "ResolvedRefs"
    Programmed = "Programmed"
    Ready = "Ready"


class ListenerEntryConditionReason(StrEnum):
    """Why a ListenerSet's listener's condition is what it is."""

    HostnameConflict = "HostnameConflict"
    ProtocolConflict = "ProtocolConflict"
    ListenerConflict = "ListenerConflict"
    Accepted = "Accepted"
    UnsupportedProtocol = "UnsupportedProtocol"
    TooManyListeners = "TooManyListeners"
    ResolvedRefs = "ResolvedRefs"
    InvalidCertificateRef = "InvalidCertificateRef"
    InvalidRouteKinds = "InvalidRouteKinds"
    RefNotPermitted = "RefNotPermitted"
    Programmed = "Programmed"
    PortUnavailable = "PortUnavailable"
    Pending = "Pending"
    Invalid = "Invalid"
    Ready = "Ready"


class RouteConditionType(StrEnum):
    """What is observed about a route at one parent."""

    Accepted = "Accepted"
    ResolvedRefs = "ResolvedRefs"
    PartiallyInvalid = "PartiallyInvalid"


class RouteConditionReason(StrEnum):
    """Why a route's condition is what it is."""

    Accepted = "Accepted"
    NotAllowedByListeners = "NotAllowedByListeners"
    NoMatchingListenerHostname = "NoMatchingListenerHostname"
    NoMatchingParent = "NoMatchingParent"
    UnsupportedValue = "UnsupportedValue"
    Pending = "Pending"
    IncompatibleFilters = "IncompatibleFilters"
    ResolvedRefs = "ResolvedRefs"
    RefNotPermitted = "RefNotPermitted"
    InvalidKind = "InvalidKind"
    BackendNotFound = "BackendNotFound"
    UnsupportedProtocol = "UnsupportedProtocol"


class PolicyConditionType(StrEnum):
    """What is observed about a policy at one ancestor."""

    ResolvedRefs = "ResolvedRefs"
    Accepted = "Accepted"


class PolicyConditionReason(StrEnum):
    """Why a policy's condition is what it is."""

    NoValidCACertificate = "NoValidCACertificate"
    ResolvedRefs = "ResolvedRefs"
    InvalidCACertificateRef = "InvalidCACertificateRef"
    InvalidKind = "InvalidKind"
    Accepted = "Accepted"
    Conflicted = "Conflicted"
    Invalid = "Invalid"
    TargetNotFound = "TargetNotFound"


class BackendConditionType(StrEnum):
    """What is observed about an XBackend."""

    Accepted = "Accepted"


class BackendConditionReason(StrEnum):
    """Why an XBackend's condition is what it is."""

    Accepted = "Accepted"
