"""`python -m bench.ablations [NAME...]`: what each piece of a configuration costs a request, in instructions.

Every variant is the hand-written configuration of P3 with one thing added that propylon adds, or with one of Envoy's
defaults switched off, through the same nginx. The count is the whole process's, so what is added in the kernel (system
calls) is not in it. Written to bench/results/ablations.md if all were run.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.instructions import counted_envoy, instructions, requests
from bench.plain_envoy import PlainEnvoy, configuration
from bench.record import RESULTS
from bench.traffic import Backend, certificate, free_ports

HOSTNAME = "shop.example.com"
CONNECTIONS, STREAMS = 16, 10
TYPE = "type.googleapis.com/envoy."
HTTP = TYPE + "extensions.filters.network.http_connection_manager.v3."

Document = dict[str, Any]
Change = Callable[[Document], object]


def managers(document: Document) -> list[Document]:
    """Both HttpConnectionManagers."""
    listeners = document["static_resources"]["listeners"]
    return [each["filter_chains"][0]["filters"][0]["typed_config"] for each in listeners]


def _manager(**fields: Any) -> Change:
    return lambda document: [each.update(copy.deepcopy(fields)) for each in managers(document)]


def _router(**fields: Any) -> Change:
    return lambda document: [each["http_filters"][-1]["typed_config"].update(fields) for each in managers(document)]


def _route(**fields: Any) -> Change:
    def change(document: Document) -> None:
        for each in managers(document):
            each["route_config"]["virtual_hosts"][0]["routes"][0]["route"].update(fields)

    return change


def _listener(**fields: Any) -> Change:
    return lambda document: [each.update(copy.deepcopy(fields)) for each in document["static_resources"]["listeners"]]


def _cluster(**fields: Any) -> Change:
    return lambda document: document["static_resources"]["clusters"][0].update(copy.deepcopy(fields))


def _http_options(**fields: Any) -> Change:
    options = {"@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions", **fields}
    options.setdefault("explicit_http_config", {"http_protocol_options": {}})
    return _cluster(
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    )


def _whole(**fields: Any) -> Change:
    return lambda document: document.update(copy.deepcopy(fields))


def _runtime(**guards: Any) -> Change:
    layer = {f"envoy.reloadable_features.{name}": value for name, value in guards.items()}
    return _whole(layered_runtime={"layers": [{"name": "static", "static_layer": layer}]})


def _excluded(**matcher: Any) -> Change:
    return _whole(stats_config={"stats_matcher": matcher})


def _filters(*more: Document) -> Change:
    def change(document: Document) -> None:
        for each in managers(document):
            each["http_filters"][:0] = copy.deepcopy(list(more))

    return change


def _mutation(*mutations: Document) -> Change:
    config = {
        "@type": TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": list(mutations),
    }
    name = "envoy.http.early_header_mutation.header_mutation"
    return _manager(early_header_mutation_extensions=[{"name": name, "typed_config": config}])


def _overwritten(name: str, value: str) -> Document:
    return {
        "append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
    }


def log(file: str = "", *, text: str | None = None, fields: Document | None = None) -> Document:
    """An access log on standard output, or in a file."""
    kind = "file.v3.FileAccessLog" if file else "stream.v3.StdoutAccessLog"
    config: Document = {"@type": f"{TYPE}extensions.access_loggers.{kind}", **({"path": file} if file else {})}
    if text is not None:
        config["log_format"] = {"text_format_source": {"inline_string": text}}
    if fields is not None:
        config["log_format"] = {"json_format": fields}
    return {"name": "log", "typed_config": config}


def _many_routes(document: Document) -> None:
    for each in managers(document):
        routes = each["route_config"]["virtual_hosts"][0]["routes"]
        routes[:0] = [
            {"match": {"path_separated_prefix": path}, "route": {"cluster": "backend"}} for path in ("/api", "/static")
        ]


def _many_hosts(document: Document) -> None:
    for each in managers(document):
        hosts = each["route_config"]["virtual_hosts"]
        hosts += [
            {**copy.deepcopy(hosts[0]), "name": name, "domains": [f"{name}.example.com"]} for name in ("shop", "blog")
        ]


FORGED = [{"remove": name} for name in ("forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-scheme")]
ADDRESS = _overwritten("x-forwarded-for", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
NOBODY = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}
KEEPALIVE = [
    {"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}
    for level, name, value in ((1, 9, 1), (6, 4, 60), (6, 5, 10), (6, 6, 6))
]
CORS = {
    "name": "envoy.filters.http.cors",
    "typed_config": {"@type": TYPE + "extensions.filters.http.cors.v3.Cors"},
}
HISTOGRAMS = ("upstream_rq_time", "downstream_rq_time", "downstream_cx_length_ms", "upstream_cx_length_ms")
TEXT = (
    "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% %PROTOCOL%"
    " %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%ms"
    " %ROUTE_NAME% %UPSTREAM_HOST% %REQ(X-REQUEST-ID)%\n"
)

VARIANTS: dict[str, Change] = {
    "as it is": lambda _: None,
    "as it is, again": lambda _: None,
    # What propylon says.
    "use_remote_address": _manager(use_remote_address=True),
    "use_remote_address, nobody internal": _manager(use_remote_address=True, internal_address_config=NOBODY),
    "use_remote_address, no append": _manager(
        use_remote_address=True, internal_address_config=NOBODY, skip_xff_append=True
    ),
    "forged headers removed": _mutation(*FORGED, {"remove": "x-real-ip"}),
    "x-forwarded-for overwritten": _mutation(ADDRESS),
    "forged headers removed, x-forwarded-for overwritten": _mutation(*FORGED, {"remove": "x-real-ip"}, ADDRESS),
    "normalize_path": _manager(normalize_path=True),
    "strip_trailing_host_dot": _manager(strip_trailing_host_dot=True),
    "server header passed through": _manager(server_header_transformation="PASS_THROUGH"),
    "websocket upgrades": _manager(upgrade_configs=[{"upgrade_type": "websocket"}]),
    "idle timeout of connections stated": _manager(common_http_protocol_options={"idle_timeout": "3600s"}),
    "request_headers_timeout 15 s": _manager(request_headers_timeout="15s"),
    "cors filter": _filters(CORS),
    "cors filter, disabled": _filters({**CORS, "disabled": True}),
    "suppress_envoy_headers": _router(suppress_envoy_headers=True),
    "buffer limits 32 KiB": lambda document: (
        _listener(per_connection_buffer_limit_bytes=32768)(document),
        _cluster(per_connection_buffer_limit_bytes=32768)(document),
    ),
    "keep-alive of sockets": _listener(socket_options=KEEPALIVE),
    "LEAST_REQUEST": _cluster(lb_policy="LEAST_REQUEST"),
    "upstream idle timeout 50 s": _http_options(common_http_protocol_options={"idle_timeout": "50s"}),
    "upstream keep-alive": _cluster(upstream_connection_options={"tcp_keepalive": {"keepalive_time": 60}}),
    "three routes": _many_routes,
    "three virtual hosts": _many_hosts,
    "admin": _whole(admin={"address": {"pipe": {"path": "@propylon-ablation"}}}),
    # Envoy's defaults, switched off.
    "no request id": _manager(generate_request_id=False),
    "no stream idle timeout": _manager(stream_idle_timeout="0s"),
    "no route timeout": _route(timeout="0s"),
    "neither timeout": lambda document: (
        _manager(stream_idle_timeout="0s")(document),
        _route(timeout="0s")(document),
    ),
    "no dynamic stats of the router": _router(dynamic_stats=False),
    "no statistics at all": _excluded(reject_all=True),
    "no histograms": _excluded(exclusion_list={"patterns": [{"suffix": name} for name in HISTOGRAMS]}),
    "no tags of statistics": _whole(stats_config={"use_all_default_tags": False}),
    "oghttp2 in place of nghttp2": _runtime(http2_use_oghttp2=True),
    "nghttp2 in place of oghttp2": _runtime(http2_use_oghttp2=False),
    # Access logs.
    "log: Envoy's own format, stdout": _manager(access_log=[log()]),
    "log: propylon's format, stdout": _manager(access_log=[log(text=TEXT)]),
    "log: propylon's format, file": _manager(access_log=[log("/dev/null", text=TEXT)]),
    "log: a constant": _manager(access_log=[log(text="x\n")]),
}


OF_HTTP_2 = ("oghttp2 in place of nghttp2", "nghttp2 in place of oghttp2")
BASE, AGAIN = "as it is", "as it is, again"
TABLES: dict[str, list[str]] = {
    "HTTP/1.1": [name for name in VARIANTS if name not in OF_HTTP_2],
    "h2": [BASE, AGAIN, *OF_HTTP_2],
}
"""What is measured by which protocol."""


def main() -> int:
    """Run the variants; print what each costs."""
    parser = argparse.ArgumentParser(prog="bench.ablations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="substrings of variants' names; default: all")
    parser.add_argument("--protocol", choices=TABLES, help="default: both")
    arguments = parser.parse_args()
    lines = ["Instructions of Envoy a request; differences below 1 % are noise (see the second row of each table).", ""]
    for protocol in [arguments.protocol] if arguments.protocol else TABLES:
        lines += [f"| {protocol} | instructions | of it |", "|---|--:|--:|"]
        print(*lines[-2:], sep="\n", flush=True)
        least = 0.0
        for name in TABLES[protocol]:
            if name != BASE and arguments.names and not any(each in name for each in arguments.names):
                continue
            count = measured(VARIANTS[name], protocol)
            least = least or count
            lines.append(f"| {name} | {count:,.0f} | {(count / least - 1) * 100:+.1f} % |")
            print(lines[-1], flush=True)
        lines.append("")
    if not arguments.names and not arguments.protocol:
        (RESULTS / "ablations.md").write_text("\n".join(lines), encoding="utf-8")
    return 0


def measured(change: Change, protocol: str) -> float:
    """Instructions a request with this change."""
    port, tls_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="ci") as place, Backend("web") as backend:
        directory = Path(place)
        pair = certificate(directory, ["*.example.com"])
        document = configuration(backend.ports["web"], port=port, tls_port=tls_port, certificate=pair)
        change(document)
        with PlainEnvoy(document, port, counted_envoy(directory)) as envoy:
            send = (
                requests(f"http://{HOSTNAME}/", port, CONNECTIONS, 1, "--h1")
                if protocol == "HTTP/1.1"
                else requests(f"https://{HOSTNAME}/", tls_port, CONNECTIONS, STREAMS)
            )
            return instructions(directory, envoy.pid, send)


if __name__ == "__main__":
    sys.exit(main())
