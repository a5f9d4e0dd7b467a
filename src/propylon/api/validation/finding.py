"""What validation has to say about one field of one object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Severity = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """One thing wrong, where it is, and what to do about it.

    `code` names the rule in snake case, `field` is a path like `spec.rules[0].backendRefs[1].port` ("" for the whole
    object), `found` shows the offending value shortly (never a Secret's). An error is refused by the API server; a
    warning is not.
    """

    severity: Severity
    code: str
    field: str
    found: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.field}: " if self.field else ""
        return f"{self.severity}: {place}{self.message}. {self.remedy}"


_SHOWN = 80


def shown(value: Any) -> str:
    """A value in few characters, for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    text = msgspec.json.encode(value).decode() if isinstance(value, str | list | tuple | Mapping) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def type_name(value: Any) -> str:
    """The type of a raw value, in YAML's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


_PLACEHOLDER = re.compile(
    r"\$\{[^}]*\}"  # ${NAME}
    r"|\$\([A-Za-z_]\w*\)"  # $(NAME)
    r"|\{\{.*?\}\}"  # {{ name }}
    r"|<-*[A-Za-z][^<>]*>"  # <NAME>, <--NAME-->
    r"|\byour[-._]?(?:domain|host|name|namespace|company)\b[\w.-]*"  # your.domain.tld
    r"|\bCHANGE[-_]?ME\b",
    re.IGNORECASE,
)


def placeholder_in(value: Any) -> str | None:
    """The part of a value that looks like a blank someone forgot to fill in; None if there is none."""
    if not isinstance(value, str):
        return None
    match = _PLACEHOLDER.search(value)
    return match.group() if match else None
