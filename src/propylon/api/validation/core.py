"""Rules about the kinds of Kubernetes itself, as its API server has them (for what is interpreted)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from propylon.api.core import ConfigMap, EndpointSlice, Secret, Service, ServicePort, ServiceSpec
from propylon.api.schema import LABEL_PATTERN, SUBDOMAIN_PATTERN
from propylon.api.validation.rules import Place, Rule, Violation, duplicates, is_alone
from propylon.api.validation.scalars import Pattern

_PORT_NAME = Pattern(f"^{LABEL_PATTERN}$")
_SUBDOMAIN = Pattern(f"^{SUBDOMAIN_PATTERN}$")
_DATA_KEY = Pattern("^[-._a-zA-Z0-9]+$")
_HIDDEN = "(hidden)"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"\A(?:{_OCTET}\.){{3}}{_OCTET}\Z")
"""What surely is an IPv4 address."""


def service_port_names_must_be_unique(ports: Any) -> Iterable[Violation]:
    """References name a port by its name."""
    for index in duplicates(port.get("name") or None for port in ports):
        yield Violation(f"[{index}].name", ports[index]["name"])


def service_ports_need_names(ports: Any) -> Iterable[Violation]:
    """One port may go without a name; several need one each."""
    if len(ports) > 1:
        for index, port in enumerate(ports):
            if not port.get("name"):
                yield Violation(f"[{index}].name", None)


def service_ports_must_be_unique(ports: Any) -> Iterable[Violation]:
    """One port number of one protocol leads to one place."""
    for index in duplicates((port.get("port"), port.get("protocol", "TCP")) for port in ports):
        yield Violation(f"[{index}].port", ports[index].get("port"))


def service_port_name_must_be_a_label(port: Any) -> Iterable[Violation]:
    """A port's name is a DNS label."""
    name = port.get("name")
    if name and (len(name) > 63 or not _PORT_NAME.search(name)):
        yield Violation(".name", name)


def target_port_must_be_in_range(port: Any) -> Iterable[Violation]:
    """A target port is a port number or the name of one."""
    target = port.get("targetPort")
    if isinstance(target, int) and target != port.get("port") and not 1 <= target <= 65535:
        yield Violation(".targetPort", target)


def service_needs_ports(spec: Any) -> Iterable[Violation]:
    """Only a headless Service and an alias of an external name can do without ports."""
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and spec.get("type", "ClusterIP") != "ExternalName" and not headless:
        yield Violation(".ports", spec.get("ports"))


def external_name_must_be_a_dns_name(spec: Any) -> Iterable[Violation]:
    """A Service of type ExternalName is an alias of a DNS name."""
    if spec.get("type") == "ExternalName":
        name = spec.get("externalName", "")
        if not _SUBDOMAIN.search(name.removesuffix(".")):
            yield Violation(".externalName", spec.get("externalName"))


def endpoint_addresses_must_fit_address_type(endpoint_slice: Any) -> Iterable[Violation]:
    """All addresses of a slice are of its address type."""
    address_type = endpoint_slice.get("addressType")
    ipv4 = address_type == "IPv4"
    for index, endpoint in enumerate(endpoint_slice.get("endpoints", ())):
        for position, address in enumerate(endpoint.get("addresses", ())):
            if not (ipv4 and _IPV4.match(address)) and not _fits(address, address_type):
                yield Violation(f".endpoints[{index}].addresses[{position}]", address)


def _fits(address: str, address_type: Any) -> bool:
    if address_type == "FQDN":
        return bool(_SUBDOMAIN.search(address))
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return address_type not in ("IPv4", "IPv6")
    return {"IPv4": 4, "IPv6": 6}.get(address_type, version) == version


def endpoint_port_names_must_be_unique(ports: Any) -> Iterable[Violation]:
    """A Service's port finds its number by name, of which "" is one."""
    for index in duplicates(port.get("name", "") for port in ports):
        yield Violation(f"[{index}].name", ports[index].get("name", ""))


def data_must_be_base64(data: Any) -> Iterable[Violation]:
    """Values are base64 on the wire."""
    for key, value in data.items():
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            yield Violation(f'["{key}"]', _HIDDEN)


