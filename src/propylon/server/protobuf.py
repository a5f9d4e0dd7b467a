"""Reading request bodies in Kubernetes' protobuf form, which typed Go clients send for Kubernetes' own kinds. Pure.

A body is the magic `k8s\\0` and a `runtime.Unknown` that holds the apiVersion, the kind and the encoded object. Which
field number means what stands in `protobuf_fields.json`, made from the struct tags of k8s.io/api. Answers are JSON
always: every client that sends protobuf also accepts that.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from propylon.server.errors import ApiError, bad_request

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
_PACKAGES = {
    "v1": "core.v1",
    "rbac.authorization.k8s.io/v1": "rbac.v1",
    "networking.k8s.io/v1": "networking.v1",
    "discovery.k8s.io/v1": "discovery.v1",
    "coordination.k8s.io/v1": "coordination.v1",
    "certificates.k8s.io/v1beta1": "certificates.v1beta1",
    "certificates.k8s.io/v1alpha1": "certificates.v1alpha1",
    "scheduling.k8s.io/v1": "scheduling.v1",
    "storage.k8s.io/v1": "storage.v1",
    "authentication.k8s.io/v1": "authentication.v1",
    "authorization.k8s.io/v1": "authorization.v1",
    "apps/v1": "apps.v1",
    "batch/v1": "batch.v1",
    "autoscaling/v1": "autoscaling.v1",
    "autoscaling/v2": "autoscaling.v2",
    "policy/v1": "policy.v1",
}
_MAX_DEPTH = 64

Fields = dict[int, tuple[str, str, bool]]


@cache
def _messages() -> dict[str, Fields]:
    """By message and field number: the JSON name, the kind of value, and whether a zero value is kept."""
    text = files("propylon.server").joinpath("protobuf_fields.json").read_text(encoding="utf-8")
    return {
        name: {number: (json_name, kind, bool(keep)) for number, json_name, kind, keep in fields}
        for name, fields in json.loads(text).items()
    }


def read_protobuf(raw: bytes) -> dict[str, Any]:
    """The object in a body. Raises ApiError: 400 for what is no such body, 415 for kinds that are not known."""
    if not raw.startswith(MAGIC):
        raise bad_request("the body of the request is not in Kubernetes' protobuf form")
    try:
        api_version, kind, inner = _envelope(raw[len(MAGIC) :])
        package = "meta.v1" if kind == "DeleteOptions" else _PACKAGES.get(api_version, "")
        name = f"{package}.{kind}"
        if name not in _messages():
            raise ApiError(
                415, "UnsupportedMediaType", f"{kind} of {api_version!r} cannot be read as protobuf: send JSON"
            )
        return {"apiVersion": api_version, "kind": kind, **_message(name, inner, 0)}
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        raise bad_request(f"the body of the request cannot be read as protobuf: {error}") from error


def _envelope(raw: bytes) -> tuple[str, str, bytes]:
    api_version = kind = ""
    inner = b""
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            texts = {below: text.decode() for below, text in _fields(value) if isinstance(text, bytes)}
            api_version, kind = texts.get(1, ""), texts.get(2, "")
        elif number == 2 and isinstance(value, bytes):
            inner = value
    return api_version, kind, inner


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes | float]]:
    """The fields of a message. Raises ValueError, IndexError."""
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(raw, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(raw, position)
            if size > len(raw) - position:
                raise ValueError("a field is longer than its message")
            yield number, raw[position : position + size]
            position += size
        elif wire == 1:
            yield number, struct.unpack_from("<d", raw, position)[0]
            position += 8
        elif wire == 5:
            yield number, struct.unpack_from("<f", raw, position)[0]
            position += 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _message(name: str, raw: bytes, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    known = _messages()[name]
    found: dict[str, Any] = {}
    for number, value in _fields(raw):
        if number not in known:
            continue
        json_name, kind, keep = known[number]
        if kind.startswith("[]"):
            found.setdefault(json_name, []).append(_value(kind[2:], value, depth))
        elif kind.startswith("{}"):
            key, entry = _entry(kind[2:], value, depth)
            found.setdefault(json_name, {})[key] = entry
        elif json_name == "":  # an embedded struct: its fields are ours
            found.update(_message(kind, _bytes(value), depth + 1))
        elif kind != "skip":
            read = _value(kind, value, depth)
            if read in ("", None, {}) or (not keep and read in (0, False)):
                continue
            found[json_name] = read
    return found


def _entry(kind: str, raw: Any, depth: int) -> tuple[str, Any]:
    """An entry of a map: the key is field 1, the value field 2."""
    key = ""
    value: Any = {"s": "", "bytes": ""}.get(kind)
    for number, item in _fields(_bytes(raw)):
        if number == 1:
            key = _bytes(item).decode()
        elif number == 2:
            value = _value(kind, item, depth)
    return key, value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a message was expected")
    return value


def _value(kind: str, value: Any, depth: int) -> Any:
    match kind:
        case "s":
            return _bytes(value).decode()
        case "b":
            return bool(value)
        case "i":
            if not isinstance(value, int):
                raise ValueError("a number was expected")
            return value - (1 << 64) if value >= 1 << 63 else value
        case "d":
            return float(value)
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "time":
            return _time(_bytes(value))
        case "raw":
            inner = dict(_fields(_bytes(value))).get(1, b"")
            return json.loads(_bytes(inner)) if inner else None
        case "quantity":
            return _bytes(dict(_fields(_bytes(value))).get(1, b"")).decode()
        case "intstr":
            parts = dict(_fields(_bytes(value)))
            if parts.get(1):
                return _bytes(parts.get(3, b"")).decode()
            return _value("i", parts.get(2, 0), depth)
        case "skip":
            return None
    return _message(kind, _bytes(value), depth + 1)


def _time(raw: bytes) -> str | None:
    parts = dict(_fields(raw))
    seconds, nanos = _value("i", parts.get(1, 0), 0), _value("i", parts.get(2, 0), 0)
    if seconds == 0 and nanos == 0:
        return None
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06d}Z" if nanos else f"{text}Z"


__all__ = ["CONTENT_TYPE", "read_protobuf"]
