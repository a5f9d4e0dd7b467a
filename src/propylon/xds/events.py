"""What the server tells about proxies. Delivered on the event loop, in the order things happened."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

ResourceName = tuple[str, str]
"""(type_url, name)"""


class Connected(msgspec.Struct, frozen=True):
    """A proxy opened a stream; `first` if its node had none."""

    node: str
    stream: int
    first: bool


class Disconnected(msgspec.Struct, frozen=True):
    """A stream ended; `last` if its node has none left."""

    node: str
    stream: int
    last: bool


class Acknowledged(msgspec.Struct, frozen=True):
    """The proxy runs these versions (None: it dropped the resource as asked).

    Also sent for what a reconnecting proxy had already, and with no names when a change turned out to concern nothing
    the proxy asks for. `all_settled`: no stream of the node has anything left to be sent or answered.
    """

    node: str
    stream: int
    versions: Mapping[ResourceName, str | None]
    all_settled: bool


class Rejected(msgspec.Struct, frozen=True):
    """The proxy refused this version and keeps what it had. `message` is Envoy's own.

    `name` is None only if the proxy refused a response that carried no resource.
    """

    node: str
    stream: int
    name: ResourceName | None
    version: str
    message: str
    all_settled: bool = False


Event = Connected | Disconnected | Acknowledged | Rejected
