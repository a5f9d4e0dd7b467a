"""`propylon env` and `propylon user`: the way of kubectl to the embedded API."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from propylon.app.configuration import default_data_dir

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="$PROPYLON_DATA_DIR, else ~/.local/share/propylon",
    help="Where the store, logs and sockets of one instance live.",
)


def _kubeconfig(data_dir: Path) -> Path:
    path = data_dir.absolute() / "kubeconfig"
    if not path.is_file():
        click.echo(f"propylon: there is no {path} yet; start the instance with: propylon up PATH", err=True)
        sys.exit(3)
    return path


@click.command()
@_data_dir
def env(data_dir: Path) -> None:
    """Print what makes kubectl speak to the running instance: eval "$(propylon env)"."""
    click.echo(f"export KUBECONFIG={shlex.quote(str(_kubeconfig(data_dir)))}")


@click.group()
def user() -> None:
    """Users of the Kubernetes API."""


@user.command("add")
@click.argument("name")
@click.option("--group", "groups", multiple=True, help="A group that the user belongs to. Repeatable.")
@click.option("--namespace", default="default", show_default=True, help="The namespace that kubectl begins in.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@_data_dir
def add(name: str, groups: tuple[str, ...], namespace: str, days: int, data_dir: Path) -> None:
    """Issue a client certificate and print a kubeconfig that holds it. What the user may do, RBAC objects say."""
    import yaml  # noqa: PLC0415 - only this command needs them

    from propylon.server.credentials import Credentials  # noqa: PLC0415

    document = yaml.safe_load(_kubeconfig(data_dir).read_text(encoding="utf-8"))
    server = document["clusters"][0]["cluster"]["server"]
    credentials = Credentials(data_dir / "api")
    certificate, key = credentials.issue_client(name, groups, days)
    click.echo(credentials.kubeconfig(server, name, certificate, key, namespace).decode(), nl=False)
