"""Request bodies: bytes of unknown friendliness into documents. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from propylon.server.errors import ApiError, bad_request, unsupported_media_type
from propylon.server.protobuf import CONTENT_TYPE, read_protobuf

LIMIT = 3 * 1024 * 1024
"""The largest body, as in Kubernetes."""
DEPTH = 128
"""How deep documents may be nested."""

_JSON = ("application/json", "application/json-patch+json", "application/merge-patch+json", "")
_YAML = ("application/yaml", "application/apply-patch+yaml", "text/yaml", "application/x-yaml")
_ACCEPTED = "application/json, application/yaml"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_body(raw: bytes, content_type: str) -> Any:
    """The JSON value in a body. Raises ApiError: 400 for what is none, 415 for other forms."""
    form = content_type.partition(";")[0].strip().lower()
    if form in _JSON or form.endswith("+json"):
        value = _json(raw)
    elif form in _YAML:
        value = _yaml(raw)
    elif form == CONTENT_TYPE:
        value = read_protobuf(raw)
    else:
        raise unsupported_media_type(_ACCEPTED)
    _check_depth(value)
    return value


def read_object(raw: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object in a body. Raises ApiError."""
    value = read_body(raw, content_type)
    if not isinstance(value, dict):
        raise bad_request("couldn't get version/kind; json parse error: the body is no object")
    return value


def _json(raw: bytes) -> Any:
    try:
        value = msgspec.json.decode(raw)
        msgspec.json.encode(value)  # numbers that fit nowhere
    except (ValueError, RecursionError, OverflowError, TypeError) as error:
        raise _unreadable(error) from error
    return value


def _yaml(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)  # what most clients send under this name
    except (ValueError, RecursionError):
        pass
    try:
        _check_events(raw)
        value = yaml.load(raw, Loader=_LOADER)
        return msgspec.json.decode(msgspec.json.encode(value))
    except (ValueError, RecursionError, OverflowError, TypeError, yaml.YAMLError) as error:
        raise _unreadable(error) from error


def _check_events(raw: bytes) -> None:
    """Refuse what must not reach the loader: libyaml's runs out of stack, and with it the process, on deep nesting;
    aliases make small texts large, and nobody needs them here."""
    depth = 0
    for event in yaml.parse(raw, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH:
            raise yaml.YAMLError(f"nested deeper than {DEPTH} levels")


def _unreadable(error: Exception) -> ApiError:
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
    return bad_request(f"the body of the request cannot be read: {text}")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [inner for inner in item.values() if isinstance(inner, dict | list)]
            elif isinstance(item, list):
                below += [inner for inner in item if isinstance(inner, dict | list)]
        if not below:
            return
        level = below
    raise bad_request(f"the body of the request is nested deeper than {DEPTH} levels")
