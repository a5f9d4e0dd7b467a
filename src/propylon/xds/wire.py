"""Delta discovery messages to and from bytes.

Requests are parsed with the generated messages. Responses are framed by hand: a resource is bytes already, and going
through a message would copy every one of them twice. Field numbers: envoy/service/discovery/v3/discovery.proto.
"""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

from propylon.wire_format import embed
from propylon.xds.framing import type_field
from propylon.xds.messages import Request, Response


def decode_request(body: bytes) -> tuple[str, Request]:
    """Return (node id, request); the id is empty where the client left it out, as it may after the first request.

    Raises google.protobuf.message.DecodeError if the bytes are no DeltaDiscoveryRequest.
    """
    message = discovery_pb2.DeltaDiscoveryRequest.FromString(body)
    error = None
    if message.HasField("error_detail"):
        error = message.error_detail.message or f"status code {message.error_detail.code}"
    return message.node.id, Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(versions) if (versions := message.initial_resource_versions) else {},
        nonce=message.response_nonce,
        error=error,
    )


def encode_response(response: Response) -> bytes:
    """Return the DeltaDiscoveryResponse as bytes."""
    parts: list[bytes] = []
    for resource in response.resources.values():
        parts += (resource.head, resource.body)
    parts += (type_field(4, response.type_url), embed(5, response.nonce.encode()))
    if response.removed:
        parts += [embed(6, name.encode()) for name in response.removed]
    return b"".join(parts)
