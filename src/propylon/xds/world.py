"""What one node's proxies should have: the desired resources, and what is known to work or to be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from propylon.xds.endpoints import endpoints_of
from propylon.xds.events import ResourceName
from propylon.xds.framing import resource_head


class Resource:
    """A serialized resource. `version` is a hash of the desired `body`; `epoch` counts the updates of its world.

    Version and head are made when they are first asked for: of thousands that are on demand, that may be never.
    """

    __slots__ = ("body", "epoch", "head", "name", "version")

    name: ResourceName
    body: bytes
    epoch: int
    version: str
    head: bytes
    """What goes before the body in a response, to whichever proxy."""

    def __init__(self, name: ResourceName, body: bytes, epoch: int) -> None:
        self.name = name
        self.body = body
        self.epoch = epoch

    def __getattr__(self, attribute: str) -> str | bytes:
        """Fill a slot that is empty yet."""
        if attribute == "version":
            self.version = version_of(self.body)
            return self.version
        if attribute == "head":
            self.head = resource_head(*self.name, self.version, len(self.body))
            return self.head
        raise AttributeError(attribute)

    def with_body(self, body: bytes) -> Resource:
        """Return another body under the same version, for a proxy that is to be told the same in other words."""
        other = Resource(self.name, body, self.epoch)
        other.version = self.version
        return other


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

    def __init__(
        self,
        on_demand: Callable[[ResourceName], bool] = lambda _name: False,
        many: int = MANY,
        awaits: Callable[[str, bytes], str] = endpoints_of,
    ) -> None:
        self._on_demand = on_demand
        self._many = many
        self.awaits = awaits
        """The name of the endpoints that a cluster waits for, by its name and body."""
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
        rejected, known_type, resources = self.rejected, "", {}
        for name, body in changes.items():
            type_url, short = name
            if type_url is not known_type:  # one type after the other, as a rule
                known_type, resources = type_url, self.desired.setdefault(type_url, {})
            old = resources.get(short)
            if body is None:
                if old is not None:
                    del resources[short]
                    self.on_demand.discard(name)
                    self.good.pop(name, None)
                    rejected.pop(name, None)
                    touched.append(name)
                continue
            if old is not None and (old.body is body or old.body == body):
                continue
            if old is None and self._on_demand(name):
                self.on_demand.add(name)
            new = resources[short] = Resource(name, body, self.epoch)
            if rejected and name in rejected and rejected[name][0] != new.version:
                del rejected[name]
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
        resources = self.desired.get(type_url)
        return resources.get(name) if resources is not None else None

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
