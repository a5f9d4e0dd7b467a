"""Entry points for the command line: serve, or load once and report."""

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from propylon.app.configuration import UpOptions
from propylon.app.kubernetes_api import KubernetesApi
from propylon.certificates.local_authority import AuthorityError
from propylon.proxies.settings import ProxyError
from propylon.server.machine import MachineStore
from propylon.store import StoreError

FAILED = 1


def run_up(options: UpOptions) -> int:
    """Serve until interrupted; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # until the control plane has handlers of its own
    try:
        return _serve(options, _say())
    except (StoreError, ProxyError, AuthorityError, OSError) as error:
        click.echo(f"propylon up: {error}", err=True)
        return FAILED


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)


def _serve(options: UpOptions, say: Callable[[str], None]) -> int:
    """The Kubernetes API first: reading the libraries of the control plane takes longer than all that the API needs."""
    with contextlib.ExitStack() as running:
        kubernetes = None
        if options.api:
            options.data_dir.mkdir(parents=True, exist_ok=True)
            store = MachineStore(options.data_dir)
            running.callback(store.close)
            kubernetes = KubernetesApi(options, store, say)
            running.callback(kubernetes.stop)
            kubernetes.start()
        from propylon.app.runtime import Runtime  # noqa: PLC0415

        runtime = Runtime(options, say, kubernetes)
        if runtime.workspace.authority is not None:
            for line in runtime.workspace.authority.trust_instructions().splitlines():
                click.echo(line)
        return asyncio.run(runtime.run())


def _say() -> Callable[[str], None]:
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
    from propylon.app.workspace import Workspace  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="propylon-") as directory:
        workspace = Workspace(options, Path(directory), lambda _line: None)
        try:
            workspace.files.sync()
            workspace.turn()
            workspace.turn()
            return workspace.report()
        finally:
            workspace.store.close()
