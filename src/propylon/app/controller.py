"""The control loop without its edges: documents and acknowledgements in, Envoy resources and statuses out.

Store and proxies are plugged in around it (`local` without a cluster), so that both run the same code.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from propylon import api
from propylon.app.findings import build_findings
from propylon.envoy import EnvoySettings, Forms, Resource, Translation, build_forms, build_translation
from propylon.graph import Graph, Settings, Sources, build_graph
from propylon.graph.model import Finding
from propylon.graph.sources import FIELD_OF_KIND
from propylon.incremental import Collection, Commit, Engine, Source
from propylon.status import CLUSTER_FEATURES, PortProgrammed, StatusCollections, build_status

Node = api.ObjectKey
"""A Gateway: all its proxies are alike."""
ResourceName = tuple[str, str]


class Outcome(NamedTuple):
    """What one batch changed. `nothing()` makes one of a batch that changed nothing."""

    resources: dict[Node, dict[ResourceName, bytes | None]]
    statuses: dict[api.ObjectRef, Any]
    """Desired status by object; None where nothing is said any more."""
    findings: dict[tuple[str, api.ObjectRef], tuple[Finding, ...]]
    """By origin and object; empty where nothing is to be said any more."""
    gateways: frozenset[api.ObjectKey]
    """Those that changed, came or went."""
    unserved_changed: bool
    failures: tuple[tuple[str, Any, Exception], ...]
    explanation: str
    """What was recomputed and why, if the engine traces."""


def nothing() -> Outcome:
    """What a batch changed that had nothing to do."""
    return Outcome({}, {}, {}, frozenset(), unserved_changed=False, failures=(), explanation="")


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """What several batches changed, one after the other, as if it had been one."""
    if not outcomes:
        return nothing()
    if len(outcomes) == 1:
        return outcomes[0]
    resources: dict[Node, dict[ResourceName, bytes | None]] = {}
    for outcome in outcomes:
        for node, changes in outcome.resources.items():
            resources.setdefault(node, {}).update(changes)
    return Outcome(
        resources=resources,
        statuses={ref: status for outcome in outcomes for ref, status in outcome.statuses.items()},
        findings={key: findings for outcome in outcomes for key, findings in outcome.findings.items()},
        gateways=frozenset[api.ObjectKey]().union(*(outcome.gateways for outcome in outcomes)),
        unserved_changed=any(outcome.unserved_changed for outcome in outcomes),
        failures=tuple(failure for outcome in outcomes for failure in outcome.failures),
        explanation="\n".join(outcome.explanation for outcome in outcomes if outcome.explanation),
    )


class Controller:
    """Owns the engine and its collections. Not thread-safe; nothing in it waits.

    What needs a cluster around is not claimed, unless `lack` says otherwise.
    """

    def __init__(self, settings: Settings, envoy_settings: EnvoySettings) -> None:
        self.engine = Engine()
        self.sources = Sources.create(self.engine)
        self.lack(CLUSTER_FEATURES)
        self.graph: Graph = build_graph(self.engine, self.sources, settings)
        self.forms: Forms = build_forms(self.engine, self.graph, envoy_settings)
        self.translation: Translation = build_translation(self.engine, self.graph, envoy_settings, self.forms)
        self.programmed: Source[Any, PortProgrammed] = self.engine.source("programmed")
        self.rejections: Source[api.ObjectRef, tuple[Finding, ...]] = self.engine.source("rejections")
        self.status: StatusCollections = build_status(
            self.engine, self.sources, self.graph, self.programmed, self.rejections
        )
        self.findings = build_findings(self.engine, self.graph, self.rejections)
        self._resources: tuple[Collection[tuple[Node, str], Resource], ...] = (
            self.translation.secrets,
            self.translation.clusters,
            self.translation.endpoints,
            self.translation.route_configurations,
            self.translation.scopes,
            self.translation.filter_chains,
            self.translation.listeners,
        )

    def set_document(self, ref: api.ObjectRef, document: Mapping[str, Any] | bytes | None) -> Any:
        """Take in one object as the store has it, best as JSON (None if it is gone), and return it decoded.

        Kinds that mean nothing to us are passed over.

        Raises api.DecodeError if the object cannot be read; its previous state stays.
        """
        source = self.sources.by_kind(ref.group, ref.kind)
        if source is None:
            return None
        key = api.ObjectKey(ref.namespace, ref.name)
        if document is None:
            source.remove(key)
            return None
        decoded = _decoded_without_echo(document)
        source.set(key, decoded)
        return decoded

    def lack(self, features: Iterable[str]) -> None:
        """Say which features the surroundings rule out; the latest word counts."""
        lacking = dict.fromkeys(features, True)
        if dict(self.sources.lacking.items()) != lacking:
            self.sources.lacking.replace(lacking)

    def install(self, crds: Mapping[str, str]) -> None:
        """Say which CRDs of the Gateway API are there, each with its bundle version; the latest word counts."""
        installed = tuple(sorted(crds.items())) or None
        if self.sources.crds.get("installed") != installed:
            self.sources.crds.set("installed", installed)

    def refs(self) -> set[api.ObjectRef]:
        """Every object that was taken in and committed."""
        return {
            api.ObjectRef(group, kind, *key)
            for group, kind in FIELD_OF_KIND
            if (source := self.sources.by_kind(group, kind)) is not None
            for key in source
        }

    def commit(self) -> Outcome:
        """Run one batch."""
        commit = self.engine.commit()
        if not (commit.changed or commit.failures or commit.trace):
            return nothing()
        changed = frozenset(commit.collections)
        return Outcome(
            resources=self._changed_resources(commit, changed),
            statuses={ref: new for ref, (_, new) in commit.changes(self.status.statuses).items()},
            findings={
                (collection.name, ref): new or ()
                for collection in self.findings
                if collection in changed
                for ref, (_, new) in commit.changes(collection).items()
            },
            gateways=self._changed_gateways(commit),
            unserved_changed=bool(commit.changes(self.graph.unserved)),
            failures=tuple(commit.failures),
            explanation=commit.explain() if self.engine.trace and commit.trace else "",
        )

    def advance(self) -> dict[Node, dict[ResourceName, bytes | None]]:
        """Begin a batch with what was taken in so far, and return what changed of clusters, endpoints and Secrets.

        To be repeated as more is taken in; `commit` does the rest, and tells of all.
        """
        commit = self.engine.advance()
        return self._changed_resources(commit, frozenset(commit.collections))

    def step(self) -> bool:
        """Compute one thing more of what `advance` took in; False if the commit can do the rest at once."""
        return self.engine.step()

    def step_to_resources(self) -> bool:
        """The same, as far as proxies are concerned: False if all that they are to be told of is computed."""
        return self.engine.step(before=self.programmed)

    def resources(self) -> Outcome:
        """What is to be told to proxies when `step_to_resources` has nothing left, before statuses are computed;
        `commit` tells of it again, with everything else.
        """
        begun = self.engine.begun
        resources = self._changed_resources(begun, frozenset(begun.collections))
        return nothing()._replace(resources=resources, gateways=self._changed_gateways(begun))

    def _changed_gateways(self, commit: Commit) -> frozenset[Node]:
        return frozenset(commit.changes(self.graph.gateways)).union(
            key.gateway for key in commit.changes(self.graph.bound_ports)
        )

    def _changed_resources(
        self, commit: Commit, changed: frozenset[Collection[Any, Any]]
    ) -> dict[Node, dict[ResourceName, bytes | None]]:
        resources: dict[Node, dict[ResourceName, bytes | None]] = {}
        for collection in self._resources:
            if collection not in changed:
                continue
            last, of_node = None, dict[ResourceName, bytes | None]()
            for (node, name), (old, new) in commit.changes(collection).items():
                if old is not None and new is not None and old.body == new.body:
                    continue
                if node is not last:  # of tens of thousands most belong to the same
                    last, of_node = node, resources.setdefault(node, {})
                if new is not None:
                    of_node[new.type_url, name] = new.body
                elif old is not None:
                    of_node[old.type_url, name] = None
        return resources

    def resource(self, node: Node, name: ResourceName) -> Resource | None:
        """The desired resource of that type and name."""
        for collection in self._resources:
            found = collection.get((node, name[1]))
            if found is not None and found.type_url == name[0]:
                return found
        return None


def _decoded_without_echo(document: Mapping[str, Any] | bytes) -> Any:
    """Decode, and leave out what our own status writes change: they must not start another round."""
    if isinstance(document, bytes):
        try:
            decoded = api.decode(document)
        except api.DecodeError:
            # What others wrote into the status is not read, so it must not make the object unreadable.
            return api.decode(_without_echo(msgspec.json.decode(document)))
        # Nobody else has the object yet, so that changing it in place is safe.
        kind: Any = type(decoded)
        if (status := _default_status(kind)) is not msgspec.NODEFAULT:
            force_setattr(decoded, "status", status)
        force_setattr(decoded.metadata, "resource_version", "")
        return decoded
    return api.decode(_without_echo(document))


@cache
def _default_status(kind: type) -> Any:
    """The status of an object that has none; NODEFAULT if the kind has no status."""
    for each in msgspec.structs.fields(kind):
        if each.name == "status":
            return each.default if each.default is not msgspec.NODEFAULT else each.default_factory()
    return msgspec.NODEFAULT


def _without_echo(document: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in document.get("metadata", {}).items() if k not in {"resourceVersion", "managedFields"}}
    return {**{k: v for k, v in document.items() if k != "status"}, "metadata": metadata}


def describe(ref: api.ObjectRef) -> str:
    """`HTTPRoute shop/cart`, `GatewayClass nginx`."""
    return f"{ref.kind} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind} {ref.name}"
