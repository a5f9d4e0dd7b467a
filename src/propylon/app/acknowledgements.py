"""What the proxies said of what they were given, by Gateway and port: the ground of `Programmed`."""

from collections.abc import Iterable, Mapping

from propylon import api
from propylon.graph.model import Finding
from propylon.status import PortProgrammed
from propylon.xds import FCDS, LDS, Acknowledged, Disconnected, Event, Rejected, ResourceName, version_of


class Acknowledgements:
    """Follows the events of the xDS server. Pure bookkeeping: it is told, and asked.

    A port is programmed once the proxy acknowledged its Listener and, after that, had nothing left to be sent: an
    acknowledged Listener still waits for its routes and secrets.
    """

    def __init__(self) -> None:
        self._acknowledged: dict[str, dict[ResourceName, str]] = {}
        """node -> Listener or filter chain -> version that the proxy has, since it last had everything."""
        self._complete: dict[str, dict[ResourceName, str]] = {}
        """node -> Listener or filter chain -> version with which the proxy had everything."""
        self._inside: dict[str, dict[str, str]] = {}
        """node -> Listener -> version of what is inside it, when it was last asked for and programmed."""
        self._rejected: dict[str, dict[ResourceName, tuple[str, str]]] = {}
        """node -> resource -> (version, Envoy's message)."""

        self._versions: dict[tuple[str, str, str], tuple[bytes, int, str]] = {}
        """What was last computed: (node, Listener, which part of it) -> body, length of the part, version."""

    def accept(self, event: Event) -> bool:
        """Take in one event; whether anything that we are asked about may have changed."""
        if isinstance(event, Rejected):
            if event.name is not None:
                self._rejected.setdefault(event.node, {})[event.name] = (event.version, event.message)
            self._settle(event.node, event.all_settled)
            return True
        if isinstance(event, Acknowledged):
            for name, version in event.versions.items():
                self._rejected.get(event.node, {}).pop(name, None)
                if name[0] not in {LDS, FCDS}:
                    continue
                if version is None:
                    self._acknowledged.get(event.node, {}).pop(name, None)
                    self._complete.get(event.node, {}).pop(name, None)
                else:
                    self._acknowledged.setdefault(event.node, {})[name] = version
            self._settle(event.node, event.all_settled)
            return bool(event.versions) or event.all_settled
        return bool(isinstance(event, Disconnected) and event.last)

    def _settle(self, node: str, settled: bool) -> None:
        if settled:
            self._complete.setdefault(node, {}).update(self._acknowledged.pop(node, {}))

    def restarted(self, node: str) -> None:
        """A new process with nothing in it took the place of the node's proxy."""
        self._acknowledged.pop(node, None)
        self._complete.pop(node, None)
        self._inside.pop(node, None)

    def forget(self, node: str) -> None:
        """The Gateway is gone."""
        self.restarted(node)
        self._versions = {key: known for key, known in self._versions.items() if key[0] != node}
        self._rejected.pop(node, None)

    def rejected(self, node: str) -> Mapping[ResourceName, tuple[str, str]]:
        """What the node's proxies refuse at present: resource -> (version, message)."""
        return self._rejected.get(node, {})

    @property
    def nodes_with_rejections(self) -> tuple[str, ...]:
        """Nodes whose proxies refuse something at present."""
        return tuple(sorted(node for node, names in self._rejected.items() if names))

    def drop_outdated(self, node: str, desired: Mapping[ResourceName, str]) -> None:
        """Forget refusals of versions that are not wanted any more."""
        refused = self._rejected.get(node, {})
        for name in [n for n, (version, _) in refused.items() if desired.get(n) != version]:
            del refused[name]

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
        refusal = self._rejected.get(node, {}).get(name)
        if refusal is not None and refusal[0] == version:
            return PortProgrammed(state="Rejected", message=refusal[1])
        if self._complete.get(node, {}).get(name) == version:
            return PortProgrammed(state="Programmed", message="")
        return PortProgrammed(state="Pending", message="the proxy has not acknowledged it yet")


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


__all__ = ["Acknowledgements", "merge_findings", "rejection_findings"]
