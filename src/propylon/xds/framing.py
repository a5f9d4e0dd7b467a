"""Protobuf's wire format, as far as responses need it: https://protobuf.dev/programming-guides/encoding/.

Field numbers: envoy/service/discovery/v3/discovery.proto.
"""

from functools import cache


def resource_head(type_url: str, name: str, version: str, size: int) -> bytes:
    """What stands before the body (`size` bytes) of a resource in a DeltaDiscoveryResponse.

    It is the same for every proxy that is sent the resource.
    """
    any_head = type_field(1, type_url) + tag(2, size)
    head = field(3, name.encode()) + field(1, version.encode())
    any_size = len(any_head) + size
    any_tag = tag(2, any_size)
    return b"".join((tag(2, len(head) + len(any_tag) + any_size), head, any_tag, any_head))


@cache
def type_field(number: int, type_url: str) -> bytes:
    """Return a field that holds a type URL, of which there are a dozen."""
    return field(number, type_url.encode())


def field(number: int, value: bytes) -> bytes:
    """Return a length-delimited field."""
    size = len(value)
    if size <= 0x7F:
        return bytes((number << 3 | 2, size)) + value
    return tag(number, size) + value


def tag(number: int, size: int) -> bytes:
    """Return what precedes `size` bytes of a length-delimited field: key and length as varints."""
    if size <= 0x7F:
        return bytes((number << 3 | 2, size))
    head = bytearray((number << 3 | 2,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
