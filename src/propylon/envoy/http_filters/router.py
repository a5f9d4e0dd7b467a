"""The router: the last filter, which forwards."""

from typing import Any

from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb

from propylon.envoy import names
from propylon.envoy.resource import pack


def build_filter() -> Any:
    """The HttpFilter. Envoy's own x-envoy-* headers stay off the wire in both directions."""
    return hcm_pb.HttpFilter(name=names.ROUTER, typed_config=pack(router_pb2.Router(suppress_envoy_headers=True)))
