"""What each object is told about itself: findings and acknowledgements in, status out. Pure.

Contract: `build_status` derives the desired status of every object; `merge_status` brings it into a live object
without touching what others wrote there. Condition types and reasons are those of Gateway API v1.7.0.
"""

from propylon.status.build import StatusCollections, build_status
from propylon.status.conditions import Status
from propylon.status.features import CLUSTER_FEATURES, EXPERIMENTAL_FEATURES, SUPPORTED_FEATURES
from propylon.status.merge import merge_status
from propylon.status.programmed import ChainPlace, PortProgrammed

__all__ = [
    "CLUSTER_FEATURES",
    "EXPERIMENTAL_FEATURES",
    "SUPPORTED_FEATURES",
    "ChainPlace",
    "PortProgrammed",
    "Status",
    "StatusCollections",
    "build_status",
    "merge_status",
]
