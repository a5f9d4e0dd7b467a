"""Objects that are made for Gateways in a cluster: which are there, who brings them there, what parameters they follow.

What a Gateway wants is planned by the runtime; here is all that has to be known for it and about it.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from propylon import api
from propylon.app.cluster_documents import ClusterDocuments
from propylon.app.report import Problem
from propylon.graph.sources import Parameters
from propylon.proxies.kubernetes import (
    PARAMETERS_GROUP,
    PARAMETERS_INFO,
    Applier,
    GatewayParameters,
    ParametersSpec,
    merge_parameters,
    parameter_errors,
)
from propylon.proxies.kubernetes.documents import MANAGED_BY, MANAGER
from propylon.store.cluster import Change, Client

PARAMETERS = (PARAMETERS_GROUP, PARAMETERS_INFO.kind)
"""Group and kind that a `parametersRef` may lead to."""


class GatewayObjects:
    """What exists for Gateways, and the applier that makes it be as planned."""

    def __init__(
        self,
        client: Client,
        controller_name: str,
        kinds: Sequence[str],
        on_change: Callable[[Iterable[api.ObjectKey]], None],
    ) -> None:
        """`kinds`: of what is made. `on_change` is told Gateways whose addresses may have changed by what happened."""
        self.documents = ClusterDocuments(client, controller_name)
        self.applier = Applier(self.documents, self.obstructed, kinds=kinds)
        self.services: dict[api.ObjectKey, api.Service] = {}
        """Those that bear our label, with their status."""
        self.obstacles: dict[api.ObjectKey, str] = {}
        """What keeps the objects of a Gateway from being as planned."""
        self._on_change = on_change
        self._parameters: dict[api.ObjectKey, ParametersSpec] = {}
        self._owners: dict[api.ObjectRef, api.ObjectKey] = {}
        """Object -> the Gateway that controls it."""

    # -- what is there -----------------------------------------------------------------------------------------------

    def take(self, change: Change) -> None:
        """Learn of a Service or EndpointSlice; one that was deleted is applied again."""
        ref, found = change.ref, change.object
        ours = found is not None and found.metadata.labels.get(MANAGED_BY) == MANAGER
        before = self._owners.pop(ref, None)
        if ref.kind == "Service":
            self.services.pop(ref.key, None)
            if ours and found is not None:
                # What comes next takes the status away.
                self.services[ref.key] = msgspec.structs.replace(found)
        after = _owner(found) if ours and found is not None else None
        if after is not None:
            self._owners[ref] = after
        elif before is not None:
            self.applier.check(before)
        if ref.kind == "Service":
            self._on_change({gateway for gateway in (before, after) if gateway is not None})

    def service_of(self, gateway: api.Gateway, name: str) -> api.Service | None:
        """The Service of that name, if this Gateway owns it."""
        service = self.services.get(api.ObjectKey(gateway.metadata.namespace, name))
        if service is None or all(o.uid != gateway.metadata.uid for o in service.metadata.owner_references):
            return None
        return service

    def gateways_of(self, service: api.ObjectKey) -> set[api.ObjectKey]:
        """The Gateways that own a Service of ours."""
        owners = self.services[service].metadata.owner_references
        return {api.ObjectKey(service.namespace, owner.name) for owner in owners}

    # -- parameters --------------------------------------------------------------------------------------------------

    def take_parameters(self, change: Change) -> Parameters | None:
        """Learn of GatewayParameters: what the Graph is to know of them, None if they are gone."""
        self._parameters.pop(change.ref.key, None)
        if change.gone:
            return None
        found: GatewayParameters | None = change.object
        errors = parameter_errors(found.spec) if found is not None else (str(change.error),)
        if found is not None and not errors:
            self._parameters[change.ref.key] = found.spec
        return Parameters("; ".join(errors))

    def parameters_of(self, gateway: api.Gateway, gateway_class: api.GatewayClass | None) -> ParametersSpec:
        """What holds for a Gateway: its own parameters before those of its class."""
        of_class = gateway_class.spec.parameters_ref if gateway_class is not None else None
        infrastructure = gateway.spec.infrastructure
        of_gateway = infrastructure.parameters_ref if infrastructure is not None else None
        return merge_parameters(
            self._parameters.get(api.ObjectKey(of_class.namespace or "", of_class.name)) if of_class else None,
            self._parameters.get(api.ObjectKey(gateway.metadata.namespace, of_gateway.name)) if of_gateway else None,
        )

    # -- obstacles ---------------------------------------------------------------------------------------------------

    def obstructed(self, gateway: api.ObjectKey, problem: str) -> None:
        """Learn what keeps a Gateway's objects from being as planned, "" if nothing does."""
        if self.obstacles.get(gateway, "") == problem:
            return
        if problem:
            self.obstacles[gateway] = problem
        else:
            del self.obstacles[gateway]
        self._on_change((gateway,))

    def problems(self) -> list[Problem]:
        """The obstacles, for people."""
        return [Problem("error", "", 0, 0, f"Gateway {key}", "", text) for key, text in sorted(self.obstacles.items())]


def _owner(found: api.Service | api.EndpointSlice) -> api.ObjectKey | None:
    for owner in found.metadata.owner_references:
        if owner.controller and owner.kind == "Gateway":
            return api.ObjectKey(found.metadata.namespace, owner.name)
    return None
