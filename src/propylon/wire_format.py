"""Protocol Buffers' wire format, as far as messages are put together from parts that are bytes already:
https://protobuf.dev/programming-guides/encoding/.
"""


def embed(field: int, body: bytes) -> bytes:
    """A serialized message (or text) as a field of another one, which is the sum of such parts."""
    return tag(field, len(body)) + body


def tag(field: int, size: int) -> bytes:
    """What precedes `size` bytes in a field of theirs: key and length."""
    if field < 16 and size < 1 << 14:  # as nearly always
        if size < 1 << 7:
            return bytes((field << 3 | 2, size))
        return bytes((field << 3 | 2, size & 0x7F | 0x80, size >> 7))
    return varint(field << 3 | 2) + varint(size)


def varint(number: int) -> bytes:
    """A number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
