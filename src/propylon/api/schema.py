"""How a struct says what the API server would refuse: constraints beside the types.

Decoding ignores every one of them (msgspec looks only at types), so reading a valid object costs nothing extra and an
object with, say, an unknown enum value still decodes: refusing it is validation's job.

Patterns are RE2, as in the CRDs. Lengths count Unicode code points, as JSON schema does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

Channel = Literal["experimental", "standard"]

_ACRONYMS = {
    "cluster_ip": "clusterIP",
    "cluster_ips": "clusterIPs",
    "external_ips": "externalIPs",
    "load_balancer_ip": "loadBalancerIP",
    "from_": "from",
    "well_known_ca_certificates": "wellKnownCACertificates",
    "pod_cidr": "podCIDR",
    "pod_cidrs": "podCIDRs",
    "provider_id": "providerID",
}


def json_name(attribute: str) -> str:
    """The JSON field name of a struct attribute: `parent_refs` -> `parentRefs`, `cluster_ip` -> `clusterIP`."""
    if attribute in _ACRONYMS:
        return _ACRONYMS[attribute]
    head, *tail = attribute.split("_")
    return head + "".join(word.capitalize() for word in tail)


class Model(msgspec.Struct, frozen=True, rename=json_name, gc=False):
    """The base of every struct: immutable, named as in JSON on the wire, unknown fields ignored when decoding.

    None is part of a cycle, so the collector of garbage need not look at any.
    """


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a value must satisfy, in JSON schema's words; several on one type add up, later ones win."""

    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    enum: tuple[str | int, ...] | None = None
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    list_type: Literal["map", "set", "atomic"] | None = None
    list_map_keys: tuple[str, ...] | None = None
    format: Literal["int32", "int64", "date-time", "time"] | None = None
    """Of JSON schema; "time" is what metadata has, which is stricter than "date-time"."""
    map_type: Literal["atomic"] | None = None
    says: str | None = None
    """The pattern in words, for people; nothing to check."""


@dataclass(frozen=True, slots=True)
class InExperimental:
    """A constraint that only the experimental channel's CRDs carry."""

    constraint: Constraint


@dataclass(frozen=True, slots=True)
class ExperimentalField:
    """Marks a field that the standard channel's CRDs do not have (they prune it)."""


@dataclass(frozen=True, slots=True)
class Required:
    """Marks a field that must be given although the struct has a value for its absence."""


@dataclass(frozen=True, slots=True)
class NotDefaulted:
    """Marks a field whose struct default stands for "absent" and is never written into a document."""


@dataclass(frozen=True, slots=True)
class Doc:
    """One line about a field, for people."""

    text: str


EXPERIMENTAL = ExperimentalField()
REQUIRED = Required()
NOT_DEFAULTED = NotDefaulted()


def atomic(max: int | None = None, min: int | None = None) -> Constraint:  # noqa: A002 - reads as the CRD does
    """A list replaced as a whole."""
    return Constraint(list_type="atomic", max_items=max, min_items=min)


def set_of(max: int | None = None) -> Constraint:  # noqa: A002
    """A list without repeated values."""
    return Constraint(list_type="set", max_items=max)


def keyed(*keys: str, max: int | None = None, min: int | None = None) -> Constraint:  # noqa: A002
    """A list whose items are told apart by these JSON fields."""
    return Constraint(list_type="map", list_map_keys=keys, max_items=max, min_items=min)


def one_of(*values: str | int) -> Constraint:
    """One of these values."""
    return Constraint(enum=values)


LABEL_PATTERN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN_PATTERN = rf"{LABEL_PATTERN}(\.{LABEL_PATTERN})*"
QUALIFIED_NAME_PATTERN = rf"({SUBDOMAIN_PATTERN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]"
"""A name of up to 63 characters, maybe after a DNS subdomain (of up to 253, which is not said here) and a slash."""
PATH_PATTERN = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"
_DOMAIN_PREFIXED_PATH = rf"{SUBDOMAIN_PATTERN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+"
LABEL_VALUE_PATTERN = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"

_DNS_NAME = 'must be a DNS name in lower case, like "www.example.com"'
_KIND = 'must be a kind, like "Service"'

Group = Annotated[str, Constraint(pattern=f"^$|^{SUBDOMAIN_PATTERN}$", max_length=253, says='must be "" or a DNS name')]
Kind = Annotated[
    str, Constraint(pattern="^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", min_length=1, max_length=63, says=_KIND)
]
ObjectName = Annotated[str, Constraint(min_length=1, max_length=253)]
NamespaceName = Annotated[
    str,
    Constraint(
        pattern=f"^{LABEL_PATTERN}$",
        min_length=1,
        max_length=63,
        says='must have lower-case letters, digits and "-" only',
    ),
]
SectionName = Annotated[
    str,
    Constraint(
        pattern=f"^{SUBDOMAIN_PATTERN}$",
        min_length=1,
        max_length=253,
        says='must have lower-case letters, digits, "-" and "." only',
    ),
]
Hostname = Annotated[
    str,
    Constraint(
        pattern=rf"^(\*\.)?{SUBDOMAIN_PATTERN}$",
        min_length=1,
        max_length=253,
        says='must be a DNS name in lower case, like "www.example.com" or "*.example.com"',
    ),
]
PreciseHostname = Annotated[
    str, Constraint(pattern=f"^{SUBDOMAIN_PATTERN}$", min_length=1, max_length=253, says=_DNS_NAME)
]
PortNumber = Annotated[int, Constraint(minimum=1, maximum=65535, format="int32")]
GatewayController = Annotated[
    str,
    Constraint(
        pattern=f"^{_DOMAIN_PREFIXED_PATH}$", min_length=1, max_length=253, says='must be like "example.com/controller"'
    ),
]
HeaderName = Annotated[
    str,
    Constraint(
        pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$", min_length=1, max_length=256, says="must be a header name"
    ),
]
HEADER_VALUE = Constraint(pattern=r"^[!-~]+([\t ]?[!-~]+)*$", says="must be printable ASCII without spaces at its ends")
Duration = Annotated[
    str, Constraint(pattern="^([0-9]{1,5}(h|m|s|ms)){1,4}$", says='must be a duration, like "10s" or "1m30s"')
]
AbsoluteURI = Annotated[
    str, Constraint(pattern=r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?", min_length=1, max_length=253)
]
ProtocolType = Annotated[
    str,
    Constraint(
        pattern=rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{SUBDOMAIN_PATTERN}\/[A-Za-z0-9]+$",
        min_length=1,
        max_length=255,
    ),
]
AddressType = Annotated[
    str,
    Constraint(pattern=f"^Hostname|IPAddress|NamedAddress|{_DOMAIN_PREFIXED_PATH}$", min_length=1, max_length=253),
]
LabelValue = Annotated[str, Constraint(pattern=f"^{LABEL_VALUE_PATTERN}$", min_length=0, max_length=63)]
AnnotationValue = Annotated[str, Constraint(min_length=0, max_length=4096)]
Count = Annotated[int, Constraint(format="int32")]
