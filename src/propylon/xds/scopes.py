"""What Envoy does with the scopes of a response that it refuses."""

from __future__ import annotations

from uuid import uuid4

from envoy.config.route.v3 import scoped_route_pb2

from propylon.xds.world import Resource


def distinguished(resource: Resource) -> Resource:
    """Return a scope that says the same and is not equal to any that was sent before; its version stays.

    Envoy 1.40 takes the scopes of a response one after the other. If it refuses one, it has noted those before it, but
    does not serve them. Sent again as they were, they are acknowledged as known, and still not served. So what was in a
    refused response is sent again with metadata that nobody looks at.
    """
    mark = scoped_route_pb2.ScopedRouteConfiguration()
    mark.route_configuration.metadata.filter_metadata[f"propylon/{uuid4().hex}"].SetInParent()
    # Messages one after the other are read as one (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    return resource.with_body(resource.body + mark.SerializeToString())
