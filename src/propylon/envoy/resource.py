"""Envoy resources as bytes, and the small helpers every module packs messages with."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, duration_pb2

from propylon import api

TYPE_PREFIX = "type.googleapis.com/"
LISTENER = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTE_CONFIGURATION = TYPE_PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
EXTENSION = TYPE_PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
FILTER_CHAIN = TYPE_PREFIX + "envoy.config.listener.v3.FilterChain"
CLUSTER = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
CLUSTER_LOAD_ASSIGNMENT = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"


class Resource(msgspec.Struct, frozen=True):
    """One xDS resource of one Gateway's proxies."""

    type_url: str
    name: str
    body: bytes
    """The serialized message."""
    origins: tuple[api.ObjectRef, ...] = ()
    """The objects that caused it, so that a rejection can be told to their owners."""
    inside: int = 0
    """Of a Listener with a matcher: the bytes of `body` before it. While they stay the same, listeners whose chains are
    discovered come and go without the others noticing."""

    def __repr__(self) -> str:
        return f"Resource({self.type_url.rpartition('.')[2]} {self.name!r}, {len(self.body)} bytes)"


def serialize(message: Any) -> bytes:
    """Bytes of a message, equal for equal messages."""
    body: bytes = message.SerializeToString(deterministic=True)
    return body


def pack(message: Any) -> any_pb2.Any:
    """A message as an Any."""
    return any_pb2.Any(type_url=TYPE_PREFIX + message.DESCRIPTOR.full_name, value=serialize(message))


def seconds(value: float) -> duration_pb2.Duration:
    """A duration of so many seconds, exact to the nanosecond."""
    nanoseconds = round(value * 1_000_000_000)
    return duration_pb2.Duration(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)


@cache
def ads(patience: float = 0) -> Any:
    """The source of every dynamic resource; always the same message: copy, do not change.

    What needs the resource waits for it `patience` seconds; 0 is without end, so that half a configuration is never
    served.
    """
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
        initial_fetch_timeout=seconds(patience),
    )


def unique(origins: Iterable[api.ObjectRef]) -> tuple[api.ObjectRef, ...]:
    """The same origins, each once, in order of first appearance."""
    return tuple(dict.fromkeys(origins))
