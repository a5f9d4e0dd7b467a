"""What every object carries: metadata, conditions, selectors, and the names by which one object speaks of another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple, Protocol

from msgspec import field

from propylon.api.schema import NOT_DEFAULTED, QUALIFIED_NAME_PATTERN, Constraint, Model, atomic, keyed, one_of

LAST_APPLIED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
"""Written by `kubectl apply`; left out of decoded objects."""

EPOCH = "1970-01-01T00:00:00Z"


class ObjectKey(NamedTuple):
    """An object among its own kind. `namespace` is "" for a cluster-scoped one."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ObjectRef(NamedTuple):
    """An object among all objects. `group` is "" for the core group, `namespace` "" for a cluster-scoped kind."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> ObjectKey:
        """The object among its own kind."""
        return ObjectKey(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


_Text = Annotated[str, Constraint(min_length=1)]
_Finalizer = Annotated[
    str, Constraint(pattern=f"^{QUALIFIED_NAME_PATTERN}$", says='must be a name, maybe after a DNS subdomain and "/"')
]
_Integer = Annotated[int, Constraint(format="int64")]
_Time = Annotated[str, Constraint(format="time")]


class OwnerReference(Model, frozen=True):
    """The object this one goes away with."""

    api_version: Annotated[
        str, Constraint(pattern="^([^/]*/)?[^/]+$", min_length=1, says='must be like "v1" or "apps/v1"')
    ]
    kind: _Text
    name: _Text
    uid: _Text
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model, frozen=True):
    """Name, identity and bookkeeping of an object, without `managedFields`."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: _Integer = 0
    resource_version: str = ""
    creation_timestamp: _Time = ""
    deletion_timestamp: _Time | None = None
    deletion_grace_period_seconds: _Integer | None = None
    generate_name: str = ""
    self_link: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[_Finalizer, ...] = ()


class Condition(Model, frozen=True):
    """One observation about an object: its type, whether it holds, and why."""

    type: Annotated[
        str,
        Constraint(
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            max_length=316,
        ),
    ]
    status: Annotated[str, one_of("True", "False", "Unknown")]
    reason: Annotated[
        str, Constraint(pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024)
    ]
    message: Annotated[str, Constraint(max_length=32768)]
    last_transition_time: Annotated[str, Constraint(format="date-time")]
    observed_generation: Annotated[int | None, Constraint(minimum=0, format="int64")] = None


def waiting_for_controller(condition_type: str) -> Condition:
    """The condition that the CRDs put on a new object until a controller looks at it."""
    return Condition(condition_type, "Unknown", "Pending", "Waiting for controller", EPOCH)


Conditions = Annotated[tuple[Condition, ...], keyed("type", max=8)]


class LabelSelectorRequirement(Model, frozen=True):
    """One demand on a label: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: Annotated[tuple[str, ...], atomic()] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet the demand; an unknown operator is met by none."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
        return False


class LabelSelector(Model, frozen=True):
    """Demands on labels, all of which must be met; without any, everything matches."""

    match_labels: dict[str, str] = field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], atomic()] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet every demand."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class Object(Protocol):
    """Any decoded object."""

    @property
    def api_version(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def metadata(self) -> ObjectMeta: ...  # noqa: D102


@lru_cache(maxsize=1024)  # every write and every event asks, some ten times
def group_of(api_version: str) -> str:
    """The group of an apiVersion: `apps/v1` -> `apps`, `v1` -> ``."""
    group, slash, _ = api_version.partition("/")
    return group if slash else ""


def key_of(obj: Object) -> ObjectKey:
    """The object's key."""
    return ObjectKey(obj.metadata.namespace, obj.metadata.name)


def ref_of(obj: Object) -> ObjectRef:
    """The object's reference."""
    return ObjectRef(group_of(obj.api_version), obj.kind, obj.metadata.namespace, obj.metadata.name)


__all__ = [
    "EPOCH",
    "LAST_APPLIED_ANNOTATION",
    "NOT_DEFAULTED",
    "Condition",
    "Conditions",
    "LabelSelector",
    "LabelSelectorRequirement",
    "Object",
    "ObjectKey",
    "ObjectMeta",
    "ObjectRef",
    "OwnerReference",
    "group_of",
    "key_of",
    "ref_of",
    "waiting_for_controller",
]
