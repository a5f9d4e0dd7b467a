"""Ports that cannot be bound are found before a proxy is told to bind them.

Envoy binds with SO_REUSEPORT: a port that somebody else shares in the same way would be split silently, and two
Gateways of ours on one address would steal each other's connections. So a Listener is held back until its port is free.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import NamedTuple

from propylon import api
from propylon.app.addresses import Obstacle, port_obstacle
from propylon.app.report import Problem
from propylon.envoy import names
from propylon.graph.assembled import Assembled
from propylon.graph.model import BoundPort, Port, PortKey
from propylon.incremental import Collection
from propylon.xds import LDS, ResourceName

Node = api.ObjectKey
Place = tuple[str, int, str]
"""Address, port, transport."""


class Review(NamedTuple):
    """What a review changed: names of Listeners that may be sent after all, by Gateway."""

    released: dict[Node, list[str]]


class PortGuard:
    """Knows which ports are held back and why."""

    def __init__(self, probe: Callable[[str, int, str], Obstacle | None] = port_obstacle) -> None:
        self._probe = probe
        self._obstacles: dict[PortKey, str] = {}
        self._bound: dict[PortKey, tuple[Place, ...]] = {}
        self._claims: dict[Place, PortKey] = {}
        self._trusted: set[str] = set()

    def trust(self, node: str) -> None:
        """The node's proxy was adopted: it holds its ports already, and they must not be probed."""
        self._trusted.add(node)

    def forget(self, node: Node) -> None:
        """The Gateway is gone."""
        self._trusted.discard("/".join(node))
        for key in [k for k in (*self._bound, *self._obstacles) if k.gateway == node]:
            self._release(key)

    @property
    def waiting(self) -> bool:
        """Whether any port is held back."""
        return bool(self._obstacles)

    def obstacle(self, key: PortKey) -> str | None:
        """Why a port is held back."""
        return self._obstacles.get(key)

    def holds(self, node: Node, name: ResourceName) -> bool:
        """Whether this resource is the Listener of a port that is held back."""
        return name[0] == LDS and any(k.gateway == node and names.listener(k) == name[1] for k in self._obstacles)

    def review(
        self,
        ports: Collection[PortKey, BoundPort],
        changes: Mapping[Node, MutableMapping[ResourceName, bytes | None]],
        *,
        retry: bool,
    ) -> Review:
        """Look at the ports whose Listeners changed, and with `retry` at those that were held back before."""
        released: dict[Node, list[str]] = {}
        touched = {(node, name) for node, resources in changes.items() for (kind, name) in resources if kind == LDS}
        if not touched and not retry:
            return Review(released)
        for key in [k for k in (*self._bound, *self._obstacles) if ports.get(k) is None]:
            self._release(key)
        waiting = set(self._obstacles)
        for key, port in ports.items():
            if (key.gateway, names.listener(key)) in touched or (retry and key in waiting):
                self._look(key, port)
                if key in waiting and key not in self._obstacles:
                    released.setdefault(key.gateway, []).append(names.listener(key))
        return Review(released)

    def _look(self, key: PortKey, port: BoundPort) -> None:
        places = tuple((address, port.bound_port, key.transport) for address in port.addresses)
        if self._bound.get(key) == places:
            return
        self._release(key)
        for place in places:
            other = self._claims.get(place)
            if other is not None:
                name = "/".join(other.gateway)
                self._obstacles[key] = f"port {place[1]} of {place[0]} belongs to Gateway {name}: use another address"
                return
        if "/".join(key.gateway) not in self._trusted:
            for place in places:
                if (obstacle := self._probe(*place)) is not None:
                    self._obstacles[key] = obstacle.message
                    return
        self._bound[key] = places
        self._claims.update(dict.fromkeys(places, key))

    def _release(self, key: PortKey) -> None:
        self._obstacles.pop(key, None)
        for place in self._bound.pop(key, ()):
            self._claims.pop(place, None)

    def problems(
        self, ports: Assembled[PortKey, Port], locate: Callable[[api.ObjectRef, str], tuple[str, int, int]]
    ) -> Iterable[Problem]:
        """One per listener whose port is held back."""
        for key, message in sorted(self._obstacles.items()):
            port = ports.get(key)
            for listener in port.listeners if port is not None else ():
                holder = listener.key
                ref = api.ObjectRef(api.GATEWAY_GROUP, holder.kind, holder.namespace, holder.name)
                field = f"spec.listeners[{listener.index}].port"
                yield Problem(
                    "error", *locate(ref, field), f"{holder.kind} {holder.namespace}/{holder.name}", field, message
                )
