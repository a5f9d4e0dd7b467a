"""What one node's proxies should have: the desired resources, and what is known to work or to be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

import msgspec

from propylon.xds.events import ResourceName
from propylon.xds.framing import resource_head


class Resource(msgspec.Struct, frozen=True):
    """A serialized resource. `version` is a hash of the desired `body`; `epoch` counts the updates of its world."""

    version: str
    body: bytes
    epoch: int
    head: bytes
    """What goes before the body in a response, to whichever proxy."""


def version_of(body: bytes) -> str:
    """Return the version of a serialized resource: equal bytes, equal version, in every process."""
    return blake2b(body, digest_size=8).hexdigest()


MANY = 1000
"""On-demand resources up to which all are sent unasked: then nothing has to be asked for, whoever is reachable."""


class World:
    """The desired state of a node, shared by its streams.

    `complete` turns true with the first update that says so and stays: until then proxies that have something are sent
    nothing, because what is missing might only not be known yet, and others only what the rest will refer to. `good`
    holds the last version any proxy of the node acknowledged; `rejected` the desired versions that were refused, with
    Envoy's message.

    Resources that are `on_demand` are not sent unasked while there are many of them: such a proxy asks by name when it
    needs one. What a proxy has it is kept up to date with all the same.
    """

    def __init__(self, on_demand: Callable[[ResourceName], bool] = lambda _name: False, many: int = MANY) -> None:
        self._on_demand = on_demand
        self._many = many
        self.on_demand: set[ResourceName] = set()
        """The desired ones that a proxy can ask for itself."""
        self.complete = False
        self.epoch = 0
        self.desired: dict[str, dict[str, Resource]] = {}
        self.good: dict[ResourceName, Resource] = {}
        self.rejected: dict[ResourceName, tuple[str, str]] = {}
        self.unrecorded: set[ResourceName] = set()
        """Names that a proxy may run without telling so when it reconnects."""

    def update(self, changes: Mapping[ResourceName, bytes | None], *, complete: bool = False) -> list[ResourceName]:
        """Apply a delta (None removes) and return the names that really changed."""
        self.epoch += 1
        self.complete = self.complete or complete
        touched: list[ResourceName] = []
        for name, body in changes.items():
            resources = self.desired.setdefault(name[0], {})
            old = resources.get(name[1])
            if body is None:
                if old is not None:
                    del resources[name[1]]
                    self.on_demand.discard(name)
                    self.good.pop(name, None)
                    self.rejected.pop(name, None)
                    touched.append(name)
                continue
            if old is not None and (old.body is body or old.body == body):
                continue
            if old is None and self._on_demand(name):
                self.on_demand.add(name)
            version = version_of(body)
            resources[name[1]] = Resource(version, body, self.epoch, resource_head(*name, version, len(body)))
            if name in self.rejected and self.rejected[name][0] != version:
                del self.rejected[name]
            touched.append(name)
        return touched

    @property
    def is_reticent(self) -> bool:
        """Whether on-demand resources go to those who ask alone. Until the world is complete they are not counted."""
        return not self.complete or len(self.on_demand) > self._many

    def is_kept_back(self, name: ResourceName) -> bool:
        """Whether a resource is not to be sent unasked."""
        return name in self.on_demand and self.is_reticent

    def get(self, type_url: str, name: str) -> Resource | None:
        """Return the desired resource."""
        return self.desired.get(type_url, {}).get(name)

    def accept(self, name: ResourceName, resource: Resource) -> None:
        """Remember that a proxy of this node runs `resource`."""
        self.good[name] = resource
        if name in self.rejected and self.rejected[name][0] == resource.version:
            del self.rejected[name]

    def reject(self, name: ResourceName, version: str, message: str) -> None:
        """Remember that a proxy of this node refused `version`."""
        desired = self.get(*name)
        if desired is not None and desired.version == version:
            self.rejected[name] = (version, message)
