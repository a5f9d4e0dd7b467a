"""Parts of responses as bytes. Field numbers: envoy/service/discovery/v3/discovery.proto."""

from functools import cache

from propylon.wire_format import embed, tag


def resource_head(type_url: str, name: str, version: str, size: int) -> bytes:
    """What stands before the body (`size` bytes) of a resource in a DeltaDiscoveryResponse.

    It is the same for every proxy that is sent the resource.
    """
    any_head = type_field(1, type_url) + tag(2, size)
    head = embed(3, name.encode()) + embed(1, version.encode())
    any_size = len(any_head) + size
    any_tag = tag(2, any_size)
    return b"".join((tag(2, len(head) + len(any_tag) + any_size), head, any_tag, any_head))


@cache
def type_field(number: int, type_url: str) -> bytes:
    """Return a field that holds a type URL, of which there are a dozen."""
    return embed(number, type_url.encode())
