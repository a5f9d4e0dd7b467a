"""Entry points for the command line: serve, or load once and report."""

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from propylon.app.configuration import UpOptions
from propylon.app.runtime import Runtime
from propylon.app.workspace import Workspace
from propylon.certificates.local_authority import AuthorityError
from propylon.proxies.directories import run_directory
from propylon.proxies.settings import ProxyError
from propylon.store import StoreError

FAILED = 1


def control_socket(data_dir: Path) -> Path:
    """Where the running process of a data directory answers."""
    return run_directory(data_dir) / "control.sock"


def run_up(options: UpOptions) -> int:
    """Serve until interrupted; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return asyncio.run(_serve(options))
    except (StoreError, ProxyError, AuthorityError, OSError) as error:
        click.echo(f"propylon up: {error}", err=True)
        return FAILED


async def _serve(options: UpOptions) -> int:
    runtime = Runtime(options, _say())
    if runtime.workspace.authority is not None:
        for line in runtime.workspace.authority.trust_instructions().splitlines():
            click.echo(line)
    return await runtime.run()


def _say() -> Any:
    began = time.monotonic()
    words = {"error": "red", "warning": "yellow", "mended": "green"}

    def say(line: str) -> None:
        word, colon, rest = line.partition(": ")
        if colon and word in words and sys.stdout.isatty():
            line = click.style(word, fg=words[word]) + ": " + rest
        with contextlib.suppress(OSError):  # a full disk or a closed pipe behind standard output ends nothing
            click.echo(f"{time.monotonic() - began:7.2f}  {line}")

    return say


def check_once(options: UpOptions) -> dict[str, Any]:
    """Load the manifests into a store of its own, compute, and return the report; nothing is started or kept."""
    with tempfile.TemporaryDirectory(prefix="propylon-") as directory:
        workspace = Workspace(options, Path(directory), lambda _line: None)
        try:
            workspace.files.sync()
            workspace.turn()
            workspace.turn()
            return workspace.report()
        finally:
            workspace.store.close()
