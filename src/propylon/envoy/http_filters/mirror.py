"""RequestMirror: copies of requests, their answers thrown away."""

from collections.abc import Iterable
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.type.v3 import percent_pb2

from propylon.envoy import names
from propylon.graph.model import Filter, Mirror

MILLION = 1_000_000


def build_mirror_policies(filters: Iterable[Filter]) -> list[Any]:
    """RequestMirrorPolicy per mirror that leads somewhere; one that does not is ignored (its status tells).

    The copy carries the Host that was asked for, without Envoy's "-shadow".
    """
    return [
        route_pb.RouteAction.RequestMirrorPolicy(
            cluster=names.cluster(each.backend.cluster),
            runtime_fraction={"default_value": fraction(each.numerator, each.denominator)},
            disable_shadow_host_suffix_append=True,
        )
        for each in filters
        if isinstance(each, Mirror) and each.backend.cluster is not None
    ]


def fraction(numerator: int, denominator: int) -> Any:
    """A FractionalPercent in millionths, the finest grain that Envoy has."""
    share = round(MILLION * numerator / denominator)
    return percent_pb2.FractionalPercent(
        numerator=max(0, min(MILLION, share)), denominator=percent_pb2.FractionalPercent.MILLION
    )
