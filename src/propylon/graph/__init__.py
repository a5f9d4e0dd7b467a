"""The meaning of the objects: classes, listeners, attachment, references, backends, precedence. Pure.

Contract: `build_graph` derives frozen structs (`model`) from `Sources`, incrementally. Invalid pieces stay in the
Graph with a `Finding`; one bad rule, Secret or object never removes a neighbour. Imports `api` and `incremental`.
"""

from propylon.graph.build import Graph, build_graph
from propylon.graph.sources import CONTROLLER_NAME, GatewayAddresses, Settings, Sources

__all__ = ["CONTROLLER_NAME", "GatewayAddresses", "Graph", "Settings", "Sources", "build_graph"]
