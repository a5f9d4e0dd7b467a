"""Options that several commands share."""

from pathlib import Path

import click

data_dir_unused = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    expose_value=False,
    help="Taken by every command, so that scripts may give it always; this one needs none.",
)
