"""What a cluster has besides objects: channel and release of the Gateway API's CRDs, APIs served, Service ranges.

All of it seldom changes and is asked for twice a minute; nothing is published before it was asked for once, so that no
GatewayClass ever claims what is not there.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from propylon import api
from propylon.app.cluster_addresses import Network
from propylon.status.features import OPTIONAL_KINDS, lacking_in, lacking_without, release_of
from propylon.store.cluster import ApiError, Client, ClusterWatch, Unreachable

log = logging.getLogger("propylon.app")

ASK_SECONDS = 30.0
RETRY_SECONDS = 1.0
CRD_NAMES = tuple(
    f"{info.plural}.{info.group}" for info in api.KINDS if info.group in {api.GATEWAY_GROUP, api.EXPERIMENTAL_GROUP}
)
_GATEWAYS = f"gateways.{api.GATEWAY_GROUP}"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_CHANNEL = f"{api.GATEWAY_GROUP}/channel"
_BUNDLE_VERSION = f"{api.GATEWAY_GROUP}/bundle-version"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
_OPTIONAL = tuple(api.ObjectRef(info.group, info.kind, "", "") for info in api.KINDS if info.kind in OPTIONAL_KINDS)
_X_BACKEND = api.ObjectRef(api.EXPERIMENTAL_GROUP, "XBackend", "", "")


class Surroundings:
    """Asks, and remembers the answers. All methods belong to one event loop."""

    def __init__(self, client: Client, watch: ClusterWatch, on_change: Callable[[], None]) -> None:
        self.known = False
        """Whether everything was asked for once."""
        self.channel: str | None = None
        """`standard` or `experimental`, None if the CRD of Gateways does not say."""
        self.crds: dict[str, str] = {}
        """CRDs of the Gateway API by name, each with the bundle version it says, "" if it says none."""
        self.service_ranges: tuple[Network, ...] = ()
        """Where cluster IPs of Services come from; empty if the cluster does not tell (before Kubernetes 1.33)."""
        self._client = client
        self._watch = watch
        self._on_change = on_change
        self._refused: set[str] = set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            before = self._answers()
            try:
                crds = {name: found for name in CRD_NAMES if (found := await self._get(f"{_CRDS}/{name}"))}
                self.channel = _annotations(crds.get(_GATEWAYS, {})).get(_CHANNEL)
                self.crds = {name: _annotations(found).get(_BUNDLE_VERSION, "") for name, found in crds.items()}
                self.service_ranges = _ranges(await self._get(_SERVICE_CIDRS))
                self.known = True
            except Unreachable as error:
                log.debug("the cluster's surroundings cannot be asked for: %s", error)
            if before != self._answers():
                self._on_change()
            await asyncio.sleep(ASK_SECONDS if self.known else RETRY_SECONDS)

    def _answers(self) -> tuple[Any, ...]:
        return self.known, self.channel, self.crds, self.service_ranges

    def lacking(self) -> frozenset[str]:
        """Features that nobody could have here."""
        channel = self.channel
        if channel not in {"standard", "experimental"}:
            # A CRD that does not say (somebody's own copy): the experimental channel brings kinds of its own.
            channel = "standard" if self._watch.path_of(_X_BACKEND) is None else "experimental"
        missing = frozenset(ref.kind for ref in _OPTIONAL if self._watch.path_of(ref) is None)
        return lacking_in(channel, release_of(self.crds.get(_GATEWAYS, ""))) | lacking_without(missing)

    def is_cluster_ip(self, address: str) -> bool:
        """Whether an address is of a range for Services."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in service_range for service_range in self.service_ranges)

    async def _get(self, path: str) -> dict[str, Any]:
        """The answer, empty if there is none to be had. Raises Unreachable."""
        try:
            answer = await self._client.request("GET", path, accept=_METADATA_ONLY if path.startswith(_CRDS) else None)
            return msgspec.json.decode(answer, type=dict[str, Any])
        except (ApiError, msgspec.DecodeError) as error:
            if isinstance(error, ApiError) and (error.status >= 500 or error.status == 429) and not self.known:
                raise Unreachable(str(error)) from error
            if path not in self._refused and not (isinstance(error, ApiError) and error.status == 404):
                log.warning("%s cannot be read: %s", path, error)
            self._refused.add(path)
            return {}


def _annotations(crd: dict[str, Any]) -> dict[str, str]:
    return (crd.get("metadata") or {}).get("annotations") or {}


def _ranges(listing: dict[str, Any]) -> tuple[Network, ...]:
    found: set[Network] = set()
    for item in listing.get("items") or ():
        for cidr in (item.get("spec") or {}).get("cidrs") or ():
            try:
                found.add(ipaddress.ip_network(cidr, strict=False))
            except ValueError:
                log.warning("ServiceCIDR %s is no range: %r", (item.get("metadata") or {}).get("name"), cidr)
    return tuple(sorted(found, key=str))
