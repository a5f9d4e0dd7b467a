"""What GatewayClasses of ours claim in status.supportedFeatures: only what works.

Everything of the five profiles of v1.7.0 works; what the surroundings of a running program rule out is in
`Sources.lacking`, and not claimed.
"""

import re

SUPPORTED_RELEASES = ("v1.4", "v1.5", "v1.6", "v1.7")
"""Releases of the Gateway API whose CRDs we know, the oldest first."""

SUPPORTED_FEATURES: tuple[str, ...] = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "ClusterTrustBundle",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayListenerFilters",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
)
"""All of v1.7.0, sorted; the API allows 64 at most."""

EXPERIMENTAL_FEATURES = frozenset(
    {
        "ClusterTrustBundle",
        "GatewayAddressRoutability",
        "GatewayAddressRoutabilityCluster",
        "GatewayListenerFilters",
        "HTTPRouteDestinationPortMatching",
    }
)
"""Those that are not claimed where the CRDs of the standard channel are installed (pkg/features of v1.7.0)."""

CLUSTER_FEATURES = frozenset({"GatewayAddressRoutabilityCluster", "GatewayInfrastructure"})
"""Those that need a cluster around: Services with cluster IPs, objects that are made for Gateways."""

_FIELDS_OF_V1_7 = frozenset(
    {"ClusterTrustBundle", "GatewayAddressRoutability", "GatewayAddressRoutabilityCluster", "GatewayListenerFilters"}
)
_STANDARD_IN_V1_7 = frozenset({"HTTPRouteRetryCodes", "HTTPRouteRetryConnectionError"})
_STANDARD_IN_V1_5 = frozenset(
    {
        "GatewayBackendClientCertificate",
        "GatewayFrontendClientCertificateValidation",
        "GatewayFrontendClientCertificateValidationInsecureFallback",
        "HTTPRouteCORS",
    }
)
OPTIONAL_KINDS = (
    "BackendTLSPolicy",
    "ClusterTrustBundle",
    "GRPCRoute",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "UDPRoute",
)
"""Kinds that a cluster may do without. The features of each begin with its name."""


def release_of(version: str) -> str | None:
    """`v1.6` of `v1.6.3`; None if that is no version."""
    match = re.fullmatch(r"(v\d+\.\d+)\.\d+([-+].*)?", version)
    return match.group(1) if match else None


def lacking_in(channel: str, release: str | None) -> frozenset[str]:
    """Features whose fields the CRDs of a channel and release do not have; None: a release that we do not know."""
    lacking: frozenset[str] = EXPERIMENTAL_FEATURES if channel == "standard" else frozenset()
    if release not in SUPPORTED_RELEASES or release == SUPPORTED_RELEASES[-1]:
        return lacking
    lacking |= _FIELDS_OF_V1_7
    if channel == "standard":
        lacking |= _STANDARD_IN_V1_7
        if release == "v1.4":
            lacking |= _STANDARD_IN_V1_5
    return lacking


def lacking_without(kinds: frozenset[str]) -> frozenset[str]:
    """Features of kinds that are not served."""
    return frozenset(name for name in SUPPORTED_FEATURES if name.startswith(tuple(kinds)))
