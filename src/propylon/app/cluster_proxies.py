"""The controller of a cluster whose proxies are pods: plans become objects, a Service's addresses become a Gateway's.

Every replica watches, computes and serves xDS; the one that leads writes. What proxies acknowledge must be known to
whoever writes it into statuses, so the others report it to the leader (see `replicas`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from propylon import __version__, api
from propylon.app.cluster import ClusterOptions, ClusterRuntime
from propylon.app.cluster_authority import AuthorityStore, Identities
from propylon.app.cluster_data_plane import PodDataPlane
from propylon.app.controller import Outcome
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
from propylon.store.cluster import ApiError, Change, Credentials, Leader, Unreachable
from propylon.store.cluster.reachability import Seldom

log = logging.getLogger("propylon.app")

XDS_NAME = "propylon-xds"
"""The Service by which proxies find the control plane."""
XDS_PORT = 18000
TAKE_OVER_SECONDS = 15.0
"""So long a new leader waits at most for proxies to come over before it writes statuses about them."""
UPKEEP_SECONDS = 60.0
INTRODUCTION_SECONDS = 5.0
"""So long a replica that is new waits at most for the leader's word on what is large before it serves."""
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
    """Of this replica, for the others; "": they find it by `xds_listen`, if that is an address of its own."""
    cluster_domain: str = "cluster.local"

    @property
    def server_name(self) -> str:
        """The name that the control plane's certificate bears, wherever it is reached."""
        return f"{XDS_NAME}.{self.namespace}.svc"

    @property
    def own_address(self) -> str:
        """host:port at which other replicas reach this one; "" if that is not known."""
        host, _, port = self.xds_listen.rpartition(":")
        if self.pod_ip:
            host = f"[{self.pod_ip}]" if ":" in self.pod_ip else self.pod_ip
        return "" if host in {"0.0.0.0", "[::]", "::"} else f"{host}:{port}"

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
        self._may_serve = False
        self._complete_since = 0.0
        self._tidied = False
        """Whether what former releases left behind was looked for."""
        self.data_plane.reporter.on_introduction = self._upkeep_bell.set
        self.election.tell(pods.own_address, self._follow)
        self.data_plane.introduce(self.election.identity, _release(options, pods))

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
            group.create_task(self.data_plane.reporter.run())

    def _follow(self, leader: Leader | None) -> None:
        if leader is not None and leader.address == self.pods.own_address:
            leader = None  # this replica, or who was here before it and died
        elif leader is not None and not leader.address:
            log.warning(
                "the leader %s does not say where it is reached: what proxies have here is not known there",
                leader.identity,
            )
        self.data_plane.reporter.follow(leader)

    def _lead(self, leading: bool) -> None:
        self._leading_since = time.monotonic()
        self._tidied = False
        self.data_plane.listener.lead(leading)
        super()._lead(leading)
        self._upkeep_bell.set()

    def _enable_statuses(self, enabled: bool) -> None:
        if not enabled:  # enabled by `_take_over`
            self._writing = False
            super()._enable_statuses(False)

    @property
    def _serves(self) -> bool:
        """Whether this replica is to serve proxies: one that the leader could not hear of must not, unless it leads."""
        return self._may_serve and (self._leading or bool(self.pods.own_address))

    async def _upkeep(self) -> None:
        """Serve once all is known, and keep authority and certificates young."""
        while True:
            self._upkeep_bell.clear()
            wait = UPKEEP_SECONDS
            try:
                if not self._serves:
                    await self.data_plane.close()
                elif not await self._keep_serving():
                    wait = RETRY_SECONDS
            except (ApiError, Unreachable, ApplyError, RuntimeError, ValueError) as error:
                if self._seldom.due(type(error).__name__):
                    log.warning("proxies cannot be served yet: %s", error)
                wait = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._upkeep_bell.wait()

    async def _keep_serving(self) -> bool:
        """Whether proxies are served: followers wait for the leader to make an authority."""
        authorities = await (self.authority_store.keep() if self._leading else self.authority_store.find())
        if not authorities:
            return False
        if self.identities.renew(authorities):
            self._unplanned |= self._gateways.keys()
        self._unplanned |= self.identities.due()
        if self._is_to_wait():
            return False
        await self.data_plane.serve()
        self._bell.set()
        if self._leading and not self._tidied:
            await self.objects.documents.withdraw(self.pods.namespace, XDS_NAME)
            self._tidied = True
        return True

    def _is_to_wait(self) -> bool:
        """Whether proxies would be told now what is to be told otherwise once the leader has spoken."""
        reporter = self.data_plane.reporter
        if self._leading or self.data_plane.serving or reporter.is_introduced:
            return False
        if self.election.leader is not None and reporter.leader is None:
            return False  # there is nobody to ask
        return time.monotonic() < self._complete_since + INTRODUCTION_SECONDS

    def _unready(self) -> str:
        if (self._serves or not self._may_serve) and not self.data_plane.serving:
            return super()._unready() or "not serving proxies yet"
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
        """Whether the proxies of a Gateway that is said to be programmed were not heard of yet, here or elsewhere."""
        return any(
            not self.data_plane.acknowledgements.served("/".join(key))
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

    def _do_paperwork(self, outcome: Outcome) -> None:
        super()._do_paperwork(outcome)
        if self._complete:
            self._take_over()
            if not self._may_serve:
                self._may_serve = True
                self._complete_since = time.monotonic()
                self._upkeep_bell.set()

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

    # -- telling -----------------------------------------------------------------------------------------------------

    async def _config(self, arguments: Any) -> dict[str, Any]:
        plane, leader = self.data_plane, self.election.leader
        others = plane.acknowledgements.others
        return {
            **await super()._config(arguments),
            "xds-socket": "none",
            "xds-listen": self.pods.xds_listen if plane.serving else "not yet",
            "leader": f"{leader.identity} at {leader.address or 'an unknown address'}" if leader else "none",
            "reports-to": plane.reporter.heard_by or "nobody",
            "replicas-that-report": " ".join(f"{name}:{len(each.connected)}" for name, each in sorted(others.items())),
            "gateways-connected": len(plane.acknowledgements.own.connected),
            "proxies-connected": sum(plane.xds.streams.values()),
        }

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


def _release(options: ClusterOptions, pods: PodOptions) -> str:
    """What resources are made of, but for objects: replicas for which this is the same make the same ones."""
    said = (options.access_log, options.backend_statistics)
    return " ".join((__version__, options.controller_name, *map(str, said), pods.cluster_domain))


def _addresses_of(node: api.Node | None) -> tuple[api.NodeAddress, ...]:
    return node.status.addresses if node is not None else ()
