"""The controller of a cluster whose proxies are pods: plans become objects, a Service's addresses become a Gateway's.

Every replica watches and computes; the one that leads writes, and it alone serves xDS, because what proxies acknowledge
must be known to whoever writes it into statuses. The others are warm: whoever leads next lets the proxies in at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from propylon import api
from propylon.app.cluster import WATCHED, ClusterOptions, ClusterRuntime
from propylon.app.cluster_authority import AuthorityStore, Identities
from propylon.app.cluster_data_plane import PodDataPlane
from propylon.app.cluster_documents import ClusterDocuments
from propylon.app.controller import Outcome
from propylon.app.data_plane import DataPlane
from propylon.app.report import Problem
from propylon.graph import GatewayAddresses, Settings
from propylon.graph.model import Finding
from propylon.graph.sources import Parameters
from propylon.proxies.kubernetes import (
    PARAMETERS_GROUP,
    PARAMETERS_INFO,
    Applier,
    GatewayParameters,
    Installation,
    ParametersSpec,
    Wanted,
    merge_parameters,
    observe,
    parameter_errors,
    plan_documents,
)
from propylon.proxies.kubernetes.apply import ApplyError, Plan
from propylon.proxies.kubernetes.bootstrap import ControlPlane
from propylon.proxies.kubernetes.documents import DEFAULT_IMAGE, MANAGED_BY, MANAGER, object_name
from propylon.status import SUPPORTED_FEATURES
from propylon.status.conditions import Status
from propylon.store.cluster import ApiError, Change, Credentials, Unreachable

log = logging.getLogger("propylon.app")

XDS_NAME = "propylon-xds"
"""The Service by which proxies find the control plane, and its EndpointSlice."""
XDS_PORT = 18000
TAKE_OVER_SECONDS = 15.0
"""So long a new leader waits at most for proxies to come over before it writes statuses about them."""
UPKEEP_SECONDS = 60.0
RETRY_SECONDS = 2.0
_FEATURES = ("GatewayInfrastructure",)
"""What only pods can do."""
_PARAMETERS = (PARAMETERS_GROUP, PARAMETERS_INFO.kind)
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

    watched = (*WATCHED, *_NODES, PARAMETERS_INFO)
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
        self.documents = ClusterDocuments(self.client, options.controller_name)
        self.authority_store = AuthorityStore(self.client, pods.namespace)
        self.applier = Applier(self.documents, self._obstructed)
        self._services: dict[api.ObjectKey, api.Service] = {}
        """Those that bear our label, with their status."""
        self._slices: dict[api.ObjectKey, dict[str, bool]] = {}
        """By Service: its EndpointSlices, and whether any proxy in them is ready."""
        self._service_of: dict[api.ObjectKey, api.ObjectKey] = {}
        """By EndpointSlice."""
        self._nodes: dict[str, api.Node] = {}
        self._parameters: dict[api.ObjectKey, ParametersSpec] = {}
        self._obstacles: dict[api.ObjectKey, str] = {}
        """What keeps the objects of a Gateway from being as planned."""
        self._unplanned: set[api.ObjectKey] = set()
        self._leading = False
        self._leading_since = 0.0
        self._writing = False
        self._upkeep_bell = asyncio.Event()

    def _settings(self) -> Settings:
        return msgspec.structs.replace(
            super()._settings(), parameter_kinds=frozenset({_PARAMETERS}), cluster_domain=self.pods.cluster_domain
        )

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
            group.create_task(self.applier.run())
            group.create_task(self._upkeep())

    def _lead(self, leading: bool) -> None:
        self._leading = leading
        self._leading_since = time.monotonic()
        if not leading:
            self._writing = False
            self.applier.enable(False)
            super()._lead(False)
        self._upkeep_bell.set()
        self._bell.set()

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
            await self.documents.announce(self.pods.namespace, XDS_NAME, self.pods.pod_ip, XDS_PORT)
        self._bell.set()

    def _take_over(self) -> None:
        """Begin to write, once all that is wanted was told and proxies had the time to come over."""
        if not self._leading or not self._published or not self.identities.ready:
            return
        self.applier.enable(True)
        if self._writing or (self._missing() and time.monotonic() < self._leading_since + TAKE_OVER_SECONDS):
            return
        self._writing = True
        super()._lead(True)

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
        if self.watch.complete:
            self._plan()
            self._take_over()

    def _commit(self) -> Outcome:
        outcome = super()._commit()
        self._unplanned |= outcome.gateways
        return outcome

    def _want(self, ref: api.ObjectRef, status: Any) -> None:
        if ref.kind == "GatewayClass" and status is not None:
            features = [{"name": name} for name in sorted({*SUPPORTED_FEATURES, *_FEATURES})]
            status = Status({**status, "supportedFeatures": features}, status.controllers)
        super()._want(ref, status)

    def _take(self, change: Change) -> None:
        ref = change.ref
        if (ref.group, ref.kind) == _PARAMETERS:
            self._take_parameters(change)
        elif (ref.group, ref.kind) == (api.GATEWAY_GROUP, "GatewayClass"):
            self._unplanned |= {key for key, g in self._gateways.items() if g.spec.gateway_class_name == ref.name}
        elif (ref.group, ref.kind) == ("", "Node"):
            self._take_node(ref.name, change.object)
        elif (ref.group, ref.kind) == ("", "Service"):
            self._take_service(ref.key, change.object)
        elif ref.kind == "EndpointSlice":
            self._take_slice(ref.key, change.object)
        elif (ref.group, ref.kind) == ("", "Secret"):
            self.identities.seen(ref.key, change.object)
        super()._take(change)

    def _take_service(self, key: api.ObjectKey, service: api.Service | None) -> None:
        known = self._services.pop(key, None)
        if service is not None and service.metadata.labels.get(MANAGED_BY) == MANAGER:
            # What comes next takes the status away.
            self._services[key] = msgspec.structs.replace(service)
        for found in (known, self._services.get(key)):
            owners = found.metadata.owner_references if found is not None else ()
            for owner in owners:
                gateway = api.ObjectKey(key.namespace, owner.name)
                self._unplaced.add(gateway)
                if key not in self._services:
                    self.applier.check(gateway)

    def _take_slice(self, key: api.ObjectKey, found: api.EndpointSlice | None) -> None:
        before, after = self._service_of.pop(key, None), None
        if before is not None:
            self._slices[before].pop(key.name)
        # Labels of a Service are those of its slices.
        if found is not None and found.service_name and found.metadata.labels.get(MANAGED_BY) == MANAGER:
            after = self._service_of[key] = api.ObjectKey(key.namespace, found.service_name)
            ready = any(endpoint.conditions.ready is not False for endpoint in found.endpoints)
            self._slices.setdefault(after, {})[key.name] = ready
        for service in {before, after} & self._services.keys():
            if service is not None:
                self._unplaced |= self._gateways_of(service)

    def _take_node(self, name: str, node: api.Node | None) -> None:
        before: api.Node | None = self._nodes.pop(name, None)
        if node is not None:
            self._nodes[name] = msgspec.structs.replace(node)
        if _addresses_of(before) != _addresses_of(node):
            nodes_matter = (key for key, service in self._services.items() if service.spec.type == "NodePort")
            self._unplaced |= {gateway for key in nodes_matter for gateway in self._gateways_of(key)}

    def _gateways_of(self, service: api.ObjectKey) -> set[api.ObjectKey]:
        owners = self._services[service].metadata.owner_references
        return {api.ObjectKey(service.namespace, owner.name) for owner in owners}

    def _take_parameters(self, change: Change) -> None:
        key = change.ref.key
        self._parameters.pop(key, None)
        self._unplanned |= self._gateways.keys()
        if change.gone:
            self.controller.sources.parameters.remove(change.ref)
            return
        found: GatewayParameters | None = change.object
        errors = parameter_errors(found.spec) if found is not None else (str(change.error),)
        if found is not None and not errors:
            self._parameters[key] = found.spec
        self.controller.sources.parameters.set(change.ref, Parameters("; ".join(errors)))

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
        service_key = api.ObjectKey(key.namespace, object_name(gateway, self.options.controller_name))
        service = self._services.get(service_key)
        if service is not None and all(o.uid != gateway.metadata.uid for o in service.metadata.owner_references):
            service = None
        observed = observe(
            gateway, service, list(self._nodes.values()), ready=any(self._slices.get(service_key, {}).values())
        )
        finding = None
        if obstacle := self._obstacles.get(key):
            finding = Finding("Programmed", "NoResources", obstacle)
        elif observed.reason:
            field = "spec.addresses" if observed.reason == "AddressNotUsable" else ""
            finding = Finding("Programmed", observed.reason, observed.message, field)
        return GatewayAddresses(addresses=observed.addresses, bind=observed.bind, finding=finding)

    def _obstructed(self, gateway: api.ObjectKey, problem: str) -> None:
        if self._obstacles.get(gateway, "") == problem:
            return
        if problem:
            self._obstacles[gateway] = problem
        else:
            del self._obstacles[gateway]
        self._unplaced.add(gateway)
        self._bell.set()

    # -- objects -----------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Say what Gateways that changed want. Only who leads has the certificates that go with it."""
        if not self._leading or not self.identities.ready:
            return
        due, self._unplanned = self._unplanned, set()
        if not self.applier.enabled:
            due |= self._gateways.keys()
        for key in due:
            self.applier.want(key, self._plan_of(key))

    def _plan_of(self, key: api.ObjectKey) -> Plan | None:
        gateway = self._gateways.get(key)
        if gateway is None or gateway.metadata.deletion_timestamp is not None:
            self.identities.forget(key)
            return None
        class_name = gateway.spec.gateway_class_name
        found = self.controller.graph.gateways.get(key)
        if class_name not in self._classes:
            gateway_class = self.controller.sources.gateway_classes.get(api.ObjectKey("", class_name))
            # A class that is gone may come back; one of somebody else takes its Gateways along.
            return None if gateway_class is not None else Plan(gateway.metadata.uid, None)
        ports = _ports(found.listeners) if found is not None and found.accepted else ()
        if not ports:
            return Plan(gateway.metadata.uid, None)  # refused for now: what runs goes on, nothing new is made of it
        wanted = Wanted(
            gateway=gateway,
            ports=ports,
            parameters=self._parameters_of(gateway),
            credentials=self.identities.files(key, gateway, self.options.controller_name),
            token=self.identities.token(gateway),
        )
        return Plan(gateway.metadata.uid, plan_documents(wanted, self.installation))

    def _parameters_of(self, gateway: api.Gateway) -> ParametersSpec:
        gateway_class = self.controller.sources.gateway_classes.get(api.ObjectKey("", gateway.spec.gateway_class_name))
        of_class = gateway_class.spec.parameters_ref if gateway_class is not None else None
        infrastructure = gateway.spec.infrastructure
        of_gateway = infrastructure.parameters_ref if infrastructure is not None else None
        return merge_parameters(
            self._parameters.get(api.ObjectKey(of_class.namespace or "", of_class.name)) if of_class else None,
            self._parameters.get(api.ObjectKey(gateway.metadata.namespace, of_gateway.name)) if of_gateway else None,
        )

    def _tell(self) -> None:
        self.problems.set_others(
            "objects of Gateways",
            [Problem("error", "", 0, 0, f"Gateway {key}", "", text) for key, text in sorted(self._obstacles.items())],
        )
        super()._tell()


def _addresses_of(node: api.Node | None) -> tuple[api.NodeAddress, ...]:
    return node.status.addresses if node is not None else ()


def _ports(listeners: tuple[Any, ...]) -> tuple[tuple[int, str], ...]:
    accepted = (listener for listener in listeners if listener.accepted)
    return tuple(sorted({(found.port, "UDP" if found.protocol == "UDP" else "TCP") for found in accepted}))
