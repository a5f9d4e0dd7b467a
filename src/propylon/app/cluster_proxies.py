"""The controller of a cluster whose proxies are pods: plans become objects, a Service's addresses become a Gateway's.

Every replica watches and computes; the one that leads writes, and it alone serves xDS, because what proxies acknowledge
must be known to whoever writes it into statuses. The others are warm: whoever leads next lets the proxies in at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec

from propylon import api
from propylon.app.cluster import ClusterOptions, ClusterRuntime
from propylon.app.cluster_authority import AuthorityStore, Identities
from propylon.app.cluster_data_plane import PodDataPlane
from propylon.app.data_plane import DataPlane
from propylon.graph import GatewayAddresses, Settings
from propylon.graph.assignment import asks_for_nothing_possible
from propylon.graph.model import Finding
from propylon.proxies.kubernetes import (
    Installation,
    Wanted,
    observe,
    plan_documents,
)
from propylon.proxies.kubernetes.apply import KINDS, ApplyError, Plan
from propylon.proxies.kubernetes.bootstrap import ControlPlane
from propylon.proxies.kubernetes.documents import DEFAULT_IMAGE, MANAGED_BY, MANAGER, Document, object_name
from propylon.store.cluster import ApiError, Change, Credentials, Unreachable
from propylon.store.cluster.reachability import Seldom

log = logging.getLogger("propylon.app")

XDS_NAME = "propylon-xds"
"""The Service by which proxies find the control plane, and its EndpointSlice."""
XDS_PORT = 18000
TAKE_OVER_SECONDS = 15.0
"""So long a new leader waits at most for proxies to come over before it writes statuses about them."""
UPKEEP_SECONDS = 60.0
RETRY_SECONDS = 2.0
_NODES = tuple(info for info in api.KINDS if (info.group, info.kind) == ("", "Node"))


class PodOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `propylon controller --proxies kubernetes` can be told on top of ClusterOptions."""

    namespace: str
    """Of the controller: its authority's Secret and the xDS Service are there."""
    image: str = DEFAULT_IMAGE
    xds_listen: str = f"0.0.0.0:{XDS_PORT}"
    xds_address: str = ""
    """host:port that proxies connect to; "": the Service `propylon-xds` of the namespace."""
    pod_ip: str = ""
    """Of this replica, for the Service's EndpointSlice; "": nobody needs to be led here."""
    cluster_domain: str = "cluster.local"

    @property
    def server_name(self) -> str:
        """The name that the control plane's certificate bears, wherever it is reached."""
        return f"{XDS_NAME}.{self.namespace}.svc"

    @property
    def control_plane(self) -> ControlPlane:
        """Where proxies find it. Raises ValueError."""
        if not self.xds_address:
            return ControlPlane(f"{self.server_name}.{self.cluster_domain}", XDS_PORT, self.server_name)
        host, _, port = self.xds_address.rpartition(":")
        return ControlPlane(host.strip("[]"), int(port), self.server_name)


def build_pod_options(
    namespace: str,
    *,
    proxy_image: str | None = None,
    xds_listen: str | None = None,
    xds_address: str | None = None,
    pod_ip: str | None = None,
    cluster_domain: str | None = None,
) -> PodOptions:
    """The options with what follows from others filled in. Raises ValueError for an address that is none."""
    listen = xds_listen or (f"[::]:{XDS_PORT}" if ":" in (pod_ip or "") else f"0.0.0.0:{XDS_PORT}")
    for address in filter(None, (listen, xds_address)):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"{address!r} is not HOST:PORT")
    return PodOptions(
        namespace=namespace,
        image=proxy_image or DEFAULT_IMAGE,
        xds_listen=listen,
        xds_address=xds_address or "",
        pod_ip=pod_ip or "",
        cluster_domain=cluster_domain or "cluster.local",
    )


