"""All rules, by the place they apply to."""

from __future__ import annotations

from functools import cache

from propylon.api.schema import Channel
from propylon.api.validation.core import CORE_RULES
from propylon.api.validation.filters import FILTER_RULES
from propylon.api.validation.gateway import GATEWAY_RULES
from propylon.api.validation.policies import POLICY_RULES
from propylon.api.validation.routes import ROUTE_RULES
from propylon.api.validation.rules import Place, Rule

RULES: tuple[Rule, ...] = (*GATEWAY_RULES, *ROUTE_RULES, *FILTER_RULES, *POLICY_RULES, *CORE_RULES)
"""Every rule, Gateway API first."""


@cache
def rules_at(struct: type, field: str | None, channel: Channel) -> tuple[Rule, ...]:
    """The rules for a struct, or for one of its fields (by JSON name), that a channel has."""
    place = Place(struct, field)
    return tuple(rule for rule in RULES if place in rule.places and rule.channel in (None, channel))
