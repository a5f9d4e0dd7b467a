"""External authorization (GEP-1494), of routes and of listeners (GEP-5224).

Which headers an authorization service gets to see is settled in the filter itself, so there is one filter per distinct
configuration; it is off unless a route or virtual host turns it on. Filters are named by content, after their place in
the order: what a listener asks for comes before what a route asks for.

Envoy decides once, by the route that it finds first, which filters are off. Two kinds of requests get another route
later, and nobody may slip through by that:
- A listener's authorizer may change what routes are chosen by. So where a listener has one, every filter that a route
  of the virtual host may want is on, and each route says whether it passes the request by.
- In a table of scopes, a request may find its route only in the fallback filter (see `scope`). So such a table has
  every filter twice. The second one, `late`, is on, and asks only where a filter behind the fallback found that the
  route wants it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2, http_uri_pb2
from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.type.matcher.v3 import string_pb2

from propylon.envoy import matcher, names
from propylon.envoy.resource import pack, seconds
from propylon.envoy.settings import EnvoySettings
from propylon.graph.model import ClusterKey, ExternalAuth, Filter, Rule, VirtualHost, VirtualHostEntry

_ON = pack(route_pb.FilterConfig(config=pack(ext_authz_pb2.ExtAuthzPerRoute(check_settings={}))))
_STANDBY = pack(route_pb.FilterConfig(config=pack(ext_authz_pb2.ExtAuthzPerRoute(disabled=True))))
_FILTERS = attrgetter("filters")
WANTED = "authorization"
"""Key in the metadata of routes and virtual hosts (of the filter behind the fallback): the filters they want."""
_NEVER_COPIED = ("connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")


class AuthorizationFilter(msgspec.Struct, frozen=True):
    """One ext_authz filter of a listener; filters run in the order of their names."""

    name: str
    auth: ExternalAuth
    before_routing: bool = False
    """Of a listener: its answer may change which route is chosen."""

    @property
    def late(self) -> str:
        """The name of its twin for requests whose route was found late."""
        return f"{self.name}/late"


def listener_filters(filters: Sequence[Filter]) -> tuple[AuthorizationFilter, ...]:
    """Those that a listener's own filters ask for, in their order."""
    asked = [f for f in filters if isinstance(f, ExternalAuth)]
    return tuple(
        AuthorizationFilter(_name(f"listener/{i:02}", auth), auth, before_routing=True) for i, auth in enumerate(asked)
    )


def route_filter(auth: ExternalAuth) -> AuthorizationFilter:
    """The one that a route's filter asks for."""
    return AuthorizationFilter(_name("route", auth), auth)


def may_ask(host: VirtualHost) -> bool:
    """Whether a virtual host has any such filter; at a glance, as hardly one has."""
    return bool(host.filters) or any(map(_asks, host.entries))


def _asks(entry: VirtualHostEntry) -> bool:
    rule = entry.rule
    return bool(rule.filters or any(map(_FILTERS, rule.backends))) and bool(_asked_by(rule))


def filters_of(host: VirtualHost) -> tuple[AuthorizationFilter, ...]:
    """Every filter that a virtual host's routes may turn on and that can be served, sorted."""
    found = {f.name: f for f in listener_filters(host.filters)} if host.filters else {}
    seen: Rule | None = None
    for entry in host.entries:
        rule = entry.rule
        if rule is seen:  # matches of a rule mostly follow each other
            continue
        seen = rule
        for made in map(route_filter, _asked_by(rule)):
            found[made.name] = made
    return tuple(found[name] for name in sorted(found) if usable(found[name].auth))


def _asked_by(rule: Rule) -> list[ExternalAuth]:
    asked = [each for each in rule.filters if isinstance(each, ExternalAuth)] if rule.filters else []
    for backend in rule.backends:
        if backend.filters:
            asked += [each for each in backend.filters if isinstance(each, ExternalAuth)]
    return asked


def usable(auth: ExternalAuth) -> bool:
    """Whether the service it asks can be reached; otherwise nothing may pass."""
    return auth.backend.cluster is not None


def enable(target: Any, filters: Iterable[AuthorizationFilter]) -> None:
    """Turn filters on for a Route or VirtualHost message."""
    _configure(target, filters, _ON)


def stand_by(host: Any, filters: Iterable[AuthorizationFilter]) -> None:
    """Have filters ready in a VirtualHost message, for those of its routes that turn them on."""
    _configure(host, filters, _STANDBY)


