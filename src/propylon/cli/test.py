"""`propylon test`: unit tests for routing."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from propylon.cli.check import variables_of
from propylon.cli.options import data_dir_unused
from propylon.cli.output import colour, emit
from propylon.explain import Explanation
from propylon.store.files import Severity
from propylon.store.files.watch import Watcher
from propylon.testing.coverage import Coverage
from propylon.testing.finding import Found, find_tests
from propylon.testing.formats import as_document, coverage_text, failure_lines, junit, match_line, summary
from propylon.testing.model import Result
from propylon.testing.run import Report, Runner, run_tests
from propylon.testing.site import SAMPLES

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
LOOK_AGAIN = 1.0
"""Seconds between two looks at the files where the system does not tell of changes."""
_WORDS = {"passed": ("passed", "green"), "failed": ("FAILED", "red"), "disagreement": ("DIFFER", "magenta")}
_NAMES = {"failed": "failed", "disagreement": "the engines disagree", "error": "could not be asked"}


class NoTestsError(Exception):
    """There is no RouteTest where they were looked for, or none of the name that is asked for."""


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option(
    "--engine",
    type=click.Choice(["graph", "envoy", "both"]),
    default=None,
    help="Who is asked: the Graph (milliseconds, the default), real Envoy, or both, which must agree.",
)
@click.option("--envoy", is_flag=True, help="Ask Envoy as well: --engine both.")
@click.option("--manifests", multiple=True, type=click.Path(), help="Test these, not those that the tests name.")
@click.option("-k", "select", default="", metavar="TEXT", help="Only tests that have TEXT in their names.")
@click.option("--coverage", is_flag=True, help="List the matches that no test reaches.")
@click.option(
    "--fail-under", type=click.FloatRange(0, 100), default=None, metavar="PERCENT", help="Fail if less is covered."
)
@click.option("--watch", is_flag=True, help="Go on, and run again whenever tests or manifests change.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "junit"]), default="text", help="How to print.")
@click.option("-q", "--quiet", is_flag=True, help="Do not name the tests that pass.")
@click.option(
    "--samples",
    type=click.IntRange(20, 100_000),
    default=SAMPLES,
    show_default=True,
    help="Requests to Envoy where they go several ways.",
)
@click.option("--var", "variables", multiple=True, callback=variables_of, metavar="NAME=VALUE", help="Fill ${NAME}.")
@data_dir_unused
def test(paths: tuple[str, ...], **options: Any) -> None:
    """Run the RouteTests in PATHS (files and directories): requests, and where they must go.

    Exit code: 0 if every request does what is expected, 1 if one does not, the engines disagree or less is covered
    than --fail-under, 2 if a RouteTest or the command line cannot be understood or there is no test.
    """
    if options["envoy"] and options["engine"] not in {None, "both"}:
        _usage(f"--envoy is --engine both, and stands beside --engine {options['engine']}")
    if options["watch"] and options["output"] != "text":
        _usage("--watch prints text: it has no end that JSON or XML could have")
    options["engine"] = "both" if options["envoy"] else options["engine"] or "graph"
    if options["watch"]:
        try:
            asyncio.run(_watch(paths, options))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
    try:
        report = run_once(paths, options)
    except (NoTestsError, FileNotFoundError) as error:
        _usage(str(error))
    sys.exit(exit_code(report, options["fail_under"]))


def _usage(message: str) -> None:
    click.echo(f"propylon test: {message}", err=True)
    sys.exit(USAGE)


def run_once(paths: Sequence[str], options: dict[str, Any]) -> Report:
    """Run and print. Raises NoTestsError, FileNotFoundError."""
    found = find_tests(paths)
    _refuse_nothing(found, options["select"], paths)
    runner = Runner(
        options["engine"],
        samples=options["samples"],
        manifests=options["manifests"],
        variables=options["variables"],
    )
    text = options["output"] == "text"
    printer = _Printer(options["quiet"]) if text else lambda _: None
    try:
        report = run_tests(found, runner, options["select"], printer)
    finally:
        runner.close()
    if text:
        click.echo(render(report, options["coverage"], options["fail_under"]))
    elif options["output"] == "json":
        emit(as_document(report), "json")
    else:
        click.echo(junit(report))
    return report


def _refuse_nothing(found: Found, select: str, paths: Sequence[str]) -> None:
    if found.problems:
        return
    if not found.tests:
        raise NoTestsError(f"there is no RouteTest in {', '.join(paths)}")
    if not any(select.lower() in f"{test.name}: {case.name}".lower() for test in found.tests for case in test.cases):
        raise NoTestsError(f"no test has {select!r} in its name")


def exit_code(report: Report, fail_under: float | None) -> int:
    """The exit code that a report leads to."""
    if report.unreadable:
        return USAGE
    return DONE if report.passed and not _too_little(report.coverage, fail_under) else FAILED


def _too_little(coverage: Coverage, fail_under: float | None) -> bool:
    return fail_under is not None and coverage.percent < fail_under


# --- for people -------------------------------------------------------------------------------------------------------


class _Printer:
    """Tells of each test as it ends."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._test = ""

    def __call__(self, result: Result) -> None:
        if self._quiet and result.verdict == "passed":
            return
        if result.test != self._test:
            self._test = result.test
            click.echo(colour(result.test, "cyan") + f"  {result.place.file}")
        word, tint = _WORDS.get(result.verdict, ("ERROR ", "red"))
        where = "" if result.verdict == "passed" else f"  {result.place.file}:{result.place.line}"
        click.echo(f"  {colour(word, tint)}  {result.case}{where}")