class KubernetesRuntime(ClusterRuntime):
    """Everything that `propylon controller --proxies kubernetes` runs."""

    watched = (*ClusterRuntime.watched, *_NODES)
    made = KINDS
    data_plane: PodDataPlane

    def __init__(
        self, options: ClusterOptions, pods: PodOptions, credentials: Credentials, say: Callable[[str], None]
    ) -> None:
        """Raises ProxyError, and ValueError for an address that is none."""
        self.pods = pods
        self.identities = Identities(pods.server_name)
        self.installation = Installation(
            control_plane=pods.control_plane,
            controller_name=options.controller_name,
            image=pods.image,
            probe_address="::" if ":" in pods.pod_ip else "0.0.0.0",
        )
        super().__init__(options, credentials, say)
        self.authority_store = AuthorityStore(self.client, pods.namespace)
        self._slices: dict[api.ObjectKey, dict[str, bool]] = {}
        """By Service: its EndpointSlices, and whether any proxy in them is ready."""
        self._service_of: dict[api.ObjectKey, api.ObjectKey] = {}
        """By EndpointSlice."""
        self._nodes: dict[str, api.Node] = {}
        self._leading_since = 0.0
        self._writing = False
        self._seldom = Seldom()
        self._upkeep_bell = asyncio.Event()

    def _settings(self) -> Settings:
        return msgspec.structs.replace(super()._settings(), cluster_domain=self.pods.cluster_domain)

    def _build_data_plane(self) -> DataPlane:
        return PodDataPlane(
            self.controller,
            self.options.data_dir,
            ring=self._bell.set,
            say=self.say,
            listen=self.pods.xds_listen,
            identities=self.identities,
        )

    # -- leading -----------------------------------------------------------------------------------------------------

    async def _turns(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._turns())
            group.create_task(self._upkeep())

    def _lead(self, leading: bool) -> None:
        self._leading_since = time.monotonic()
        super()._lead(leading)
        self._upkeep_bell.set()

    def _enable_statuses(self, enabled: bool) -> None:
        if not enabled:  # enabled by `_take_over`
            self._writing = False
            super()._enable_statuses(False)

    async def _upkeep(self) -> None:
        """Serve while leading, and keep authority and certificates young."""
        while True:
            self._upkeep_bell.clear()
            wait = UPKEEP_SECONDS
            try:
                if self._leading:
                    await self._keep_serving()
                else:
                    await self.data_plane.close()
            except (ApiError, Unreachable, ApplyError, RuntimeError, ValueError) as error:
                if self._seldom.due(type(error).__name__):
                    log.warning("proxies cannot be served yet: %s", error)
                wait = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._upkeep_bell.wait()

    async def _keep_serving(self) -> None:
        if self.identities.renew(await self.authority_store.keep()):
            self._unplanned |= self._gateways.keys()
        self._unplanned |= self.identities.due()
        await self.data_plane.serve()
        if self.pods.pod_ip:
            await self.objects.documents.announce(self.pods.namespace, XDS_NAME, self.pods.pod_ip, XDS_PORT)
        self._bell.set()

    def _unready(self) -> str:
        if self._leading and not self.data_plane.serving:
            return super()._unready() or "leading, and not serving proxies yet"
        return super()._unready()

    def _may_plan(self) -> bool:
        """Only who leads has the certificates that go with it."""
        return super()._may_plan() and self.identities.ready

    def _take_over(self) -> None:
        """Begin to write statuses, once proxies had the time to come over."""
        if not self._published or not self._may_plan():
            return
        if self._writing or (self._missing() and time.monotonic() < self._leading_since + TAKE_OVER_SECONDS):
            return
        self._writing = True
        super()._enable_statuses(True)

    def _missing(self) -> bool:
        """Whether the proxies of a Gateway that is said to be programmed have not come to us yet."""
        return any(
            "/".join(key) not in self.data_plane.connected
            for key in self.controller.graph.gateways
            if (gateway := self._gateways.get(key)) is not None
            and any(c.type == "Programmed" and c.status == "True" for c in gateway.status.conditions)
        )

    def _seconds_to_wait(self, began: float) -> float | None:
        seconds = super()._seconds_to_wait(began)
        if not self._leading or self._writing:
            return seconds
        left = max(0.1, self._leading_since + TAKE_OVER_SECONDS - time.monotonic())
        return left if seconds is None else min(seconds, left)

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        super()._turn()
        if self._complete:
            self._take_over()

    def _take(self, change: Change) -> None:
        ref = change.ref
        if (ref.group, ref.kind) == ("", "Node"):
            self._take_node(ref.name, change.object)
        elif ref.kind == "EndpointSlice":
            self._take_slice(ref.key, change.object)
        elif (ref.group, ref.kind) == ("", "Secret"):
            self.identities.seen(ref.key, change.object)
        super()._take(change)

    def _take_slice(self, key: api.ObjectKey, found: api.EndpointSlice | None) -> None:
        before, after = self._service_of.pop(key, None), None
        if before is not None:
            self._slices[before].pop(key.name)
        # Labels of a Service are those of its slices.
        if found is not None and found.service_name and found.metadata.labels.get(MANAGED_BY) == MANAGER:
            after = self._service_of[key] = api.ObjectKey(key.namespace, found.service_name)
            ready = any(endpoint.conditions.ready is not False for endpoint in found.endpoints)
            self._slices.setdefault(after, {})[key.name] = ready
        for service in {before, after} & self.objects.services.keys():
            if service is not None:
                self._unplaced |= self.objects.gateways_of(service)

    def _take_node(self, name: str, node: api.Node | None) -> None:
        before: api.Node | None = self._nodes.pop(name, None)
        if node is not None:
            self._nodes[name] = msgspec.structs.replace(node)
        if _addresses_of(before) != _addresses_of(node):
            nodes_matter = (key for key, service in self.objects.services.items() if service.spec.type == "NodePort")
            self._unplaced |= {gateway for key in nodes_matter for gateway in self.objects.gateways_of(key)}

    # -- addresses ---------------------------------------------------------------------------------------------------

    def _place_gateways(self) -> None:
        """Read addresses back from Services."""
        pending, self._unplaced = self._unplaced, set()
        for key in pending:
            gateway = self._gateways.get(key)
            if gateway is None or gateway.spec.gateway_class_name not in self._classes:
                self.controller.sources.addresses.remove(key)
            else:
                self.controller.sources.addresses.set(key, self._addresses(key, gateway))

    def _addresses(self, key: api.ObjectKey, gateway: api.Gateway) -> GatewayAddresses:
        name = object_name(gateway, self.options.controller_name)
        ready = any(self._slices.get(api.ObjectKey(key.namespace, name), {}).values())
        observed = observe(gateway, self.objects.service_of(gateway, name), list(self._nodes.values()), ready=ready)
        finding = None
        if obstacle := self.objects.obstacles.get(key):
            finding = Finding("Programmed", "NoResources", obstacle)
        elif observed.reason:
            field = "spec.addresses" if observed.reason == "AddressNotUsable" else ""
            finding = Finding("Programmed", observed.reason, observed.message, field)
        return GatewayAddresses(
            addresses=observed.addresses,
            bind=() if asks_for_nothing_possible(gateway) else observed.bind,
            finding=finding,
            reserve=observed.cluster_ips,
        )

    # -- objects -----------------------------------------------------------------------------------------------------

    def _plan_of(self, key: api.ObjectKey) -> Plan | None:
        plan = super()._plan_of(key)
        if plan is None and key not in self._gateways:
            self.identities.forget(key)
        return plan

    def _documents(
        self, key: api.ObjectKey, gateway: api.Gateway, ports: tuple[tuple[int, str], ...]
    ) -> tuple[Document, ...]:
        wanted = Wanted(
            gateway=gateway,
            ports=ports,
            parameters=self._parameters_of(gateway),
            credentials=self.identities.files(key, gateway, self.options.controller_name),
            token=self.identities.token(gateway),
            cluster_ip=self._requested_cluster_ip(gateway),
        )
        return plan_documents(wanted, self.installation)


def _addresses_of(node: api.Node | None) -> tuple[api.NodeAddress, ...]:
    return node.status.addresses if node is not None else ()
