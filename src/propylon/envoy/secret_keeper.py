"""Secret keepers: Clusters without endpoints, which have Envoy fetch the Secrets of discovered filter chains.

Envoy 1.40 never asks for a Secret that only discovered chains refer to, unless they were there when it started: such a
chain would turn every connection away. What fetches a Secret is a Cluster or Listener that refers to it, and then it is
everybody's. Clusters are also acknowledged only with their Secrets there, so a chain is sent when it can serve.

Each keeper has the Secrets of one of `KEEPERS` shares, so that one Secret more touches few others.
"""

import zlib
from collections.abc import Iterable
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from propylon.envoy import names
from propylon.envoy.resource import pack
from propylon.envoy.tls import build_secret_source
from propylon.graph.model import SecretKey

KEEPERS = 256


def share_of(secret: SecretKey) -> int:
    """Which keeper has a Secret, the same in every process."""
    return zlib.crc32(names.secret(secret).encode()) % KEEPERS


def build_secret_keeper(share: int, secrets: Iterable[SecretKey]) -> Any:
    """The Cluster of one share. Nothing is ever sent to it."""
    out = cluster_pb2.Cluster(name=names.secret_keeper(share), type=cluster_pb2.Cluster.STATIC)
    for secret in secrets:
        context = tls_pb2.UpstreamTlsContext()
        common = context.common_tls_context
        if secret.kind == "validation":
            combined = common.combined_validation_context
            combined.validation_context_sds_secret_config.CopyFrom(build_secret_source(secret))
            combined.default_validation_context.SetInParent()
        else:
            common.tls_certificate_sds_secret_configs.append(build_secret_source(secret))
        socket = base_pb2.TransportSocket(name=names.TLS_TRANSPORT_SOCKET, typed_config=pack(context))
        out.transport_socket_matches.add(name=names.secret(secret), transport_socket=socket)
    return out