def data_keys_must_be_file_names(data: Any) -> Iterable[Violation]:
    """A key can become a file's name."""
    for key in data:
        if len(key) > 253 or key in (".", "..") or not _DATA_KEY.search(key):
            yield Violation(f'["{key}"]', key)


def tls_secret_needs_certificate_and_key(secret: Any) -> Iterable[Violation]:
    """A Secret of type kubernetes.io/tls has a certificate and its private key."""
    if secret.get("type") == "kubernetes.io/tls":
        given = {**secret.get("data", {}), **secret.get("stringData", {})}
        for key in ("tls.crt", "tls.key"):
            if key not in given:
                yield Violation(f'.data["{key}"]', None)


_PORTS = (Place(ServiceSpec, "ports"),)

CORE_RULES: tuple[Rule, ...] = (
    Rule(
        service_port_names_must_be_unique,
        _PORTS,
        "another port has this name",
        "Give each port a name of its own.",
        kept=is_alone,
    ),
    Rule(service_ports_need_names, _PORTS, "of several ports each needs a name", "Add name.", kept=is_alone),
    Rule(
        service_ports_must_be_unique,
        _PORTS,
        "another port has this number and protocol",
        "Remove one of the two.",
        kept=is_alone,
    ),
    Rule(
        service_port_name_must_be_a_label,
        (Place(ServicePort),),
        "a port's name must be a DNS label",
        'Use up to 63 lower-case letters, digits and "-".',
    ),
    Rule(
        target_port_must_be_in_range,
        (Place(ServicePort),),
        "there is no such port",
        "Use a number from 1 to 65535, or the name of a container port.",
    ),
    Rule(service_needs_ports, (Place(Service, "spec"),), "a Service needs ports", "Add at least one port."),
    Rule(
        external_name_must_be_a_dns_name,
        (Place(Service, "spec"),),
        "a Service of type ExternalName needs a DNS name in externalName",
        'Write it like "backend.example.com"; for an IP address use an EndpointSlice.',
    ),
    Rule(
        endpoint_addresses_must_fit_address_type,
        (Place(EndpointSlice),),
        "this address is not of the slice's addressType",
        "Correct the address, or put it into a slice of its type.",
    ),
    Rule(
        endpoint_port_names_must_be_unique,
        (Place(EndpointSlice, "ports"),),
        "another port has this name",
        "Give each port the name it has in the Service.",
        kept=is_alone,
    ),
    Rule(
        data_must_be_base64,
        (Place(Secret, "data"), Place(ConfigMap, "binaryData")),
        "the value is not base64",
        "Encode it, or move it to stringData (Secret) or data (ConfigMap) as it is.",
    ),
    Rule(
        data_keys_must_be_file_names,
        tuple(
            Place(struct, field)
            for struct, field in (
                (Secret, "data"),
                (Secret, "stringData"),
                (ConfigMap, "data"),
                (ConfigMap, "binaryData"),
            )
        ),
        "this is not a valid key",
        'Use up to 253 letters, digits, "-", "_" and ".".',
    ),
    Rule(
        tls_secret_needs_certificate_and_key,
        (Place(Secret),),
        "a Secret of type kubernetes.io/tls needs tls.crt and tls.key",
        "Add the missing key, or use another type.",
    ),
)

OPEN_STRUCTS: frozenset[str] = frozenset(
    {
        "Node",
        "NodeSpec",
        "NodeStatus",
        "NodeCondition",
        "Taint",
        "Event",
        "EventSource",
        "Lease",
        "LeaseSpec",
        "NamespaceStatus",
        "ServiceStatus",
        "LoadBalancerIngress",
        "Endpoint",
        "EndpointHints",
    }
)
"""Structs that leave out fields nobody here reads: an unknown field says nothing about them."""

KNOWN_ELSEWHERE: dict[str, frozenset[str]] = {
    "ServiceSpec": frozenset({"sessionAffinityConfig", "trafficDistribution"}),
    "ObjectMeta": frozenset({"managedFields"}),
}
"""Fields that exist in Kubernetes although the struct leaves them out."""
