"""Delta ADS: what each proxy has, what it should have, and the order to get there.

Contract: `Server.update` takes the desired resources of a node as serialized bytes; the server brings every proxy of
that node there make-before-break, isolates what a proxy refuses, and reports what is acknowledged. Versions are content
hashes, so a restarted control plane resends nothing that a proxy has. The decisions are in `machine`, free of I/O.
Imports nothing of ours.
"""

from propylon.xds.events import Acknowledged, Connected, Disconnected, Event, Rejected, ResourceName
from propylon.xds.server import Counters, ResourceState, Server, StreamState
from propylon.xds.type_urls import CDS, ECDS, EDS, FCDS, LDS, RDS, RTDS, SDS, SRDS, VHDS, short_name
from propylon.xds.world import version_of

__all__ = [
    "CDS",
    "ECDS",
    "EDS",
    "FCDS",
    "LDS",
    "RDS",
    "RTDS",
    "SDS",
    "SRDS",
    "VHDS",
    "Acknowledged",
    "Connected",
    "Counters",
    "Disconnected",
    "Event",
    "Rejected",
    "ResourceName",
    "ResourceState",
    "Server",
    "StreamState",
    "short_name",
    "version_of",
]
