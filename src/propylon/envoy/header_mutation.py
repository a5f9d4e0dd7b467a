"""Headers set, added and removed (HTTPHeaderFilter), in the form routes and weighted clusters take."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from envoy.config.core.v3 import base_pb2

from propylon import api
from propylon.graph.model import Filter, RequestHeaders, ResponseHeaders

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def apply_header_filters(target: Any, filters: Iterable[Filter]) -> None:
    """Write the header modifiers among `filters` to a Route or ClusterWeight message, in their order."""
    for each in filters:
        if isinstance(each, RequestHeaders):
            apply_change(target, each.change, "request")
        elif isinstance(each, ResponseHeaders):
            apply_change(target, each.change, "response")


def apply_change(target: Any, change: api.HTTPHeaderFilter, direction: Literal["request", "response"]) -> None:
    """Write one change, save what `changeable` and `sendable` refuse: one bad header must not cost a whole table."""
    to_add = getattr(target, f"{direction}_headers_to_add")
    to_remove = getattr(target, f"{direction}_headers_to_remove")
    removed = {name.lower() for name in change.remove if changeable(name)}
    if removed:
        # Envoy removes before it adds: what an earlier filter added has to go here.
        kept = [each for each in to_add if each.header.key not in removed]
        del to_add[:]
        to_add.extend(kept)
        to_remove.extend(sorted(removed - set(to_remove)))
    for headers, option in ((change.set, set_header), (change.add, add_header)):
        to_add.extend(option(h.name, literal(h.value)) for h in headers if changeable(h.name) and sendable(h.value))


def changeable(name: str) -> bool:
    """Whether a route may touch this header: not Host (URLRewrite changes that), and not what is no name (RFC 9110
    5.1); Envoy refuses both."""
    return name.lower() != "host" and _TOKEN.fullmatch(name) is not None


def sendable(value: str) -> bool:
    """Whether a value can stand in a header at all: without line breaks and NUL (RFC 9110 5.5)."""
    return not any(each in value for each in "\r\n\0")


def set_header(name: str, value: str) -> Any:
    """A header that overwrites what is there. `value` is one of Envoy's format strings."""
    return _option(name, value, base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)


def add_header(name: str, value: str) -> Any:
    """A header that is appended to what is there. `value` is one of Envoy's format strings."""
    return _option(name, value, base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD)


def literal(value: str) -> str:
    """A value as a format string that yields just that value."""
    return value.replace("%", "%%")


def _option(name: str, value: str, action: Any) -> Any:
    header = base_pb2.HeaderValue(key=name.lower(), value=value)
    return base_pb2.HeaderValueOption(header=header, append_action=action, keep_empty_value=not value)
