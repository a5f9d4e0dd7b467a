"""A set of manifests that is asked, by one engine or by both."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from propylon.app.offline import Manifests
from propylon.explain import Explanation, Request
from propylon.explain.request import parse
from propylon.explain.walk import Settings
from propylon.testing.agreement import disagreements
from propylon.testing.coverage import Coverage, Key, Match, coverage, key_of, matches_of
from propylon.testing.expectations import unmet
from propylon.testing.graph_engine import graph_answer
from propylon.testing.model import Answer, EngineError, Expectation, Unmet

if TYPE_CHECKING:
    from propylon.testing.envoy_engine import EnvoyEngine

Engine = Literal["graph", "envoy", "both"]
SAMPLES = 200
"""Requests that Envoy is sent where the Graph says that they go several ways."""


class Asked(msgspec.Struct, frozen=True):
    """A request, why the Graph answers as it does, and what each engine that was asked answers."""

    request: Request
    explanation: Explanation
    answers: tuple[Answer, ...]
    disagreements: tuple[str, ...] = ()

    def unmet(self, expect: Expectation) -> tuple[Unmet, ...]:
        """What does not hold, by any of the engines."""
        return tuple(each for answer in self.answers for each in unmet(expect, answer))


class Site:
    """Manifests and their engines. Envoy is started with the first request that it is asked; to be closed."""

    def __init__(self, open_manifests: Callable[[], Manifests], engine: Engine, samples: int = SAMPLES) -> None:
        """`open_manifests` is called again for Envoy. Raises what it raises."""
        self.manifests = open_manifests()
        self.engine: Engine = engine
        self._open = open_manifests
        self._samples = samples
        self._envoy: EnvoyEngine | EngineError | None = None
        known = any(True for _ in self.manifests.sources.endpoint_slices)
        self._settings = Settings(locate=self.manifests.source.locate, endpoints_known=known)
        self.matches: dict[Key, Match] = matches_of(self.manifests.graph, self.manifests.source.locate)
        self.reached: set[Key] = set()

    def close(self) -> None:
        """End what was started."""
        if self._envoy is not None and not isinstance(self._envoy, EngineError):
            self._envoy.close()
        self._envoy = None

    def ask(self, request: Request) -> Asked:
        """Ask the engines. Raises ExplainError, EngineError."""
        graph, explanation = graph_answer(self.manifests.graph, request, self._settings)
        if explanation.winner is not None:
            self.reached.add(key_of(explanation.winner))
        if self.engine == "graph":
            return Asked(request, explanation, (graph,))
        ways = {msgspec.structs.replace(way, share=0.0, note="") for way in graph.ways}
        envoy = self._started().answer(request, self._samples if len(ways) > 1 else 1)
        differ = disagreements(graph, envoy, parse(request).headers) if self.engine == "both" else ()
        if envoy.route is None:  # Envoy names the rules that answered; of all else only the Graph can tell
            envoy = msgspec.structs.replace(envoy, route=graph.route, rule=graph.rule, rule_name=graph.rule_name)
        return Asked(request, explanation, (graph, envoy) if self.engine == "both" else (envoy,), differ)

    def _started(self) -> "EnvoyEngine":
        if self._envoy is None:
            from propylon.testing.envoy_engine import EnvoyEngine  # noqa: PLC0415 - the Graph needs none of its libraries

            try:
                self._envoy = EnvoyEngine(self._open())
            except EngineError as error:
                self._envoy = error
            except OSError as error:
                self._envoy = EngineError(f"Envoy cannot be run: {error}")
        if isinstance(self._envoy, EngineError):
            raise self._envoy
        return self._envoy


def coverage_of(sites: Sequence[Site]) -> Coverage:
    """What was reached of some manifests so far."""
    return coverage((site.matches for site in sites), ((site.matches, key) for site in sites for key in site.reached))
