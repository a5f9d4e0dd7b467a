"""Names and labels of what is made for a Gateway: short enough for Kubernetes, whatever the Gateway is called.

A Gateway's name may have 253 characters and dots, a Service's 63 and none (RFC 1035), a label's value 63. Whatever has
to be shortened or changed ends in a hash of what it stood for, so that two Gateways never share a name by that.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 63
CILIUM_CONTROLLER = "io.cilium/gateway-controller"
_HASH = 10
_HASH_LETTERS = str.maketrans("013ae", "ghkmt")
"""Kubernetes' own way to keep words out of hashes; Cilium's names end in these."""


def base_name(gateway: str, class_name: str, controller_name: str) -> str:
    """The name that all objects of a Gateway bear: `<gateway>-<class>` (GEP-1762), `cilium-gateway-<gateway>` for
    Cilium's class, whose users refer to the Service by that name.
    """
    if controller_name == CILIUM_CONTROLLER:
        return dns_label(f"cilium-gateway-{gateway}")
    return dns_label(f"{gateway}-{class_name}")


def dns_label(text: str, suffix: str = "") -> str:
    """A DNS label (RFC 1035) for a DNS name, with room for `suffix`, which is appended."""
    label = text.replace(".", "-")
    if not re.match("[a-z]", label):
        label = f"gw-{label}"
    room = LONGEST - len(suffix)
    if label == text and len(label) <= room:
        return label + suffix
    return f"{label[: room - _HASH - 1]}-{_hash(text)}{suffix}"


def label_value(text: str) -> str:
    """A label's value for a name: itself up to 63 characters."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - _HASH - 1]}-{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH].translate(_HASH_LETTERS)
