"""Runs RouteTests and says what became of each request, and which rules were reached."""

import time
from collections.abc import Callable, Sequence

import msgspec

from propylon.app.configuration import ConfigurationError
from propylon.app.offline import Manifests, load
from propylon.explain import ExplainError, Request
from propylon.store.files import FileProblem, Severity
from propylon.testing.coverage import Coverage
from propylon.testing.finding import INVALID, Found
from propylon.testing.model import Case, EngineError, Result, RouteTest, Verdict
from propylon.testing.parsing import request_text
from propylon.testing.site import SAMPLES, Engine, Site, coverage_of


class Report(msgspec.Struct, frozen=True):
    """What became of the tests."""

    engine: Engine
    results: tuple[Result, ...]
    problems: tuple[FileProblem, ...]
    """What is wrong with RouteTests and with the manifests they are about."""
    coverage: Coverage
    seconds: float
    watched: tuple[str, ...]
    """Files and directories that the results rest on."""

    @property
    def unreadable(self) -> bool:
        """Whether a RouteTest or its manifests cannot be understood."""
        return any(each.code == INVALID and each.severity is Severity.ERROR for each in self.problems)

    @property
    def passed(self) -> bool:
        """Whether every request did what was expected."""
        return all(result.verdict == "passed" for result in self.results)


class Runner:
    """Runs tests, and keeps the manifests that several of them are about."""

    def __init__(
        self,
        engine: Engine,
        *,
        samples: int = SAMPLES,
        manifests: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        """`manifests` are asked in place of those that the tests name, if there are any."""
        self.engine: Engine = engine
        self._samples = samples
        self._manifests = tuple(manifests)
        self._variables = variables or {}
        self._sites: dict[object, Site] = {}
        self.problems: list[FileProblem] = []

    def close(self) -> None:
        """End what was started."""
        for site in self._sites.values():
            site.close()

    def site(self, test: RouteTest) -> Site:
        """The manifests of a test, read once. Raises ConfigurationError, OSError."""
        paths = self._manifests or test.manifests
        variables = {**dict(test.variables), **self._variables}
        key = (paths, tuple(sorted(variables.items())), test.dev_certs)
        if key not in self._sites:
            options = {} if test.dev_certs is None else {"dev_certs": test.dev_certs}

            def open_manifests() -> Manifests:
                return load(*paths, variables=variables, **options)

            self._sites[key] = Site(open_manifests, self.engine, self._samples)
            self.problems.extend(self._sites[key].manifests.errors)
        return self._sites[key]

    def run(self, test: RouteTest, select: str = "", on_result: Callable[[Result], None] = lambda _: None) -> None:
        """Run the cases of a test whose names have `select` in them; each result is handed on at once."""
        chosen = [case for case in test.cases if select.lower() in f"{test.name}: {case.name}".lower()]
        if not chosen:
            return
        try:
            site = self.site(test)
        except (ConfigurationError, OSError) as error:
            place = test.place
            self.problems.append(
                FileProblem(
                    place.file,
                    place.line,
                    place.column,
                    Severity.ERROR,
                    f"its manifests cannot be read: {error}",
                    "",
                    f"RouteTest {test.name}",
                    "manifests",
                    INVALID,
                )
            )
            return
        for case in chosen:
            for request in case.requests:
                on_result(run_case(site, test, case, request))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The manifests that were asked so far."""
        return tuple(self._sites.values())

    def watched(self) -> tuple[str, ...]:
        """Files and directories that the manifests were read from."""
        return tuple(
            path
            for site in self._sites.values()
            for path in (*site.manifests.source.paths, *sorted(site.manifests.loaded.watched))
        )


def run_case(site: Site, test: RouteTest, case: Case, request: Request) -> Result:
    """Ask one request, and compare."""
    began = time.perf_counter()
    name = case.name if len(case.requests) == 1 else f"{case.name} [{request_text(request)}]"
    try:
        asked = site.ask(request)
    except (ExplainError, EngineError) as error:
        return Result(
            test.name, name, case.place, request, "error", error=str(error), seconds=time.perf_counter() - began
        )
    unmet = asked.unmet(case.expect)
    verdict: Verdict = "disagreement" if asked.disagreements else "failed" if unmet else "passed"
    return Result(
        test.name,
        name,
        case.place,
        request,
        verdict,
        unmet,
        asked.disagreements,
        explanation=asked.explanation,
        seconds=time.perf_counter() - began,
    )


def run_tests(
    found: Found, runner: Runner, select: str = "", on_result: Callable[[Result], None] = lambda _: None
) -> Report:
    """Run all that was found. The runner is not closed."""
    began = time.perf_counter()
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        on_result(result)

    for test in found.tests:
        runner.run(test, select, note)
    problems = tuple(dict.fromkeys((*found.problems, *runner.problems)))
    return Report(
        runner.engine,
        tuple(results),
        problems,
        coverage_of(runner.sites),
        time.perf_counter() - began,
        tuple(dict.fromkeys((*found.files, *runner.watched()))),
    )
