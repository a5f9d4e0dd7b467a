"""`propylon diff`: what two sets of objects do differently."""

import sys
from typing import Any, NoReturn

import click

from propylon.app.comparison import CLUSTER, Wanted, compare_snapshots, read
from propylon.app.configuration import ConfigurationError
from propylon.app.offline import Manifests
from propylon.app.snapshots import SnapshotError
from propylon.cli.check import variables_of
from propylon.cli.options import data_dir_unused
from propylon.cli.output import colour, emit
from propylon.diff import REQUESTS
from propylon.diff.formats import as_document, markdown, text

SAME, DIFFERENT, USAGE = 0, 1, 2


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml", "markdown"]), default="text", help="Form.")
@click.option("--kubeconfig", type=click.Path(), default=None, help="Where the contexts of cluster: are.")
@click.option(
    "--apply/--whole",
    "onto",
    default=None,
    help="AFTER is applied onto BEFORE, or is all there is. Default: --apply if BEFORE is a cluster and AFTER is not.",
)
@click.option("--requests", "limit", type=click.IntRange(1), default=REQUESTS, show_default=True, help="At most.")
@click.option("--controller-name", "controllers", multiple=True, help="Gateways of this controllerName only.")
@click.option("--var", "variables", multiple=True, callback=variables_of, metavar="NAME=VALUE", help="Fill ${NAME}.")
@click.option(
    "--vars", "variable_files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="NAME=VALUE lines."
)
@data_dir_unused
def diff(before: str, after: str, output: str, onto: bool | None, limit: int, **options: Any) -> None:
    """Requests that are answered differently by BEFORE and AFTER, and status that would change; not text.

    Each is a directory or file, `-` for standard input, REV:PATH or git:REV[:PATH] for a git revision,
    instance:[DATA_DIR] for the store of an instance, or cluster:[CONTEXT] for a cluster.

    Exit code: 0 if nobody would see a difference, 1 if somebody would, 2 if the command line cannot be honoured.
    """
    wanted = Wanted(options["kubeconfig"], options["controllers"], options["variables"], options["variable_files"])
    if before == after == "-":
        _usage("standard input can be one side only")
    try:
        sides = [read(word, wanted) for word in (before, after)]
    except (SnapshotError, ConfigurationError, OSError) as error:
        _usage(str(error))
    for word, side in zip((before, after), sides, strict=True):
        for problem in side.errors:
            click.echo(f"{word}: {problem}", err=True)
    for word, side in zip((before, after), sides, strict=True):
        if isinstance(side, Manifests) and (side.loaded.held_files or not side.loaded.complete):
            _usage(f"{word} cannot be read as a whole, and what is missing cannot be compared")
    if onto is None:
        onto = before.startswith(CLUSTER) and not after.startswith(CLUSTER)
    found = compare_snapshots(sides[0], sides[1], onto=onto, limit=limit)
    if output == "text":
        click.echo(text(found, colour))
    elif output == "markdown":
        click.echo(markdown(found))
    else:
        emit(as_document(found), output)
    sys.exit(SAME if found.same else DIFFERENT)


def _usage(message: str) -> NoReturn:
    click.echo(f"propylon diff: {message}", err=True)
    sys.exit(USAGE)
