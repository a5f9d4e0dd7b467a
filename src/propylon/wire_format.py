"""Protocol Buffers' wire format, as far as messages are put together from parts that are bytes already:
https://protobuf.dev/programming-guides/encoding/.
"""

_REMEMBERED = 1 << 14
"""Sizes below have two bytes at most, and come again and again."""


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


class Tag(dict[int, bytes]):
    """`tag` of a field that is written tens of thousands of times: `Tag(3)[size]`, with no call for sizes seen before.

    With several fields each is all there is in the one before: `Tag(2, 1)` precedes what is in field 1 of a message in
    field 2.
    """

    __slots__ = ("fields",)

    def __init__(self, *fields: int) -> None:
        super().__init__()
        self.fields = fields

    def __missing__(self, size: int) -> bytes:
        made = b""
        for field in reversed(self.fields):
            made = tag(field, size + len(made)) + made
        if size < _REMEMBERED:
            self[size] = made
        return made
