"""pytest: the fixture `gateway`, and RouteTests as tests where that is asked for (`--propylon`, or `propylon = true`).

Loaded by every pytest that has propylon installed, so it imports nothing of it before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from propylon.explain import Explanation
    from propylon.testing.fluent import Gateway
    from propylon.testing.model import Case, Result, RouteTest
    from propylon.testing.run import Runner
    from propylon.testing.site import Site

ENGINES = ("graph", "envoy", "both")
_SUFFIXES = (".yaml", ".yml", ".json")
_STATE: pytest.StashKey[_State] = pytest.StashKey()


class _State:
    """The manifests that are asked in one run of pytest. They are read once, and Envoys are started once."""

    def __init__(self, config: pytest.Config) -> None:
        self.engine: Any = config.getoption("propylon_engine") or config.getini("propylon_engine") or "graph"
        if self.engine not in ENGINES:
            raise pytest.UsageError(f"propylon_engine is {self.engine!r}, and not one of {', '.join(ENGINES)}")
        self._runner: Runner | None = None
        self._sites: dict[object, Site] = {}

    @property
    def runner(self) -> Runner:
        """Runs RouteTests."""
        from propylon.testing.run import Runner  # noqa: PLC0415

        if self._runner is None:
            self._runner = Runner(self.engine)
        return self._runner

    def site(self, paths: tuple[str, ...], options: dict[str, Any]) -> Site:
        """The manifests of the fixture."""
        from propylon.app.offline import load  # noqa: PLC0415
        from propylon.testing.site import Site  # noqa: PLC0415

        key = (paths, repr(sorted(options.items())))
        if key not in self._sites:
            self._sites[key] = Site(lambda: load(*paths, **options), self.engine)
        return self._sites[key]

    def coverage(self) -> Any:
        """What was reached, of all manifests that were asked; None if none were."""
        from propylon.testing.site import coverage_of  # noqa: PLC0415

        sites = [*self._sites.values(), *(self._runner.sites if self._runner is not None else ())]
        return coverage_of(sites) if sites else None

    def close(self) -> None:
        """End what was started."""
        for site in self._sites.values():
            site.close()
        if self._runner is not None:
            self._runner.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini-file settings."""
    group = parser.getgroup("propylon", "tests of routing")
    group.addoption("--propylon", action="store_true", help="Collect RouteTests from YAML and JSON files.")
    group.addoption(
        "--propylon-engine",
        choices=ENGINES,
        default=None,
        help="Who is asked: the Graph, real Envoy, or both, which must agree. Default: graph.",
    )
    group.addoption("--propylon-coverage", action="store_true", help="List the matches that no test reaches.")
    parser.addini("propylon", "Collect RouteTests.", type="bool", default=False)
    parser.addini("propylon_engine", "graph, envoy or both.", default="")


def _state(config: pytest.Config) -> _State:
    if _STATE not in config.stash:
        config.stash[_STATE] = _State(config)
    return config.stash[_STATE]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started."""
    if _STATE in config.stash:
        config.stash[_STATE].close()


# --- the fixture ------------------------------------------------------------------------------------------------------


def render(explanation: Explanation) -> str:
    """An explanation as `propylon explain` prints it."""
    from propylon.app.offline import as_document  # noqa: PLC0415
    from propylon.cli.explain import render as render_document  # noqa: PLC0415

    return render_document(as_document(explanation))


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest) -> Callable[..., Gateway]:
    """Manifests to be asked: `gateway("manifests/").get("https://shop.example.com/cart").routed_to("shop/cart:80")`.

    Takes paths, relative to pytest's root directory, and the options of `propylon.load` (`variables`, `dev_certs`...).
    """
    state, root = _state(request.config), request.config.rootpath

    def open_gateway(*paths: str | Path, **options: Any) -> Gateway:
        from propylon.testing.fluent import Gateway  # noqa: PLC0415

        return Gateway(state.site(tuple(str(root / path) for path in paths or (".",)), options), render)

    return open_gateway


# --- RouteTests -------------------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take files that have RouteTests in them, where that was asked for."""
    config = parent.config
    if not (config.getoption("propylon") or config.getini("propylon")) or file_path.suffix not in _SUFFIXES:
        return None
    try:
        text = file_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return RouteTestFile.from_parent(parent, path=file_path) if "RouteTest" in text else None


class RouteTestFile(pytest.File):
    """A file with RouteTests."""

    def collect(self) -> Iterable[RouteTestItem]:
        """Its cases."""
        from propylon.testing.finding import find_tests  # noqa: PLC0415

        found = find_tests([str(self.path)])
        if found.problems:
            raise self.CollectError("\n".join(map(str, found.problems)))
        for test in found.tests:
            for case in test.cases:
                yield RouteTestItem.from_parent(self, name=f"{test.name}: {case.name}", test=test, case=case)


class RouteTestItem(pytest.Item):
    """One case of a RouteTest."""

    def __init__(self, *, test: RouteTest, case: Case, **options: Any) -> None:
        super().__init__(**options)
        self.test = test
        self.case = case

    def runtest(self) -> None:
        """Ask, and compare."""
        from propylon.testing.run import run_case  # noqa: PLC0415

        site = _state(self.config).runner.site(self.test)
        results = [run_case(site, self.test, self.case, request) for request in self.case.requests]
        wrong = [result for result in results if result.verdict != "passed"]
        if wrong:
            raise RouteTestFailure(wrong)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Why it failed, with the explanation; no traceback."""
        from propylon.app.configuration import ConfigurationError  # noqa: PLC0415

        if isinstance(excinfo.value, RouteTestFailure):
            return str(excinfo.value)
        if isinstance(excinfo.value, ConfigurationError | OSError):
            return f"the manifests cannot be read: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.path, self.case.place.line - 1, self.name


class RouteTestFailure(Exception):  # noqa: N818 - a failed test, not an error
    """Requests that did not do what was expected."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__("\n\n".join(_why(result) for result in results))


def _why(result: Result) -> str:
    from propylon.testing.formats import failure_lines  # noqa: PLC0415

    lines = [f"{result.place.file}:{result.place.line}: {result.case}", *failure_lines(result)]
    if result.explanation is not None:
        lines += ["", render(result.explanation)]
    return "\n".join(lines)


# --- coverage ---------------------------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which matches no test reaches."""
    if not config.getoption("propylon_coverage") or _STATE not in config.stash:
        return
    coverage = config.stash[_STATE].coverage()
    if coverage is None:
        return
    for line in _coverage_lines(coverage):
        terminalreporter.write_line(line)


def _coverage_lines(coverage: Any) -> Iterator[str]:
    from propylon.testing.formats import coverage_text, match_line  # noqa: PLC0415

    yield f"propylon {coverage_text(coverage)}"
    for match in coverage.missed:
        place = f"{match.place.file}:{match.place.line}: " if match.place else ""
        yield f"  no test reaches {place}{match_line(match)}"
