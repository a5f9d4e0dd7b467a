"""Conditions as they stand in status, but for the time of their last transition."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from propylon import api
from propylon.graph.model import Finding

Document = dict[str, Any]
Outcome = Literal["True", "False", "Unknown"]

REJECTED = "propylon.dev/Programmed"
"""Condition type of our own: present (and False) on objects whose configuration Envoy refused."""
MAX_MESSAGE = 2048


class Status(dict[str, Any]):
    """A status as we want it: builtins, conditions without lastTransitionTime.

    `controllers` are the controller names whose entries in `parents` and `ancestors` are ours to write and to remove.
    """

    __slots__ = ("controllers",)

    def __init__(self, content: Document, controllers: frozenset[str] = frozenset()) -> None:
        super().__init__(content)
        self.controllers = controllers

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self, other) is True and getattr(other, "controllers", None) == self.controllers

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


class Judgement(msgspec.Struct, frozen=True):
    """A condition's status, reason and message."""

    status: Outcome
    reason: str
    message: str

    def condition(self, kind: str, generation: int) -> Document:
        """Return the condition of this type."""
        return {
            "type": kind,
            "status": self.status,
            "reason": self.reason,
            "message": self.message[:MAX_MESSAGE],
            "observedGeneration": generation,
        }


def judge(findings: Iterable[Finding], condition: str, good: str, message: str) -> Judgement:
    """Sum up the findings about a condition: the first one gives the reason, all of them the message.

    Without any the condition is True, with reason `good` and the message given. Findings that are not False give way
    to those that are.
    """
    relevant = [f for f in findings if f.condition == condition]
    if not relevant:
        return Judgement("True", good, message)
    relevant.sort(key=lambda f: f.status != "False")
    first = relevant[0]
    same = [f for f in relevant if f.status == first.status]
    return Judgement(first.status, first.reason, joined(same))


def joined(findings: Iterable[Finding]) -> str:
    """Put the messages of findings into one line, each with the field it is about."""
    lines = dict.fromkeys(f"{f.field}: {f.message}" if f.field else f.message for f in findings)
    return "; ".join(lines)


def reference(ref: api.ParentReference) -> Document:
    """Return a parentRef or ancestorRef as a document; only what was given, and the defaults."""
    document: Document = {"group": ref.group, "kind": ref.kind, "name": ref.name}
    if ref.namespace is not None:
        document["namespace"] = ref.namespace
    if ref.section_name is not None:
        document["sectionName"] = ref.section_name
    if ref.port is not None:
        document["port"] = ref.port
    return document
