"""What two sets of objects do differently: requests whose answer changes, conditions that would change, objects. Pure.

Contract: `compare(before, after)` finds requests by the union of the predicates of both sides and asks both Graphs
with the walk of `explain`. Hosts whose virtual hosts are alike are not asked: they answer alike. Imports `api`,
`graph` and `explain`.
"""

from propylon.diff.answers import Side
from propylon.diff.compare import REQUESTS, World, compare
from propylon.diff.model import Aspect, Change, ConditionChange, Difference, Example, ObjectChange

__all__ = [
    "REQUESTS",
    "Aspect",
    "Change",
    "ConditionChange",
    "Difference",
    "Example",
    "ObjectChange",
    "Side",
    "World",
    "compare",
]
