"""Everything together: behaviour, conditions, objects."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from propylon import api
from propylon.diff.answers import Side
from propylon.diff.behaviour import Comparison
from propylon.diff.model import Change, Difference, ObjectChange
from propylon.diff.objects import condition_changes, object_changes

REQUESTS = 200_000
"""So many requests are compared at most, if nothing else is said."""
_SHOWN_CAUSES = 3

Locate = Callable[[api.ObjectRef, str], tuple[str, int, int]]


class World(NamedTuple):
    """One of two sets of objects."""

    side: Side
    documents: Mapping[api.ObjectRef, Mapping[str, Any]]
    statuses: Mapping[api.ObjectRef, Any]
    locate: Locate
    live: bool = False
    """Completed by an API server: fields have values that nobody wrote."""


def compare(before: World, after: World, *, limit: int = REQUESTS) -> Difference:
    """What differs between two sets of objects, for those who send requests and for those who read status."""
    comparison = Comparison(before.side, after.side, limit)
    changes = comparison.run()
    objects = object_changes(before.documents, after.documents, partial=before.live != after.live)
    counts = comparison.counts
    kinds = {each.object: each.change for each in objects}
    refs = {str(ref): ref for ref in (*before.documents, *after.documents)}
    return Difference(
        changes=tuple(_with_causes(change, kinds) for change in changes),
        conditions=tuple(condition_changes(before.statuses, after.statuses)),
        objects=tuple(_placed(each, refs[each.object], before, after) for each in objects),
        hosts_same=counts.same,
        hosts_tried=counts.tried,
        requests=counts.requests,
        complete=counts.complete,
        unknown=tuple(sorted(comparison.unknown)),
    )


def _with_causes(change: Change, changed: Mapping[str, str]) -> Change:
    """The changed objects that speak in a change; else those that are no routes, since routes affect only their own."""
    own = [rule.partition(" rule ")[0] for rule in (change.before, change.after, *change.alike) if rule]
    named = [name for name in dict.fromkeys(own) if name in changed]
    if not named:
        text = " ".join(f"{aspect.before} {aspect.after}" for aspect in change.aspects)
        others = [name for name in changed if not name.startswith(api.ROUTE_KINDS)]
        named = [name for name in others if name in text or name.partition(" ")[2] == change.gateway] or others
    return msgspec.structs.replace(change, causes=tuple(f"{name} ({changed[name]})" for name in named[:_SHOWN_CAUSES]))


def _placed(each: ObjectChange, ref: api.ObjectRef, before: World, after: World) -> ObjectChange:
    world = before if each.change == "removed" else after
    file, line, _ = world.locate(ref, each.fields[0] if each.fields else "")
    return msgspec.structs.replace(each, place=f"{file}:{line}") if file else each
