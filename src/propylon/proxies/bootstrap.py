"""The bootstrap of a proxy: everything it must know before the control plane tells it the rest. Pure.

Listeners and clusters come over delta ADS from a Unix socket. The limits follow Envoy's advice for edge proxies
(configuration/best_practices/edge) as far as they belong to the process; those of listeners are set where listeners
are built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from propylon.proxies.settings import ProxySettings

CONTROL_PLANE_CLUSTER = "propylon_control_plane"
"""The static cluster that leads to the control plane; clusters of users never have underscores in front of this
name.
"""
_TYPE = "type.googleapis.com/"
_MUTE_STATS = (
    r"circuit_breakers\.[a-z_.]+",
    r"(lb|assignment|update)_[a-z_]+",
    r"version(_text)?",
    "init_fetch_timeout",
    "warming_state",
    "max_host_weight",
    r"default\.total_match_count",
)
"""Stats that every cluster has from its first moment and that can say one thing only: limits that are not set, load
balancing by zone or subset that is not done, subscriptions that the control plane knows of itself. They are 41 of 46;
with them, the clusters of 10,000 Services take Envoy a third more CPU to make, and an eighth more memory."""


def build_bootstrap(node: str, *, xds_socket: Path, admin_socket: Path, settings: ProxySettings) -> bytes:
    """Envoy's bootstrap as JSON, equal for equal arguments.

    `node` is the Gateway's "namespace/name" and becomes the node id, by which the control plane knows what to send.
    """
    document = {
        "node": {"id": node, "cluster": "propylon"},
        "admin": {
            "address": {"pipe": {"path": str(admin_socket), "mode": 0o600}},
            # Health must be visible when connections are short.
            "ignore_global_conn_limit": True,
        },
        "dynamic_resources": _dynamic_resources(),
        "static_resources": _static_resources(xds_socket, settings.static_resources),
        "overload_manager": _overload_manager(settings),
        "layered_runtime": _layered_runtime(),
        "stats_config": _stats_config(),
        # Stats of clusters and listeners nobody has used yet take no memory.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }
    return msgspec.json.encode(document, order="sorted")


def _stats_config() -> dict[str, Any]:
    mute = {"safe_regex": {"regex": rf"cluster\..*\.({'|'.join(_MUTE_STATS)})"}}
    # Tags would be matched by regular expressions against the name of each new stat.
    return {"use_all_default_tags": False, "stats_matcher": {"exclusion_list": {"patterns": [mute]}}}


def _dynamic_resources() -> dict[str, Any]:
    # A wait without end (0 s): a proxy must not call itself ready before the control plane has spoken, however late.
    from_ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": CONTROL_PLANE_CLUSTER,
                        # Envoy's own back-off goes up to 30 s, which is how long a restarted control plane would be
                        # without proxies.
                        "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"}},
                    }
                }
            ],
        },
        "lds_config": from_ads,
        "cds_config": from_ads,
    }


def _static_resources(xds_socket: Path, extra: dict[str, Any]) -> dict[str, Any]:
    control_plane = {
        "name": CONTROL_PLANE_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # A control plane that hangs closes nothing; only its silence tells.
                        "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                        "initial_stream_window_size": 1 << 20,
                        "initial_connection_window_size": 1 << 20,
                    }
                },
            }
        },
        "load_assignment": {
            "cluster_name": CONTROL_PLANE_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(xds_socket)}}}}]}],
        },
    }
    return {**extra, "clusters": [control_plane, *extra.get("clusters", [])]}


def _overload_manager(settings: ProxySettings) -> dict[str, Any]:
    heap, connections = (
        "envoy.resource_monitors.fixed_heap",
        "envoy.resource_monitors.global_downstream_max_connections",
    )
    resource = _TYPE + "envoy.extensions.resource_monitors."
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": resource + "fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": settings.max_heap_bytes,
                },
            },
            {
                "name": connections,
                "typed_config": {
                    "@type": resource + "downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": settings.max_connections,
                },
            },
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": heap, "scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}],
                "typed_config": {
                    "@type": _TYPE + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                    "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
                },
            },
            {
                "name": "envoy.overload_actions.shrink_heap",
                "triggers": [{"name": heap, "threshold": {"value": 0.95}}],
            },
            {
                "name": "envoy.overload_actions.reset_high_memory_stream",
                "triggers": [{"name": heap, "scaled": {"scaling_threshold": 0.90, "saturation_threshold": 0.98}}],
            },
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [{"name": heap, "threshold": {"value": 0.98}}],
            },
        ],
        # Streams that hold less than 1 MiB (2^20) are not worth resetting.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
    }


def _layered_runtime() -> dict[str, Any]:
    return {
        "layers": [
            {
                "name": "propylon",
                "static_layer": {
                    # Users' regular expressions are refused, with a reason, before they come here. Envoy's limit of
                    # 100 is hit by ordinary ones (`\d{1,100}`), and would reject the whole RouteConfiguration.
                    "re2": {"max_program_size": {"error_level": 65_536, "warn_level": 65_536}},
                },
            },
            {"name": "admin", "admin_layer": {}},
        ]
    }
