"""Lists: selected, in pages, at a resourceVersion."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from propylon.server import errors
from propylon.server.objects import Document, Shape, Target
from propylon.server.selectors import Matcher, both, parse_field_selector, parse_label_selector
from propylon.store import LocalStore

_decode: Callable[[bytes], Document] = msgspec.json.Decoder(dict[str, Any]).decode


class Query(msgspec.Struct, frozen=True):
    """What a list or watch request asks for."""

    selector: Matcher | None = None
    limit: int = 0
    token: str = ""
    resource_version: str = ""
    match: str = ""


class Page(msgspec.Struct, frozen=True):
    """One page of a list; `raw` holds the objects as they are shown, as JSON."""

    metadata: dict[str, Any]
    raw: list[bytes]

    @property
    def items(self) -> list[Document]:
        """The objects, decoded anew at each call."""
        return [_decode(raw) for raw in self.raw]


def query_of(parameters: Mapping[str, str], target: Target) -> Query:
    """Read the parameters of a request. Raises ApiError (400)."""
    kind = (target.resource.group, target.resource.kind)
    labels = parse_label_selector(parameters.get("labelSelector", ""))
    fields = parse_field_selector(parameters.get("fieldSelector", ""), kind)
    return Query(
        both(labels, fields),
        whole_number(parameters, "limit"),
        parameters.get("continue", ""),
        parameters.get("resourceVersion", ""),
        parameters.get("resourceVersionMatch", ""),
    )


def whole_number(parameters: Mapping[str, str], name: str) -> int:
    """A parameter that is a number from 0 on; 0 if it is not given. Raises ApiError (400)."""
    text = parameters.get(name, "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})')
    return int(text)


def list_page(store: LocalStore, target: Target, query: Query) -> Page:
    """The objects of a resource that the query selects, in the order of namespace and name. Raises ApiError."""
    kind = target.resource.group_kind
    namespace = target.resource.stored_namespace(target.namespace) or None
    begun, after = _read_token(query.token) if query.token else (0, ("", ""))
    left = 0
    if query.limit and query.selector is None:
        listing, left = store.page(kind, namespace, after, query.limit)
    else:
        listing = store.list([kind], namespace)
    version = begun if query.token else listing.resource_version
    if query.token:
        if version > listing.resource_version:
            raise errors.expired("The provided continue parameter is too old to display a consistent list result.")
        store.changes_since(version, [kind])  # raises Gone where a watch could not follow
    elif query.resource_version not in ("", "0"):
        _check_version(query, listing.resource_version)
    shape = Shape(target)
    items: list[bytes] = []
    last = after
    for ref, raw in zip(listing.refs, listing.raw, strict=True):
        if query.token and (ref.namespace, ref.name) <= after:
            continue
        shown = shape.shown(raw)
        if query.selector is not None and not query.selector(_decode(shown)):
            continue
        if query.limit and len(items) >= query.limit:
            left += 1
            continue
        items.append(shown)
        last = (ref.namespace, ref.name)
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if left:
        metadata["continue"] = _write_token(version, *last)
        if query.selector is None:
            metadata["remainingItemCount"] = left
    return Page(metadata, items)


def version_of(text: str) -> int:
    """A resourceVersion that a client sent. Raises ApiError (400) if it is no unsigned number of 64 bits."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise errors.bad_request(f"invalid resourceVersion {text!r}")
    return int(text)


def _check_version(query: Query, newest: int) -> None:
    wanted = version_of(query.resource_version)
    if wanted > newest:
        details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
        message = f"Too large resource version: {wanted}, current: {newest}"
        raise errors.ApiError(504, "Timeout", message, {**details, "retryAfterSeconds": 1}, retry_after=1)
    if query.match == "Exact" and wanted != newest:
        raise errors.expired(f"the resourceVersion {wanted} for the provided list is too old")


def _write_token(version: int, namespace: str, name: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([version, namespace, name])).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, namespace, name = msgspec.json.decode(raw, type=tuple[int, str, str])
    except (ValueError, msgspec.MsgspecError) as error:
        raise errors.bad_request("continue key is not valid") from error
    return version, (namespace, name)
