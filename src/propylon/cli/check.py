"""`propylon check`: what is wrong with manifests, before they are applied anywhere."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from propylon import __version__
from propylon.app.configuration import ConfigurationError
from propylon.app.offline import Manifests, load
from propylon.app.snapshots import SnapshotError, Taken, from_cluster
from propylon.check import check_manifests
from propylon.check.finding import SEVERITIES, Finding
from propylon.check.formats import FORMATS, render
from propylon.check.ignore import BaselineError, apply_baseline, apply_ignores, baseline_text
from propylon.cli.options import data_dir_unused

FINDINGS, USAGE = 1, 2


def variables_of(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs. Raises click.BadParameter."""
    pairs = [value.partition("=") for value in values]
    if wrong := next((name for name, equals, _ in pairs if not (name and equals)), None):
        raise click.BadParameter(f"{wrong!r} is not NAME=VALUE")
    return {name: value for name, _, value in pairs}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("-o", "--output", type=click.Choice(FORMATS), default="text", help="How to print.")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    default="error",
    show_default=True,
    help="Exit with 1 if there is something as grave as this.",
)
@click.option("--baseline", type=click.Path(path_type=Path, dir_okay=False), help="Leave out what this file knows.")
@click.option("--write-baseline", is_flag=True, help="Write what is found now to the --baseline file, and exit with 0.")
@click.option("--var", "variables", multiple=True, callback=variables_of, metavar="NAME=VALUE", help="Fill ${NAME}.")
@click.option(
    "--vars", "variable_files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="NAME=VALUE lines."
)
@click.option("--kubeconfig", type=click.Path(), default=None, help="Check what the cluster of this kubeconfig holds.")
@click.option("--context", default=None, help="Check what the cluster of this context of the kubeconfig holds.")
@data_dir_unused
def check(paths: tuple[str, ...], output: str, fail_on: str, **options: Any) -> None:
    """Everything wrong or doubtful in PATHS (directories, kustomizations, files, - for stdin), or in a cluster.

    Nothing is started or written. Exit code: 0 if nothing as grave as --fail-on is found, 1 if there is, 2 if the
    command line cannot be honoured.
    """
    baseline: Path | None = options["baseline"]
    if options["write_baseline"] and baseline is None:
        _usage("--write-baseline needs --baseline FILE")
    in_cluster = options["kubeconfig"] is not None or options["context"] is not None
    if bool(paths) == in_cluster:
        _usage("give PATHS, or a cluster by --kubeconfig and --context")
    manifests: Manifests | Taken
    try:
        if in_cluster:
            manifests = from_cluster(options["kubeconfig"], options["context"])
        else:
            manifests = load(*paths, variables=options["variables"], variable_files=options["variable_files"])
        findings = check_manifests(manifests, datetime.now(UTC))
        files = (
            [each.origin.file for each in manifests.loaded.objects.values()] if isinstance(manifests, Manifests) else []
        )
        findings = apply_ignores(findings, files, _read)
        if baseline is not None and options["write_baseline"]:
            baseline.write_text(baseline_text(findings), encoding="utf-8")
            click.echo(f"{len(findings)} findings are known from now on: {baseline}", err=True)
            return
        if baseline is not None:
            findings = apply_baseline(findings, baseline.read_text(encoding="utf-8"))
    except BaselineError as error:
        _usage(f"{baseline}: {error}")
    except (ConfigurationError, SnapshotError, OSError) as error:
        _usage(str(error))
    click.echo(render(findings, output, __version__))
    sys.exit(FINDINGS if fails(findings, fail_on) else 0)


def fails(findings: list[Finding], fail_on: str) -> bool:
    """Whether something is at least as grave as `fail_on`."""
    grave = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    return any(finding.severity in grave for finding in findings)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # standard input, or a file that is gone: nothing is ignored in it


def _usage(message: str) -> None:
    click.echo(f"propylon check: {message}", err=True)
    sys.exit(USAGE)
