"""Rules about Gateways, listeners and addresses (the CEL rules of their CRDs)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from propylon.api.gateway import (
    FrontendTLSConfig,
    FrontendTLSValidation,
    GatewayInfrastructure,
    GatewaySpec,
    GatewaySpecAddress,
    GatewayStatusAddress,
    Listener,
    ListenerEntry,
    ListenerFilter,
    ListenerSetSpec,
    ListenerTLSConfig,
    TLSPortConfig,
)
from propylon.api.schema import QUALIFIED_NAME_PATTERN, SUBDOMAIN_PATTERN
from propylon.api.validation.rules import Place, Rule, Violation, duplicates, union_rules, written_with_a_point
from propylon.api.validation.scalars import Pattern

_HOSTNAME = Pattern(rf"^(\*\.)?{SUBDOMAIN_PATTERN}$")
_QUALIFIED_NAME = Pattern(f"^{QUALIFIED_NAME_PATTERN}$")
_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")

LISTENERS = (Place(GatewaySpec, "listeners"), Place(ListenerSetSpec, "listeners"))


def listener_names_must_be_unique(listeners: Any) -> Iterable[Violation]:
    """Routes refer to listeners by name."""
    for index in duplicates(item.get("name") for item in listeners):
        yield Violation(f"[{index}].name", listeners[index]["name"])


def listener_port_protocol_hostname_must_be_unique(listeners: Any) -> Iterable[Violation]:
    """Two listeners that differ in name alone could not be told apart by a request."""
    keys = [
        (item["port"], item["protocol"], item.get("hostname")) if "port" in item and "protocol" in item else None
        for item in listeners
    ]
    for index in duplicates(keys):
        yield Violation(f"[{index}]", {key: listeners[index].get(key) for key in ("port", "protocol", "hostname")})


def tls_must_be_absent_for_plain_protocols(listeners: Any) -> Iterable[Violation]:
    """HTTP, TCP and UDP listeners do not speak TLS."""
    for index, item in enumerate(listeners):
        if item.get("protocol") in ("HTTP", "TCP", "UDP") and "tls" in item:
            yield Violation(f"[{index}].tls", item["tls"])


def https_must_terminate_tls(listeners: Any) -> Iterable[Violation]:
    """An HTTPS listener reads requests, so it cannot pass TLS through."""
    for index, item in enumerate(listeners):
        if item.get("protocol") == "HTTPS" and item.get("tls", {}).get("mode", "") not in ("", "Terminate"):
            yield Violation(f"[{index}].tls.mode", item["tls"]["mode"])


def tls_protocol_needs_tls_mode(listeners: Any) -> Iterable[Violation]:
    """A TLS listener either terminates or passes through, and must say which."""
    for index, item in enumerate(listeners):
        if item.get("protocol") == "TLS" and not item.get("tls", {}).get("mode"):
            yield Violation(f"[{index}].tls", item.get("tls"))


def hostname_must_be_absent_for_tcp_and_udp(listeners: Any) -> Iterable[Violation]:
    """TCP and UDP carry no host."""
    for index, item in enumerate(listeners):
        if item.get("protocol") in ("TCP", "UDP") and item.get("hostname"):
            yield Violation(f"[{index}].hostname", item["hostname"])


def terminating_tls_needs_certificates(tls: Any) -> Iterable[Violation]:
    """Terminating needs a certificate, by reference or by an option of the implementation."""
    if tls.get("mode") == "Terminate" and not tls.get("certificateRefs") and not tls.get("options"):
        yield Violation(".certificateRefs", tls.get("certificateRefs"))


def listener_filters_need_http(listener: Any) -> Iterable[Violation]:
    """Only HTTP and HTTPS listeners see requests."""
    if "filters" in listener and listener.get("protocol") not in ("HTTP", "HTTPS"):
        yield Violation(".filters", listener["filters"])


def port_must_be_written_without_a_point(value: Any) -> Iterable[Violation]:
    """Other rules compare ports, and fail on a number like 80.0."""
    return written_with_a_point(value, "port")


def frontend_tls_ports_must_be_unique(per_port: Any) -> Iterable[Violation]:
    """One port has one TLS configuration."""
    for index in duplicates(item.get("port") for item in per_port):
        yield Violation(f"[{index}].port", per_port[index]["port"])


def cluster_trust_bundle_has_no_namespace(refs: Any) -> Iterable[Violation]:
    """ClusterTrustBundles live in no namespace."""
    for index, ref in enumerate(refs):
        cluster_wide = ref.get("group") == "certificates.k8s.io" and ref.get("kind") == "ClusterTrustBundle"
        if cluster_wide and "namespace" in ref:
            yield Violation(f"[{index}].namespace", ref["namespace"])


def _repeated_addresses(addresses: Any, address_type: str) -> Iterable[Violation]:
    keys = [item.get("value") if item.get("type") == address_type else None for item in addresses]
    for index in duplicates(keys):
        yield Violation(f"[{index}].value", addresses[index]["value"])


def ip_addresses_must_be_unique(addresses: Any) -> Iterable[Violation]:
    """Asking twice for one IP address means nothing."""
    return _repeated_addresses(addresses, "IPAddress")


def hostname_addresses_must_be_unique(addresses: Any) -> Iterable[Violation]:
    """Asking twice for one hostname means nothing."""
    return _repeated_addresses(addresses, "Hostname")


def hostname_address_must_be_a_hostname(address: Any) -> Iterable[Violation]:
    """An address of type Hostname is a DNS name, maybe with a wildcard label in front."""
    if address.get("type") == "Hostname" and "value" in address and not _HOSTNAME.search(address["value"]):
        yield Violation(".value", address["value"])


def ip_address_must_parse(address: Any) -> Iterable[Violation]:
    """An address of type IPAddress is an IPv4 or IPv6 address (the CRD's oneOf)."""
    if address.get("type") == "IPAddress" and "value" in address and not _is_ip_address(address["value"]):
        yield Violation(".value", address["value"])


_LEADING_ZEROS = re.compile(r"(?<![0-9A-Fa-f])0+(?=[0-9]+\.)|(?<=\.)0+(?=[0-9])")


def _is_ip_address(text: str) -> bool:
    if "%" in text:  # a scope id means something on one host only
        return False
    try:
        # The API server takes leading zeros, as old versions of Go did: 192.0.2.01 is 192.0.2.1.
        ipaddress.ip_address(_LEADING_ZEROS.sub("", text))
    except ValueError:
        return False
    return True


def routability_must_be_cluster_or_prefixed(routability: Any) -> Iterable[Violation]:
    """Cluster, or `domain/word` of an implementation; `k8s.io` and what is below it is reserved."""
    if routability in ("", "Cluster"):
        return
    prefix, slash, word = routability.partition("/")
    reserved = prefix == "k8s.io" or prefix.endswith(".k8s.io")
    if not slash or not word or reserved or not _SUBDOMAIN.search(prefix):
        yield Violation("", routability)


def keys_must_be_qualified_names(mapping: Any) -> Iterable[Violation]:
    """A label or annotation key is a name of up to 63 characters, maybe after a DNS subdomain and a slash."""
    for key in mapping:
        if not _QUALIFIED_NAME.search(key):
            yield Violation(f'["{key}"]', key)


def key_prefixes_must_be_short(mapping: Any) -> Iterable[Violation]:
    """A key's prefix has fewer than 253 characters."""
    for key in mapping:
        if len(key.split("/")[0]) >= 253:
            yield Violation(f'["{key}"]', key)


_ADDRESSES = (Place(GatewaySpec, "addresses"),)
_KEYS = (Place(GatewayInfrastructure, "labels"), Place(GatewayInfrastructure, "annotations"))

GATEWAY_RULES: tuple[Rule, ...] = (
    Rule(
        listener_names_must_be_unique,
        LISTENERS,
        "another listener has this name",
        "Give each listener a name of its own; routes refer to it by sectionName.",
    ),
    Rule(
        listener_port_protocol_hostname_must_be_unique,
        LISTENERS,
        "another listener has the same port, protocol and hostname",
        "Change one of the three, or merge the listeners.",
    ),
    Rule(
        tls_must_be_absent_for_plain_protocols,
        LISTENERS,
        "tls is set on a listener whose protocol is HTTP, TCP or UDP",
        "Use protocol HTTPS or TLS, or remove tls.",
    ),
    Rule(
        https_must_terminate_tls,
        LISTENERS,
        "an HTTPS listener must terminate TLS",
        "Set tls.mode to Terminate, or use protocol TLS with a TLSRoute to pass it through.",
    ),
    Rule(
        tls_protocol_needs_tls_mode,
        LISTENERS,
        "a listener with protocol TLS must say what it does with TLS",
        "Add tls with mode Terminate (and certificateRefs) or Passthrough.",
    ),
    Rule(
        hostname_must_be_absent_for_tcp_and_udp,
        LISTENERS,
        "hostname is set on a listener whose protocol is TCP or UDP",
        "Remove hostname; TCP and UDP carry no host.",
    ),
    Rule(
        terminating_tls_needs_certificates,
        (Place(ListenerTLSConfig),),
        "TLS is terminated without a certificate",
        "Add certificateRefs with the name of a Secret of type kubernetes.io/tls, or set mode to Passthrough.",
    ),
    Rule(
        listener_filters_need_http,
        (Place(Listener),),
        "filters are set on a listener whose protocol is neither HTTP nor HTTPS",
        "Remove filters, or use protocol HTTP or HTTPS.",
        "experimental",
    ),
    Rule(
        frontend_tls_ports_must_be_unique,
        (Place(FrontendTLSConfig, "perPort"),),
        "another entry is about this port",
        "Keep one entry for each port.",
    ),
    Rule(
        port_must_be_written_without_a_point,
        (Place(Listener), Place(ListenerEntry), Place(TLSPortConfig)),
        "a port must be written without a point",
        'Write it like "80".',
    ),
    Rule(
        cluster_trust_bundle_has_no_namespace,
        (Place(FrontendTLSValidation, "caCertificateRefs"),),
        "a ClusterTrustBundle has no namespace",
        "Remove namespace.",
        "experimental",
    ),
    Rule(ip_addresses_must_be_unique, _ADDRESSES, "this IP address is asked for twice", "Remove one of the two."),
    Rule(hostname_addresses_must_be_unique, _ADDRESSES, "this hostname is asked for twice", "Remove one of the two."),
    Rule(
        hostname_address_must_be_a_hostname,
        (Place(GatewaySpecAddress), Place(GatewayStatusAddress)),
        "an address of type Hostname must be a DNS name in lower case",
        'Write it like "gateway.example.com".',
    ),
    Rule(
        ip_address_must_parse,
        (Place(GatewaySpecAddress), Place(GatewayStatusAddress)),
        "an address of type IPAddress must be an IPv4 or IPv6 address",
        'Write it like "192.0.2.10" or "2001:db8::10", or set type to Hostname or NamedAddress.',
    ),
    Rule(
        routability_must_be_cluster_or_prefixed,
        (Place(GatewaySpecAddress, "routability"), Place(GatewayStatusAddress, "routability")),
        "routability must be Cluster or a path with a domain of its own in front",
        'Use Cluster, or something like "example.com/internal"; k8s.io is reserved.',
        "experimental",
    ),
    Rule(
        keys_must_be_qualified_names,
        _KEYS,
        "this is not a valid key",
        'Use letters, digits, "-", "_" and "." (63 at most), maybe after a DNS subdomain and "/".',
    ),
    Rule(
        key_prefixes_must_be_short,
        _KEYS,
        "the key's prefix is too long",
        'Keep what is before "/" below 253 characters.',
    ),
    *union_rules(
        ListenerFilter, "type", {"ExternalAuth": "externalAuth", "ExtensionRef": "extensionRef"}, "experimental"
    ),
)
