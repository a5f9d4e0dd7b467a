"""What a cluster waits for."""

from __future__ import annotations

from functools import lru_cache

from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf.message import DecodeError


@lru_cache(maxsize=1024)
def endpoints_of(_name: str, cluster: bytes) -> str:
    """Return the EDS resource name a serialized cluster waits for; of other clusters, a name nobody subscribes to."""
    try:
        message = cluster_pb2.Cluster.FromString(cluster)
    except DecodeError:
        return ""
    if message.type != cluster_pb2.Cluster.EDS:
        return ""
    return str(message.eds_cluster_config.service_name or message.name)