def render(report: Report, list_missed: bool, fail_under: float | None) -> str:
    """What follows the tests: why some failed, what is wrong with files, coverage, and the sum of it all."""
    wrong = [
        f"{colour('error', 'red')}  {problem}" for problem in report.problems if problem.severity is Severity.ERROR
    ]
    parts = ["\n".join(wrong)] if wrong else []
    told: set[str] = set()
    for result in report.results:
        if result.verdict != "passed" and result.error not in told:
            parts.append(_failure(result))
            told.update({result.error} - {""})  # an Envoy that does not run is one thing, not one for each test
    too_little = _too_little(report.coverage, fail_under)
    lines = []
    if report.results:
        text = coverage_text(report.coverage)
        lines.append(f"{colour(text, 'red')}: less than {fail_under:g} %" if too_little else text)
    if report.coverage.missed and (list_missed or too_little):
        lines.append("no test reaches:")
        for match in report.coverage.missed:
            place = f"{match.place.file}:{match.place.line}: " if match.place else ""
            lines.append(f"  {place}{match_line(match)}")
    good = report.passed and not report.unreadable and not too_little
    lines.append(colour(summary(report), "green" if good else "red"))
    return "\n\n".join(["", *parts, "\n".join(lines)]).removeprefix("\n")


def _failure(result: Result) -> str:
    head = colour(f"--- {result.name}", "red")
    lines = [f"{head}: {_NAMES[result.verdict]}  {result.place.file}:{result.place.line}"]
    lines += [f"  {line}" for line in failure_lines(result)]
    if result.explanation is not None:
        told = _explained(result.explanation)
        lines += ["", *(f"    {line}".rstrip() for line in told.split("\n"))]
    return "\n".join(lines)


def _explained(explanation: Explanation) -> str:
    from propylon.app.offline import as_document as explanation_document  # noqa: PLC0415
    from propylon.cli.explain import render as render_explanation  # noqa: PLC0415 - brings all of `propylon up`

    return render_explanation(explanation_document(explanation))


# --- watching ---------------------------------------------------------------------------------------------------------


async def _watch(paths: Sequence[str], options: dict[str, Any]) -> None:
    """Run, and again after each change, until interrupted."""
    changed = asyncio.Event()
    watcher = Watcher(changed.set)
    watched: Sequence[str] = tuple(paths)
    try:
        while True:
            before, began = fingerprint(watched), time.time_ns()
            watched = await asyncio.to_thread(_run_and_tell, paths, options, watched)
            told = fingerprint(watched)
            watcher.watch(watched)
            click.echo(colour("watching; Ctrl-C ends", "yellow"))
            if not _moved(before, told, began):
                await _until_changed(watched, told, changed, watcher)
            if sys.stdout.isatty():
                click.clear()
            else:
                click.echo("--- changed: once more")
    finally:
        watcher.close()


def _run_and_tell(paths: Sequence[str], options: dict[str, Any], watched: Sequence[str]) -> Sequence[str]:
    """Run; what is to be watched from now on."""
    try:
        return run_once(paths, options).watched
    except (NoTestsError, FileNotFoundError) as error:
        click.echo(f"propylon test: {error}", err=True)
        return watched


def _moved(before: dict[str, Any], told: dict[str, Any], began: int) -> bool:
    """Whether something changed during a run: what is known from before it, or else what is younger than its start."""
    known = any(told.get(path) != state for path, state in before.items())
    return known or any(state is not None and state[0] > began for path, state in told.items() if path not in before)


async def _until_changed(
    watched: Sequence[str], before: dict[str, Any], changed: asyncio.Event, watcher: Watcher
) -> None:
    while fingerprint(watched) == before:
        changed.clear()
        if watcher.is_told:
            await changed.wait()
        else:
            await asyncio.sleep(LOOK_AGAIN)


def fingerprint(paths: Sequence[str]) -> dict[str, Any]:
    """What is another one once a file was changed, came or went; - never changes."""
    return {path: _state(path) for path in paths if path != "-"}


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
