"""What `propylon check` finds: one shape for every rule."""

import hashlib
import re
from typing import Literal

import msgspec

Severity = Literal["error", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "notice")
PAGE = "docs/reference/check.md"

CODES: dict[str, str] = {
    "rule_unreachable": "every request that the rule takes is taken by rules before it",
    "match_unreachable": "one match of a rule is never reached, others are",
    "redirect_loop": "a redirect leads to itself",
    "no_fall_through": "requests that a host's own rules leave over do not go to routes of wider hostnames",
    "place_taken": "a TLSRoute, TCPRoute or UDPRoute serves nothing, since another one has its port or hostname",
    "weights_zero": "all backends of a rule have weight 0: it answers 500",
    "route_without_gateway": "a route names no Gateway of an adopted class: it serves nothing",
    "certificate_expired": "a listener's certificate is past its end, or not valid yet",
    "certificate_expires_soon": "a listener's certificate ends within 14 days",
    "certificate_hostname": "a listener's certificate does not name a host that the listener serves",
    "version_deprecated": "an apiVersion that newer Gateway API releases will drop",
    "field_deprecated": "a field or annotation that is still read, and that has become another one",
    "certificate_of_issuer": "a Secret that is in no manifest, and that cert-manager makes",
    "role_of_wrong_group": "a role names resources of the Gateway API in an API group that has none of them",
    "annotation_misplaced": "an annotation on a Gateway that is meant for what the Gateway makes: spec.infrastructure",
    "ignore_without_reason": "an ignore comment without a reason",
    "ignore_unused": "an ignore comment where nothing is found",
}
"""Rules of this package. Others are named after validation rules (`api.validation`), problems of files (`store.files`)
and reasons of conditions in snake case (`RefNotPermitted`: `ref_not_permitted`)."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing wrong or doubtful, at the place where it can be mended."""

    file: str
    line: int
    """From 1; 0 where there is none to name."""
    column: int
    severity: Severity
    code: str
    object: str
    """`HTTPRoute shop/cart`, or "" if the text never became an object."""
    field: str
    message: str
    remedy: str = ""

    @property
    def fingerprint(self) -> str:
        """What it is, wherever it stands: lines may move without making it new."""
        text = "\0".join((self.code, self.object, self.field, self.message))
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    @property
    def page(self) -> str:
        """Where the documentation speaks of it."""
        return f"{PAGE}#{self.code}" if self.code in CODES else PAGE


def code_of(reason: str) -> str:
    """The reason of a condition as a code: `RefNotPermitted` is `ref_not_permitted`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", reason).lower()
