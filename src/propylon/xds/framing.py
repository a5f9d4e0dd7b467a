"""Parts of responses as bytes. Field numbers: envoy/service/discovery/v3/discovery.proto."""

from functools import cache

from propylon.wire_format import Tag, embed

_RESOURCES, _BODY = Tag(2), Tag(2)
_NAME, _VERSION = Tag(3), Tag(1)
"""Of DeltaDiscoveryResponse and of Resource; a body's value in Any has the same number as a body."""


def resource_head(type_url: str, name: str, version: str, size: int) -> bytes:
    """What stands before the body (`size` bytes) of a resource in a DeltaDiscoveryResponse.

    It is the same for every proxy that is sent the resource.
    """
    kind, value_tag = type_field(1, type_url), _BODY[size]
    any_tag = _BODY[len(kind) + len(value_tag) + size]
    text, number = name.encode(), version.encode()
    head = b"".join((_NAME[len(text)], text, _VERSION[len(number)], number, any_tag, kind, value_tag))
    return _RESOURCES[len(head) + size] + head


@cache
def type_field(number: int, type_url: str) -> bytes:
    """Return a field that holds a type URL, of which there are a dozen."""
    return embed(number, type_url.encode())
