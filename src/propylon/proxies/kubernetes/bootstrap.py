"""The bootstrap of a proxy in a pod: as on a machine, but the control plane is behind mutual TLS, and probes can ask.

Certificates come from a mounted Secret by Envoy's file-based SDS: the kubelet swaps the files, Envoy sees the directory
change and takes the new ones, and no connection is dropped for it.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import msgspec

from propylon.proxies.bootstrap import CONTROL_PLANE_CLUSTER, build_bootstrap
from propylon.proxies.settings import ProxySettings

XDS_DIRECTORY = "/etc/propylon/xds"
"""Where the Secret with the proxy's certificate is mounted."""
RUN_DIRECTORY = "/run/propylon"
CERTIFICATE_FILE, TRUST_FILE = "certificate.json", "trust.json"
CERTIFICATE_SECRET, TRUST_SECRET = "propylon_proxy", "propylon_trust"
_ADMIN_CLUSTER = "propylon_admin"
_TYPE = "type.googleapis.com/"
_HTTP = _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = _TYPE + "envoy.extensions.filters.http.router.v3.Router"


class ControlPlane(msgspec.Struct, frozen=True):
    """Where proxies find the control plane, and the name that its certificate must bear."""

    host: str
    """DNS name or IP address."""
    port: int
    server_name: str


class Probes(msgspec.Struct, frozen=True):
    """The listener by which a pod is asked how it fares, and told that it is to end."""

    address: str
    port: int
    drain_path: str = ""
    """A GET of it begins to drain and is answered after `drain_seconds`; hard to guess, for pods can reach each other.

    "": there is none.
    """
    drain_seconds: int = 0


def build_pod_bootstrap(node: str, control_plane: ControlPlane, *, probes: Probes, settings: ProxySettings) -> str:
    """Envoy's bootstrap as JSON text, equal for equal arguments. `node` is "namespace/name" of the Gateway.

    `/ready`, `/stats/prometheus` and the path for draining are answered by the probes' listener, and nothing else is.
    """
    admin = f"{RUN_DIRECTORY}/admin.sock"
    extra = {"listeners": [_probe_listener(probes)], "clusters": [_admin_cluster(admin)]}
    settings = msgspec.structs.replace(settings, static_resources=extra)
    document = msgspec.json.decode(
        build_bootstrap(node, xds_socket=Path("unused"), admin_socket=Path(admin), settings=settings)
    )
    clusters = document["static_resources"]["clusters"]
    for cluster in clusters:
        if cluster["name"] == CONTROL_PLANE_CLUSTER:
            cluster.update(_remote(control_plane))
    return msgspec.json.encode(document, order="sorted").decode()


def _remote(control_plane: ControlPlane) -> dict[str, Any]:
    address = {"address": control_plane.host, "port_value": control_plane.port}
    return {
        "type": "STATIC" if _is_ip(control_plane.host) else "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CONTROL_PLANE_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
        "upstream_connection_options": {
            # A node that is gone says nothing.
            "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 30, "keepalive_interval": 5}
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": control_plane.server_name,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    # Envoy as a client goes no further than 1.2 by itself.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "tls_certificate_sds_secret_configs": [_from_file(CERTIFICATE_SECRET, CERTIFICATE_FILE)],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [
                                {"san_type": "DNS", "matcher": {"exact": control_plane.server_name}}
                            ]
                        },
                        "validation_context_sds_secret_config": _from_file(TRUST_SECRET, TRUST_FILE),
                    },
                },
            },
        },
    }


def _from_file(secret: str, file: str) -> dict[str, Any]:
    source = {"path": f"{XDS_DIRECTORY}/{file}", "watched_directory": {"path": XDS_DIRECTORY}}
    return {"name": secret, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def sds_files(certificate_pem: str, key_pem: str, trust_pem: str) -> dict[str, str]:
    """The files of the mounted Secret: each an SDS response with the PEM texts in it."""
    certificate = {
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate_pem},
            "private_key": {"inline_string": key_pem},
        }
    }
    trust = {"validation_context": {"trusted_ca": {"inline_string": trust_pem}}}
    return {
        CERTIFICATE_FILE: _sds(CERTIFICATE_SECRET, certificate),
        TRUST_FILE: _sds(TRUST_SECRET, trust),
    }


def _sds(name: str, content: dict[str, Any]) -> str:
    secret = {"@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret", "name": name, **content}
    return msgspec.json.encode({"resources": [secret]}).decode()


def _admin_cluster(socket: str) -> dict[str, Any]:
    return {
        "name": _ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": _ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
        },
    }


def _probe_listener(probes: Probes) -> dict[str, Any]:
    routes: list[dict[str, Any]] = [
        {"match": {"path": path, "headers": [_GET]}, "route": {"cluster": _ADMIN_CLUSTER}}
        for path in ("/ready", "/stats/prometheus")
    ]
    filters = [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}]
    if probes.drain_path:
        routes.append(_drain_route(probes))
        # Only where the route says so do these two do anything.
        filters = [
            {"name": _LUA, "typed_config": {"@type": f"{_FILTERS}lua.v3.Lua"}},
            {"name": _FAULT, "typed_config": {"@type": f"{_FILTERS}fault.v3.HTTPFault"}},
            *filters,
        ]
    manager = {
        "@type": _HTTP,
        "stat_prefix": "propylon_probes",
        "route_config": {"virtual_hosts": [{"name": "probes", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    }
    chain = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": "propylon_probes",
        "address": {"socket_address": {"address": probes.address, "port_value": probes.port}},
        # Health must be visible when connections are short.
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": chain}],
    }


def _drain_route(probes: Probes) -> dict[str, Any]:
    """Tell Envoy that it is unhealthy, then wait, then answer.

    From then on every response closes its connection (or says GOAWAY) and the pod is not ready, but nothing is cut: who
    comes back comes to another pod. A pod has no shell and its hooks can only GET, hence the script; the admin
    interface wants a POST.
    """
    return {
        "match": {"path": probes.drain_path, "headers": [_GET]},
        "direct_response": {"status": 200, "body": {"inline_string": "drained\n"}},
        "typed_per_filter_config": {
            _LUA: {
                "@type": f"{_FILTERS}lua.v3.LuaPerRoute",
                "source_code": {"inline_string": _FAIL_HEALTH},
            },
            _FAULT: {
                "@type": f"{_FILTERS}fault.v3.HTTPFault",
                "delay": {"fixed_delay": f"{probes.drain_seconds}s", "percentage": {"numerator": 100}},
            },
        },
    }


_FILTERS = _TYPE + "envoy.extensions.filters.http."
_LUA, _FAULT = "envoy.filters.http.lua", "envoy.filters.http.fault"
_FAIL_HEALTH = f"""
function envoy_on_request(request)
  local headers = {{[":method"] = "POST", [":path"] = "/healthcheck/fail", [":authority"] = "admin"}}
  request:httpCall("{_ADMIN_CLUSTER}", headers, "", 1000)
end
"""
_GET = {"name": ":method", "string_match": {"exact": "GET"}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
