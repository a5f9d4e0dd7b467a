"""Clusters that Envoy asks for when the first request for them comes (its on_demand filter; on-demand CDS).

These are the HTTP/2 twins of backends, for gRPC calls to what names no protocol (see `graph.grpc_calls`): there is one
for nearly every backend, and nearly none is ever called. The request waits until the cluster is there, a roundtrip to
the control plane; a cluster that is there already costs it nothing but a look.
"""

from functools import cache
from typing import Any

from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb

from propylon.envoy import names
from propylon.envoy.resource import ads, pack, seconds

_TIMEOUT = 30.0
"""Seconds that a request waits for its cluster: longer than a control plane takes to be started again, and than the 15
after which Envoy gives up to warm another cluster, before which it asks for none."""


def build_filter() -> Any:
    """The HttpFilter: does nothing on routes that do not ask for it."""
    return hcm_pb.HttpFilter(name=names.ON_DEMAND, typed_config=pack(on_demand_pb2.OnDemand()))


def configure_route(route: Any) -> None:
    """Have the clusters of this route asked for if they are not there."""
    route.typed_per_filter_config[names.ON_DEMAND].CopyFrom(_per_route())


@cache
def _per_route() -> Any:
    odcds = on_demand_pb2.OnDemandCds(source=ads(), timeout=seconds(_TIMEOUT))
    return pack(on_demand_pb2.PerRouteConfig(odcds=odcds))
