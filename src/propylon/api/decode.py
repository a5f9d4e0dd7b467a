"""From bytes or raw documents to structs of the newest version."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from propylon.api.kinds import KindInfo, by_kind
from propylon.api.meta import LAST_APPLIED_ANNOTATION, Object, group_of
from propylon.api.versions import to_newest


class DecodeError(ValueError):
    """A document cannot be read as its kind; `field` is the offending path ("spec.rules[0].matches"), "" if unknown."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field


class _Header(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str = ""
    kind: str = ""


_header_decoder = msgspec.json.Decoder(_Header)


@cache
def _decoder(type_: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


class _Reading(NamedTuple):
    """How documents are read that begin alike."""

    api_version: str
    kind: str
    newest: str
    """The apiVersion that the struct is given."""
    decode: Callable[[bytes], Any]


_BEGINNING = re.compile(rb'\{"apiVersion":"([\w./-]+)","kind":"(\w+)",')
"""As stores write documents: who reads tens of thousands need not look at each twice."""


@lru_cache(1024)
def _reading(beginning: bytes) -> _Reading | None:
    match = _BEGINNING.match(beginning)
    if match is None:
        return None
    api_version, kind = match[1].decode(), match[2].decode()
    info = by_kind(group_of(api_version), kind)
    if info is None:
        return None
    decoder = _decoder(info.schema(api_version.rpartition("/")[2]))
    return _Reading(api_version, kind, sys.intern(info.api_version), decoder.decode)


def _decoded_by_beginning(document: bytes) -> Any:
    """Decode by what the document says of itself first; None if it cannot be read so, or says otherwise later."""
    match = _BEGINNING.match(document)
    reading = None if match is None else _reading(match[0])
    if reading is None:
        return None
    try:
        obj = reading.decode(document)
    except msgspec.DecodeError:
        return None
    if obj.kind != reading.kind or obj.api_version != reading.api_version:
        return None
    return _view(reading.newest, reading.kind, to_newest(obj))


def decode(document: Mapping[str, Any] | bytes) -> Any:
    """The typed object of an interpreted kind, in the newest version whatever version came in.

    Only types are checked: unknown fields are ignored, values that validation would refuse are kept, null counts as
    absent. `managedFields` and the last-applied annotation are left out. Raises `DecodeError`, also for kinds that are
    not interpreted.
    """
    if isinstance(document, bytes):
        if (obj := _decoded_by_beginning(document)) is not None:
            return obj
        try:
            header = _header_decoder.decode(document)
        except msgspec.DecodeError as error:
            raise DecodeError(str(error)) from None
        api_version, kind = header.api_version, header.kind
    else:
        api_version, kind = str(document.get("apiVersion", "")), str(document.get("kind", ""))
    info = by_kind(group_of(api_version), kind)
    if info is None:
        raise DecodeError(f"kind {kind!r} of {api_version!r} is not interpreted", "kind" if kind else "")
    return decode_as(info, document, api_version.rpartition("/")[2])


def decode_as(info: KindInfo, document: Mapping[str, Any] | bytes, version: str | None = None) -> Any:
    """Like `decode`, for a kind known beforehand (a list's items carry no kind). `version` defaults to the newest."""
    schema = info.schema(version or info.version)
    try:
        obj = _decoder(schema).decode(document) if isinstance(document, bytes) else msgspec.convert(document, schema)
    except msgspec.DecodeError as error:
        obj = _decode_leniently(schema, document, error)
    return _view(sys.intern(info.api_version), info.kind, to_newest(obj))


def _decode_leniently(schema: type, document: Mapping[str, Any] | bytes, error: msgspec.DecodeError) -> Any:
    # Clients write "endpoints: null" or "creationTimestamp: null" and mean absence, as the API server does; this is
    # rare enough to be worth a second attempt rather than optional types everywhere.
    try:
        raw = msgspec.json.decode(document) if isinstance(document, bytes) else document
        return msgspec.convert(_whole_numbers(without_nulls(raw)), schema)
    except msgspec.DecodeError as second:
        raise _decode_error(second) from error


def without_nulls(value: Any) -> Any:
    """A copy without object fields that are null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def _whole_numbers(value: Any) -> Any:
    # JSON has one kind of number: 80.0 is an integer to the API server's validation.
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_ERROR = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


def _decode_error(error: msgspec.DecodeError) -> DecodeError:
    match = _ERROR.match(str(error))
    message, path = (match["message"], match["path"] or "") if match else (str(error), "")
    return DecodeError(message.replace("`", "'"), path.removeprefix("$").removeprefix("."))


def _view(api_version: str, kind: str, obj: Any) -> Any:
    # The object was just built and nobody else has it: giving it its lasting form in place is safe and saves copies.
    metadata = obj.metadata
    if metadata.annotations:
        metadata.annotations.pop(LAST_APPLIED_ANNOTATION, None)
    if metadata.namespace:
        force_setattr(metadata, "namespace", sys.intern(metadata.namespace))
    force_setattr(metadata, "name", sys.intern(metadata.name))
    force_setattr(obj, "kind", kind)
    force_setattr(obj, "api_version", api_version)
    return obj


def view(document: Mapping[str, Any]) -> dict[str, Any]:
    """The raw document as the controller keeps it: without `managedFields` and the last-applied annotation."""
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        return dict(document)
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    annotations = kept.get("annotations")
    if isinstance(annotations, Mapping) and LAST_APPLIED_ANNOTATION in annotations:
        kept["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED_ANNOTATION}
    return {**document, "metadata": kept}


__all__ = ["DecodeError", "Object", "decode", "decode_as", "view", "without_nulls"]
