"""Responses framed by hand are the messages that protobuf reads."""

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from propylon.xds import CDS, ResourceName, version_of
from propylon.xds.messages import Response
from propylon.xds.wire import encode_response
from propylon.xds.world import World


@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 16_000, 16_384, 3_000_000])
def test_a_response_says_what_it_holds(size: int) -> None:
    bodies = {"a": b"x" * size, "b" * 300: b"y" * (size + 1)}
    world = World()
    changes: dict[ResourceName, bytes | None] = {(CDS, name): body for name, body in bodies.items()}
    world.update(changes)
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(
        encode_response(Response(CDS, "7", world.desired[CDS], ("gone", "too")))
    )
    assert (message.type_url, message.nonce, list(message.removed_resources)) == (CDS, "7", ["gone", "too"])
    assert [(r.name, r.version, r.resource.type_url, r.resource.value) for r in message.resources] == [
        (name, version_of(body), CDS, body) for name, body in bodies.items()
    ]
