"""What the proxies said of what they were given, by Gateway and port: the ground of `Programmed`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from propylon import api
from propylon.graph.model import Finding
from propylon.status import PortProgrammed
from propylon.xds import FCDS, LDS, Acknowledged, Connected, Event, Rejected, ResourceName, version_of

_TOLD = frozenset({LDS, FCDS})
"""The types that `Programmed` is about."""
Refusals = dict[ResourceName, tuple[str, str]]
"""Resource -> (version, Envoy's message)."""


class NodeSaid(msgspec.Struct, frozen=True, array_like=True):
    """What is new of a node at one source: its Listeners, filter chains and refusals, None for those that are gone."""

    node: str
    connected: bool
    complete: tuple[tuple[str, str, str | None], ...] = ()
    """(type URL, name, version)"""
    refused: tuple[tuple[str, str, tuple[str, str] | None], ...] = ()
    """(type URL, name, (version, Envoy's message))"""


class Source:
    """What the proxies of one xDS server said, by node; here as it is told by whoever runs that server."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        """Nodes with at least one proxy."""
        self.complete: dict[str, dict[ResourceName, str]] = {}
        """node -> Listener or filter chain -> version with which the proxies had everything."""
        self.refused: dict[str, Refusals] = {}
        self.compares = True
        """Whether the same objects make the same versions there as here. A replica of another release, during an
        upgrade, is believed that what its proxies have is what they should have.
        """

    @property
    def nodes(self) -> set[str]:
        """Those of which anything is known."""
        return {*self.connected, *self.complete, *self.refused}

    @property
    def size(self) -> int:
        """How many resources are remembered."""
        return sum(len(each) for several in (self.complete, self.refused) for each in several.values())

    def take(self, said: NodeSaid) -> None:
        """Learn what is new."""
        (self.connected.add if said.connected else self.connected.discard)(said.node)
        for type_url, name, version in said.complete:
            _put(self.complete, said.node, (type_url, name), version)
        for type_url, name, refusal in said.refused:
            _put(self.refused, said.node, (type_url, name), refusal)


class OwnSource(Source):
    """What the proxies of this process' xDS server said, from the server's events.

    A Listener is complete once the proxy acknowledged it and, after that, had nothing left to be sent: an acknowledged
    Listener still waits for its routes and secrets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._acknowledged: dict[str, dict[ResourceName, str]] = {}
        """node -> Listener or filter chain -> version that the proxy has, since it last had everything."""
        self.on_change: Callable[[str, Iterable[ResourceName]], None] = lambda _node, _names: None
        """Told the node of whatever changes, with the names of what was complete or refused."""

    def accept(self, event: Event) -> bool:
        """Take in one event; whether anything that `Acknowledgements` is asked about may have changed.

        Most answers are about what nothing here depends on, as endpoints and routes.
        """
        node = event.node
        if isinstance(event, Rejected):
            names = set()
            if event.name is not None:
                self.refused.setdefault(node, {})[event.name] = (event.version, event.message)
                names.add(event.name)
            self.on_change(node, names | self._settle(node, event.all_settled))
            return True
        if isinstance(event, Acknowledged):
            names = set()
            dropped = False
            refused = self.refused.get(node, {})
            for name, version in event.versions.items():
                if refused.pop(name, None) is not None:
                    names.add(name)
                if name[0] not in _TOLD:
                    continue
                if version is None:
                    dropped = True
                    self._acknowledged.get(node, {}).pop(name, None)
                    if self.complete.get(node, {}).pop(name, None) is not None:
                        names.add(name)
                else:
                    self._acknowledged.setdefault(node, {})[name] = version
            names |= self._settle(node, event.all_settled)
            if names:
                self.on_change(node, names)
            return bool(names) or dropped
        if isinstance(event, Connected):
            self.connected.add(node)
            self.on_change(node, ())
            return False
        if event.last:
            self.connected.discard(node)
            self.on_change(node, ())
        return event.last

    def _settle(self, node: str, settled: bool) -> set[ResourceName]:
        if not settled or node not in self._acknowledged:
            return set()
        acknowledged = self._acknowledged.pop(node)
        self.complete.setdefault(node, {}).update(acknowledged)
        return set(acknowledged)

    def restarted(self, node: str) -> None:
        """Its proxies have nothing any more."""
        self._acknowledged.pop(node, None)
        self.on_change(node, self.complete.pop(node, {}))

    def forget(self, node: str) -> None:
        """The Gateway is gone."""
        self.restarted(node)
        self.on_change(node, self.refused.pop(node, {}))

    def drop_outdated(self, node: str, desired: Mapping[ResourceName, str]) -> None:
        """Forget refusals of versions that are not wanted any more."""
        refused = self.refused.get(node, {})
        outdated = [name for name, (version, _) in refused.items() if desired.get(name) != version]
        for name in outdated:
            del refused[name]
        if outdated:
            self.on_change(node, outdated)

    def said(self, node: str, names: Iterable[ResourceName] | None = None) -> NodeSaid:
        """How things stand with a node: with these names, or with all there are."""
        complete, refused = self.complete.get(node, {}), self.refused.get(node, {})
        asked = sorted({*complete, *refused} if names is None else set(names))
        return NodeSaid(
            node,
            node in self.connected,
            tuple((*name, complete.get(name)) for name in asked if names is not None or name in complete),
            tuple((*name, refused.get(name)) for name in asked if names is not None or name in refused),
        )


class Acknowledgements:
    """Combines what the proxies of all sources said: this process' own, and those of other replicas. Pure bookkeeping.

    Versions are hashes of contents, so those of several replicas of one release compare. What counts of a node is what
    those sources say that have proxies of it, all of them; if none has, for a moment, what was last said by any. A
    refusal counts wherever it comes from. Proxies that are new at a source take nothing back that the others are said
    to have.
    """

    def __init__(self) -> None:
        self.own = OwnSource()
        self.others: dict[str, Source] = {}
        """By the name of the replica."""
        self._agreed: dict[str, dict[ResourceName, str]] = {}
        """node -> Listener or filter chain -> version that was last found to be programmed."""
        self._inside: dict[str, dict[str, str]] = {}
        """node -> Listener -> version of what is inside it, when it was last asked for and programmed."""
        self._outdated: dict[str, set[ResourceName]] = {}
        """node -> what another source's proxies refuse, in a version that is not wanted here (any more, or yet)."""
        self._versions: dict[tuple[str, str, str], tuple[bytes, int, str]] = {}
        """What was last computed: (node, Listener, which part of it) -> body, length of the part, version."""

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (self.own, *self.others.values())

    def connected(self, node: str) -> bool:
        """Whether any source has a proxy of the node."""
        return any(node in source.connected for source in self._sources)

    def served(self, node: str) -> bool:
        """Whether any source has a proxy of the node that had everything."""
        return any(node in source.connected and source.complete.get(node) for source in self._sources)

    def accept(self, event: Event) -> bool:
        """Take in an event of this process' server; whether anything that we are asked about may have changed."""
        if isinstance(event, Connected) and event.first and self.connected(event.node):
            self.own.restarted(event.node)  # of others than the one that came now; those speak meanwhile
        if isinstance(event, Acknowledged):
            agreed = self._agreed.get(event.node, {})
            for name, version in event.versions.items():
                if version is None:
                    agreed.pop(name, None)
        return self.own.accept(event)

    def take(self, replica: str, said: NodeSaid) -> None:
        """Learn what is new at another replica, one of `others`."""
        source = self.others[replica]
        if said.connected and said.node not in source.connected and self.connected(said.node):
            source.complete.pop(said.node, None)  # as above
        if said.connected:
            for type_url, name, version in said.complete:
                if version is None:
                    self._agreed.get(said.node, {}).pop((type_url, name), None)
        source.take(said)

    def replace(self, replica: str, source: Source | None) -> set[str]:
        """Have another replica say this and nothing else, or nothing any more; the nodes it is or was about."""
        before = self.others.pop(replica, None)
        if source is not None:
            self.others[replica] = source
        return {node for each in (before, source) if each is not None for node in each.nodes}

    def lost(self, replica: str) -> None:
        """A replica is not heard any more: its last word counts only where no proxy is connected elsewhere."""
        if replica in self.others:
            self.others[replica].connected.clear()

    def restarted(self, node: str) -> None:
        """A new process with nothing in it took the place of the node's proxy here."""
        self.own.restarted(node)
        if not any(node in source.connected for source in self.others.values()):
            self._agreed.pop(node, None)
            self._inside.pop(node, None)

    def forget(self, node: str) -> None:
        """The Gateway is gone."""
        self.own.forget(node)
        for of_node in (self._agreed, self._inside, self._outdated):
            of_node.pop(node, None)
        self._versions = {key: known for key, known in self._versions.items() if key[0] != node}

    def rejected(self, node: str) -> Refusals:
        """What the node's proxies refuse at present."""
        outdated = self._outdated.get(node, ())
        found = {
            name: refusal
            for source in self.others.values()
            for name, refusal in source.refused.get(node, {}).items()
            if name not in outdated
        }
        return found | self.own.refused.get(node, {})

    @property
    def nodes_with_rejections(self) -> tuple[str, ...]:
        """Nodes whose proxies refuse something at present."""
        if not self.others and not self.own.refused:
            return ()
        return tuple(sorted({node for source in self._sources for node, names in source.refused.items() if names}))

    def drop_outdated(self, node: str, desired: Mapping[ResourceName, str]) -> None:
        """Leave refusals of versions that are not wanted out. Those of others may be of what is wanted here next."""
        self.own.drop_outdated(node, desired)
        self._outdated[node] = {
            name
            for source in self.others.values()
            for name, (version, _) in source.refused.get(node, {}).items()
            if desired.get(name) != version
        }

    def port_state(self, node: str, listener: str, body: bytes | None, inside: int = 0) -> PortProgrammed:
        """Where the Listener of a port stands, `body` being the one that is wanted.

        `inside`: so many bytes of it come before the matcher (0: there is none). A proxy that had the same inside goes
        on serving while the matcher changes; who comes or goes by that is told of by its own filter chain.
        """
        if body is None:
            return PortProgrammed(state="Pending", message="nothing is configured for this port yet")
        state = self.state(node, (LDS, listener), body)
        if not inside:
            return state
        version = self._version((node, listener, "inside"), body, inside)
        if state.state == "Programmed":
            self._inside.setdefault(node, {})[listener] = version
        elif state.state == "Pending" and self._inside.get(node, {}).get(listener) == version:
            return PortProgrammed(state="Programmed", message="")
        return state

    def _version(self, key: tuple[str, str, str], body: bytes, length: int) -> str:
        """The version of the first `length` bytes. It is asked for in every turn, and a Listener may be half a MB."""
        known = self._versions.get(key)
        if known is None or known[0] is not body or known[1] != length:
            known = self._versions[key] = body, length, version_of(body[:length])
        return known[2]

    def state(self, node: str, name: ResourceName, body: bytes) -> PortProgrammed:
        """Where a Listener or a filter chain stands."""
        version = self._version((node, name[1], "whole"), body, len(body)) if name[0] == LDS else version_of(body)
        for source in (self.own, *self.others.values()):
            refusal = source.refused.get(node, {}).get(name)
            if refusal is not None and refusal[0] == version:
                return PortProgrammed(state="Rejected", message=refusal[1])
        if self._is_programmed(node, name, version):
            self._agreed.setdefault(node, {})[name] = version
            return PortProgrammed(state="Programmed", message="")
        self._agreed.get(node, {}).pop(name, None)
        return PortProgrammed(state="Pending", message="the proxy has not acknowledged it yet")

    def _is_programmed(self, node: str, name: ResourceName, version: str) -> bool:
        if not self.others:
            return self.own.complete.get(node, {}).get(name) == version
        speaking = [source for source in self._sources if node in source.connected]
        found = [_version_at(source, node, name, version) for source in speaking or self._sources]
        if not speaking:
            return version in found
        if self._agreed.get(node, {}).get(name) == version:
            found = [each for each in found if each is not None]
        return all(each == version for each in found)


def rejection_findings(
    rejected: Mapping[ResourceName, tuple[str, str]],
    origins: Mapping[ResourceName, tuple[api.ObjectRef, ...]],
) -> dict[api.ObjectRef, tuple[Finding, ...]]:
    """Tell every refusal to the objects that caused the resource."""
    found: dict[api.ObjectRef, dict[Finding, None]] = {}
    for name, (_, message) in sorted(rejected.items()):
        finding = Finding("Programmed", "Invalid", f"Envoy refused {name[0].rpartition('.')[2]} {name[1]}: {message}")
        for origin in origins.get(name, ()):
            found.setdefault(origin, {})[finding] = None
    return {ref: tuple(findings) for ref, findings in found.items()}


def merge_findings(
    several: Iterable[Mapping[api.ObjectRef, tuple[Finding, ...]]],
) -> dict[api.ObjectRef, tuple[Finding, ...]]:
    """Findings of several nodes by object."""
    merged: dict[api.ObjectRef, tuple[Finding, ...]] = {}
    for findings in several:
        for ref, found in findings.items():
            merged[ref] = tuple(dict.fromkeys((*merged.get(ref, ()), *found)))
    return merged


def _version_at(source: Source, node: str, name: ResourceName, wanted: str) -> str | None:
    found = source.complete.get(node, {}).get(name)
    return found if source.compares or found is None else wanted


def _put(by_node: dict[str, dict[ResourceName, Any]], node: str, name: ResourceName, value: Any) -> None:
    """Set one entry, None for none, and keep no empty ones."""
    if value is not None:
        by_node.setdefault(node, {})[name] = value
    elif node in by_node:
        by_node[node].pop(name, None)
        if not by_node[node]:
            del by_node[node]


__all__ = ["Acknowledgements", "NodeSaid", "OwnSource", "Source", "merge_findings", "rejection_findings"]