def _configure(target: Any, filters: Iterable[AuthorizationFilter], config: Any) -> None:
    named = target.metadata.filter_metadata[names.SCOPE_AUTHORIZATION]
    for each in filters:
        target.typed_per_filter_config[each.name].CopyFrom(config)
        target.typed_per_filter_config[each.late].CopyFrom(config)
        named.fields[WANTED].list_value.values.add(string_value=each.name)


def build_filters(each: AuthorizationFilter, settings: EnvoySettings, *, scoped: bool) -> list[Any]:
    """The HttpFilter, off by default, and in a table of scopes its twin."""
    filters = [hcm_pb.HttpFilter(name=each.name, typed_config=pack(_build_config(each, settings)), disabled=True)]
    if scoped:
        config = _build_config(each, settings)
        asked = config.filter_enabled_metadata
        asked.filter = names.AUTHORIZATION
        asked.path.add(key=each.name)
        asked.value.bool_match = True
        filters.append(hcm_pb.HttpFilter(name=each.late, typed_config=pack(config)))
    return filters


def _build_config(each: AuthorizationFilter, settings: EnvoySettings) -> Any:
    """What to ask, and of whom. A service that cannot be asked lets nothing pass."""
    auth = each.auth.auth
    cluster = each.auth.backend.cluster
    assert cluster is not None
    config = ext_authz_pb2.ExtAuthz(
        transport_api_version=config_source_pb2.V3, failure_mode_allow=False, clear_route_cache=each.before_routing
    )
    config.status_on_error.code = 503
    if auth.protocol == "GRPC":
        config.grpc_service.CopyFrom(_grpc_service(cluster, settings))
        allowed = auth.grpc.allowed_headers if auth.grpc else ()
    else:
        http = auth.http
        config.http_service.CopyFrom(_http_service(cluster, auth.http, settings))
        allowed = http.allowed_headers if http else ()
    if allowed:
        config.allowed_headers.patterns.extend(_name_matcher(n) for n in allowed)
    if auth.forward_body is not None and auth.forward_body.max_size:
        config.with_request_body.max_request_bytes = auth.forward_body.max_size
        config.with_request_body.pack_as_bytes = auth.protocol == "GRPC"
    return config


def _grpc_service(cluster: ClusterKey, settings: EnvoySettings) -> Any:
    return grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
            cluster_name=names.cluster(cluster), authority=_authority(cluster)
        ),
        timeout=seconds(settings.authorization_timeout),
    )


def _http_service(cluster: ClusterKey, http: Any, settings: EnvoySettings) -> Any:
    service = ext_authz_pb2.HttpService(
        server_uri=http_uri_pb2.HttpUri(
            uri=f"http://{_authority(cluster)}",
            cluster=names.cluster(cluster),
            timeout=seconds(settings.authorization_timeout),
        )
    )
    if http is not None and http.path:
        service.path_prefix = "/" + http.path.strip("/") if http.path.strip("/") else ""
    copied = http.allowed_response_headers if http is not None else ()
    upstream = service.authorization_response.allowed_upstream_headers.patterns
    if copied:
        upstream.extend(_name_matcher(n) for n in copied if n.lower() not in {"host", ":authority"})
    else:
        # The specification's default: every header of the answer, save the host. Those that frame the answer itself
        # would corrupt the request.
        upstream.append(matcher.regex(all_but(_NEVER_COPIED)))
    return service


def _authority(cluster: ClusterKey) -> str:
    return f"{cluster.backend.name}.{cluster.backend.namespace}"


def _name_matcher(name: str) -> Any:
    return string_pb2.StringMatcher(exact=name.lower(), ignore_case=True)


def all_but(words: Iterable[str]) -> str:
    """RE2 pattern of every header name (without pseudo-headers) except `words`; RE2 has no negative look-ahead."""
    return _complement(sorted(words), first=True)


def _complement(words: list[str], *, first: bool = False) -> str:
    heads: dict[str, list[str]] = {}
    for word in words:
        if word:
            heads.setdefault(word[0], []).append(word[1:])
    excluded = "".join(heads) + (":" if first else "")
    options = [f"[^{excluded}].*"] if excluded else [".+"]
    options += [f"{head}{_complement(rest)}" for head, rest in heads.items()]
    if "" not in words and not first:
        options.append("")
    return f"(?:{'|'.join(options)})"


def _name(place: str, auth: ExternalAuth) -> str:
    digest = hashlib.blake2b(msgspec.json.encode((auth.auth, auth.backend.cluster), order="sorted"), digest_size=8)
    return f"{names.EXT_AUTHZ}/{place}/{digest.hexdigest()}"
