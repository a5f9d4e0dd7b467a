"""Where Envoy does something else than the Graph says. Pure."""

from collections.abc import Iterator

import msgspec

from propylon.testing.expectations import joined, plausible, rule_text, where
from propylon.testing.model import Answer, Pairs, Way

_OF_THE_WIRE = frozenset(
    {"connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade", "via", "user-agent"}
)
"""Headers of one connection, and such as every hop may write (RFC 9110 7.6)."""


def disagreements(graph: Answer, envoy: Answer, sent: Pairs) -> tuple[str, ...]:
    """What the engines do not say alike; `sent` are the headers of the request, by names in lower case."""
    out: list[str] = []
    if envoy.route is not None and (graph.route, graph.rule) != (envoy.route, envoy.rule):
        out.append(f"rule: {rule_text(graph)} by the Graph, {rule_text(envoy)} by Envoy")
    said = _grouped(graph.ways)
    happened: dict[Way, float] = {}
    for way in envoy.ways:
        match = next((each for each in said if not any(_differences(each, way, sent))), None)
        if match is None:
            out.extend(_unlike(list(said), way, sent))
        else:
            happened[match] = happened.get(match, 0.0) + way.share
    if not out and len(said) > 1:
        for way, share in said.items():
            if not plausible(happened.get(way, 0.0), share, envoy.samples):
                found = 100 * happened.get(way, 0.0)
                out.append(
                    f"share of {where(way)}: {100 * share:.3g} % by the Graph, {found:.3g} % of {envoy.samples} "
                    "requests by Envoy"
                )
    return tuple(out)


def _grouped(ways: tuple[Way, ...]) -> dict[Way, float]:
    """Ways without their shares, and the shares of those that are alike added up."""
    out: dict[Way, float] = {}
    for way in ways:
        bare = msgspec.structs.replace(way, share=0.0, note="")
        out[bare] = out.get(bare, 0.0) + way.share
    return out


def _unlike(said: list[Way], way: Way, sent: Pairs) -> Iterator[str]:
    """How a way that happened differs from the one of those said that leads to the same place, or from all."""
    near = next((each for each in said if where(each) == where(way)), None)
    if near is None:
        yield f"{' or '.join(dict.fromkeys(map(where, said)))} by the Graph, {where(way)} by Envoy"
        return
    for what, graph, envoy in _differences(near, way, sent):
        yield f"{what} for {where(way)}: {graph} by the Graph, {envoy} by Envoy"


def _differences(said: Way, way: Way, sent: Pairs) -> Iterator[tuple[str, str, str]]:
    for what in ("outcome", "backend", "location"):
        if getattr(said, what) != getattr(way, what):
            yield what, getattr(said, what) or "none", getattr(way, what) or "none"
    of_bytes = said.outcome == "forwarded" and said.path is None
    for what in ("status", "grpc_status"):
        if not of_bytes and getattr(said, what) != getattr(way, what):
            yield what, str(getattr(said, what)), str(getattr(way, what))
    if said.path is None or way.path is None:
        return
    for what in ("path", "host"):
        if getattr(said, what) != getattr(way, what):
            yield what, str(getattr(said, what)), str(getattr(way, what))
    graph, envoy = joined(said.headers or ()), joined(way.headers or ())
    for name in sorted({*graph, *(name for name, _ in sent)}):
        if not _compared(name) or graph.get(name) == envoy.get(name):
            continue
        yield f"header {name}", repr(graph.get(name)), repr(envoy.get(name))
    graph, envoy = joined(said.response_headers or ()), joined(way.response_headers or ())
    for name, value in graph.items():
        if envoy.get(name) != value:
            yield f"response header {name}", repr(value), repr(envoy.get(name))


def _compared(name: str) -> bool:
    return name not in _OF_THE_WIRE and not name.startswith(("x-forwarded-", "x-envoy-", "x-request-id"))
