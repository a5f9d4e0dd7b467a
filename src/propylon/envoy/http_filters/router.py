"""The router: the last filter, which forwards."""

from typing import Any

from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb

from propylon.envoy import names
from propylon.envoy.resource import pack
from propylon.envoy.settings import EnvoySettings


def build_filter(settings: EnvoySettings) -> Any:
    """The HttpFilter. Envoy's own x-envoy-* headers stay off the wire in both directions."""
    router = router_pb2.Router(suppress_envoy_headers=True)
    if not settings.backend_statistics:
        router.dynamic_stats.value = False
    return hcm_pb.HttpFilter(name=names.ROUTER, typed_config=pack(router))
