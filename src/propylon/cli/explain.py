"""`propylon explain`: why a request goes where it goes."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

from propylon.app.configuration import ConfigurationError
from propylon.app.control import ControlError, NotRunningError, call, control_socket
from propylon.cli.output import colour, emit
from propylon.explain import ExplainError, Request

DONE, FINDINGS, USAGE, NOT_RUNNING = 0, 1, 2, 3
REFUSED = "ExplainError: "
"""What an answer of the running process begins with if the question could not be answered as it was put."""


class Source(NamedTuple):
    """Whose Graph is asked: manifests, else a cluster, else the instance of a data directory."""

    manifests: tuple[str, ...]
    cluster: bool
    kubeconfig: str | None
    context: str | None
    controllers: tuple[str, ...]
    data_dir: Path


def explain_request(request: Request, source: Source, limit: int, output: str) -> int:
    """Explain and print; the exit code."""
    try:
        if source.manifests or source.cluster:
            document = _snapshot(request, source, limit)
        else:
            document = _running(request, source.data_dir, limit)
    except NotRunningError:
        click.echo(
            f"propylon explain: propylon is not running for the data directory {source.data_dir}; start it with: "
            "propylon up PATH, or explain manifests with: --manifests PATH, or a cluster with: --kubeconfig FILE",
            err=True,
        )
        return NOT_RUNNING
    except (ExplainError, ConfigurationError, FileNotFoundError) as error:
        click.echo(f"propylon explain: {error}", err=True)
        return USAGE
    except ControlError as error:
        text = str(error)
        click.echo(f"propylon explain: {text.removeprefix(REFUSED)}", err=True)
        return USAGE if text.startswith(REFUSED) else FINDINGS
    if output == "table":
        click.echo(render(document))
    else:
        emit(document, output)
    return DONE if document["well"] else FINDINGS


def _snapshot(request: Request, source: Source, limit: int) -> dict[str, Any]:
    """The answer of manifests or a cluster; an instance is asked without what reads them."""
    from propylon.app.offline import Manifests, as_document, load  # noqa: PLC0415
    from propylon.app.snapshots import SnapshotError, Taken, from_cluster  # noqa: PLC0415

    snapshot: Manifests | Taken
    if source.manifests:
        snapshot = load(*source.manifests, controllers=source.controllers or None)
    else:
        try:
            snapshot = from_cluster(source.kubeconfig, source.context, controllers=source.controllers)
        except SnapshotError as error:
            raise ConfigurationError(str(error)) from error
    for problem in snapshot.errors:
        click.echo(str(problem), err=True)
    return as_document(snapshot.explain(request, candidates=limit))


def _running(request: Request, data_dir: Path, limit: int) -> dict[str, Any]:
    arguments = {
        "url": request.url,
        "method": request.method,
        "headers": [list(pair) for pair in request.headers],
        "gateway": request.gateway,
        "sni": request.sni,
        "grpc": request.grpc,
        "candidates": limit,
    }
    document: dict[str, Any] = call(control_socket(data_dir), "explain", arguments)
    return document


def parse_header(text: str) -> tuple[str, str]:
    """`Name: value`, as curl takes it. Raises ExplainError."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ExplainError(f"-H {text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()


# --- for people -------------------------------------------------------------------------------------------------------


def render(document: dict[str, Any]) -> str:
    """An explanation as text."""
    parts = [colour(document["request"], "cyan"), _gates(document), _candidates(document)]
    parts += [_steps(document), _backends(document), _hints(document)]
    parts.append(_answer(document))
    return "\n\n".join(part for part in parts if part)


def _answer(document: dict[str, Any]) -> str:
    text = document["summary"]
    if document["grpc_status"] is not None:
        text += f" (gRPC status {document['grpc_status']})"
    return "=> " + colour(text, "green" if document["well"] else "red")


def _place(place: dict[str, Any] | None) -> str:
    return f"{place['file']}:{place['line']}" if place else ""


def _gates(document: dict[str, Any]) -> str:
    gates = document["gates"]
    width = max((len(gate["what"]) for gate in gates), default=0)
    return "\n".join(f"{gate['what'].ljust(width)}  {gate['name']}: {gate['why']}" for gate in gates)


_MARKS = {"matched": ("->", "green"), "failed": (" x", "red"), "not reached": ("  ", "yellow")}


def _candidates(document: dict[str, Any]) -> str:
    candidates, total = document["candidates"], document["candidates_total"]
    if not candidates:
        return ""
    lines = [f"matches, in the order in which they are tried ({len(candidates)} of {total}):"]
    before = 0
    for each in candidates:
        if each["position"] > before + 1:
            lines.append(f"     ... {each['position'] - before - 1} that are further off")
        before = each["position"]
        mark, tint = _MARKS[each["result"]]
        name = f" {each['rule_name']}" if each["rule_name"] else ""
        where = _place(each["place"])
        lines.append(
            f"{colour(mark, tint)} {each['position']:>3}  {each['object']} rule {each['rule']}{name}"
            f" [{each['match_text']}]" + (f"  {where}" if where else "")
        )
        if each["failed"]:
            failed = each["failed"]
            found = "is not in the request" if failed["found"] is None else f'is "{failed["found"]}"'
            lines.append(f"          {failed['what']} {found}, wanted {failed['wanted']}")
        elif each["result"] == "not reached":
            lines[-1] += "  not reached"
    if before < total:
        lines.append(f"     ... {total - before} more")
    return "\n".join(lines)


def _steps(document: dict[str, Any]) -> str:
    lines = ["then:"] if document["steps"] else []
    for step in document["steps"]:
        lines += _step(step, "  ")
    return "\n".join(lines)


def _step(step: dict[str, Any], indent: str) -> list[str]:
    lines = [f"{indent}{step['what']}: {step['detail']}"]
    if step["after"] is not None and step["before"] != step["after"]:
        lines.append(f"{indent}    {step['before'] or '(none)'}")
        lines.append(f"{indent} -> {step['after'] or '(none)'}")
    return lines


def _backends(document: dict[str, Any]) -> str:
    lines = ["backends:"] if document["backends"] else []
    for backend in document["backends"]:
        share = f"{100 * backend['share']:.3g} %"
        name = backend["name"] or "(none that can be used)"
        extras = [backend["protocol"]]
        if backend["tls"]:
            extras.append(f"TLS to {backend['tls']}")
        if backend["endpoints"]:
            more = len(backend["endpoints"]) - 3
            extras.append(
                "endpoints " + ", ".join(backend["endpoints"][:3]) + (f" and {more} more" if more > 0 else "")
            )
        details = ", ".join(extra for extra in extras if extra)
        lines.append(f"  {share:>6} (weight {backend['weight']})  {name}" + (f"  {details}" if details else ""))
        for step in backend["steps"]:
            lines += _step(step, " " * 10)
        if backend["outcome"] == "redirected":
            lines.append(f"          {backend['status']} to {backend['location']}")
        elif backend["why"]:
            status = f"{backend['status']}: " if backend["status"] else ""
            lines.append("          " + colour(f"{status}{backend['why']}", "red"))
        elif backend["path"]:
            lines.append(f"          receives {backend['path']} for host {backend['host']}")
    return "\n".join(lines)


def _hints(document: dict[str, Any]) -> str:
    lines = []
    for hint in document["hints"]:
        where = _place(hint["place"])
        lines.append(f"{colour('hint', 'yellow')}: {hint['message']}" + (f"  {where}" if where else ""))
        if hint["manifest"]:
            lines.append("  apply:")
            lines += [f"    {line}" for line in hint["manifest"].rstrip().split("\n")]
    return "\n".join(lines)


# --- the command ------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("url", required=False)
@click.option("-X", "--request", "method", default="", help="Method. Default: GET, or POST with --grpc.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header. Repeatable.")
@click.option("--from", "gateway", default="", metavar="GATEWAY", help="NAME, NAMESPACE/NAME, or an address of it.")
@click.option("--sni", default=None, help="Server name of the TLS handshake. Default: the URL's host.")
@click.option("--grpc", default="", metavar="SERVICE/METHOD", help="A gRPC call instead of a path.")
@click.option("--tcp", type=click.IntRange(1, 65535), default=None, help="A TCP connection to this port, without URL.")
@click.option("--udp", type=click.IntRange(1, 65535), default=None, help="A datagram to this port, without URL.")
@click.option("--manifests", multiple=True, type=click.Path(), help="Explain these manifests, offline. Repeatable.")
@click.option("--kubeconfig", type=click.Path(), default=None, help="Explain the cluster of this kubeconfig.")
@click.option("--context", default=None, help="Explain the cluster of this context of the kubeconfig.")
@click.option(
    "--controller-name",
    "controllers",
    multiple=True,
    help="Gateways of this controllerName only, of manifests or a cluster. Repeatable; default: all.",
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), default=None, help="As of propylon up.")
@click.option("--candidates", type=click.IntRange(1), default=20, show_default=True, help="How many matches to show.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print.")
def explain(url: str | None, headers: tuple[str, ...], output: str, **options: Any) -> None:
    """Why a request to URL goes where it goes: Gateway, listener, rule, backend, and every rule that does not take it.

    Asks the running instance, or reads --manifests, or a cluster (--kubeconfig, --context). Exit code: 0 if a backend
    or a redirect answers, 1 if the proxy answers with an error or not at all, 2 if the question cannot be answered as
    it is put, 3 if nothing is running.
    """
    from propylon.app.configuration import default_data_dir  # noqa: PLC0415

    targets = [url, *(f"{kind}://:{options[kind]}" for kind in ("tcp", "udp") if options[kind])]
    given = [target for target in targets if target]
    if len(given) != 1:
        click.echo("propylon explain: give one URL, or one of --tcp PORT and --udp PORT", err=True)
        sys.exit(USAGE)
    try:
        pairs = tuple(parse_header(text) for text in headers)
    except ExplainError as error:
        click.echo(f"propylon explain: {error}", err=True)
        sys.exit(USAGE)
    request = Request(given[0], options["method"], pairs, options["gateway"], options["sni"], options["grpc"])
    asks_cluster = options["kubeconfig"] is not None or options["context"] is not None
    if options["manifests"] and asks_cluster:
        click.echo("propylon explain: give --manifests, or --kubeconfig and --context, not both", err=True)
        sys.exit(USAGE)
    source = Source(
        options["manifests"],
        asks_cluster,
        options["kubeconfig"],
        options["context"],
        options["controllers"],
        options["data_dir"] or default_data_dir(),
    )
    sys.exit(explain_request(request, source, options["candidates"], output))
