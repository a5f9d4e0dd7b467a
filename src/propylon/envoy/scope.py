"""Scopes: the hostnames of a large route table as resources that change alone.

In one RouteConfiguration a change of one hostname makes Envoy read all of them again (121 ms at 10,000). With scoped
RDS every exact hostname is a ScopedRouteConfiguration of its own, found by a header made of the table and the request's
Host (2 ms at any number). Wildcards, hostnames without routes and all else are in one more scope, "*". Requests find it
through a filter that runs only where no scope was found: the RouteConfiguration of each scope disables it, and ends in
a 404 of its own, for a host that has routes does not fall through to wildcards.

Envoy gives every scope of a proxy to every HTTP connection manager that asks for scopes, so keys name their table. All
of them share one subscription, for whose first response only the Listener waits that began it: the others, and all that
come later, would serve before their scopes are there. So each waits for an HTTP filter of its table besides, which is
discovered (ECDS), does nothing, and is sent when all scopes are there.
"""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2 as header_mutation_filter_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from propylon.envoy import names
from propylon.envoy.resource import TYPE_PREFIX, ads, pack, serialize
from propylon.graph.model import RouteTableKey

HEADER = "x-propylon-scope"
"""Overwritten in every request, and taken away before backends see it."""
ANY = "*"

_FALLBACK_SOURCE = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local host = string.lower(headers:get(":authority") or "")
  host = string.gsub(string.gsub(host, ":%d+$", ""), "%.$", "")
  headers:replace("{header}", "{table}|" .. host)
  handle:clearRouteCache()
  handle:metadata()
  if handle:streamInfo():routeName() == "" then
    headers:replace("{header}", "{table}|*")
    handle:clearRouteCache()
  end
end
"""
"""`metadata` has the route resolved again. Every route of ours has a name, so "" says that there is none.
It resolves once a filter, so what the route found in the end says is read by another one."""
_AUTHORIZATION_SOURCE = """
function envoy_on_request(handle)
  handle:metadata()
  for _, found in ipairs({handle:route():metadata(), handle:virtualHost():metadata()}) do
    for _, name in ipairs(found:get("{wanted}") or {}) do
      handle:streamInfo():dynamicMetadata():set("{asked}", name, true)
    end
  end
end
"""


def scope_key(table: RouteTableKey, hostname: str) -> str:
    """What a request's header must say to find a scope: `http/80|www.example.com`, "*" for what has none of its own."""
    return f"{names.route_configuration(table)}|{hostname}"


def scope_name(table: RouteTableKey, hostname: str) -> str:
    """Name of the resource: port and digest of the key, `80|` and 16 characters. Its RouteConfiguration bears the key.

    Envoy copies all names of scopes whenever one scope changes. Up to 22 bytes a name is copied without being
    allocated, which is 1.4 instead of 3.8 ms of its time at 10,000 scopes.
    """
    digest = hashlib.blake2b(scope_key(table, hostname).encode(), digest_size=12).digest()
    return f"{table.port}|{urlsafe_b64encode(digest).decode()}"


def is_exact(hostname: str) -> bool:
    """Whether a virtual host can be a scope."""
    return not hostname.startswith("*")


def build_scoped_routes(table: RouteTableKey) -> Any:
    """Where an HTTP connection manager has its routes from: by the header, up to the port of the Host in it."""
    out = hcm_pb.ScopedRoutes(name=names.route_configuration(table), rds_config_source=ads())
    out.scoped_rds.scoped_rds_config_source.CopyFrom(ads())
    extractor = out.scope_key_builder.fragments.add().header_value_extractor
    extractor.name = HEADER
    extractor.element_separator = ":"
    extractor.index = 0
    return out


def build_scope_mutation(table: RouteTableKey) -> Any:
    """The header, written before routes are looked for."""
    value = base_pb2.HeaderValue(key=HEADER, value=f"{names.route_configuration(table)}|%REQ(:authority)%")
    option = base_pb2.HeaderValueOption(
        header=value, append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    )
    mutation = header_mutation_pb2.HeaderMutation(mutations=[mutation_rules_pb2.HeaderMutation(append=option)])
    return extension_pb2.TypedExtensionConfig(name="scope", typed_config=pack(mutation))


def build_fallback_filter(table: RouteTableKey) -> Any:
    """The HTTP filter for requests that found no scope: other spelling of the Host, wildcards, unknown hosts."""
    source = _FALLBACK_SOURCE.replace("{header}", HEADER).replace("{table}", names.route_configuration(table))
    return _lua(names.SCOPE_FALLBACK, source)


def build_completeness_filter(table: RouteTableKey) -> Any:
    """The HTTP filter that a Listener waits for until the table's scopes are there. Requests never get to see it."""
    out = hcm_pb.HttpFilter(name=names.scopes_complete(table), disabled=True)
    out.config_discovery.config_source.CopyFrom(ads())
    out.config_discovery.type_urls.append(TYPE_PREFIX + header_mutation_filter_pb2.HeaderMutation.DESCRIPTOR.full_name)
    return out


def build_completeness(table: RouteTableKey) -> bytes:
    """What it waits for, to be sent after all scopes: a TypedExtensionConfig that changes no header."""
    nothing = header_mutation_filter_pb2.HeaderMutation()
    return serialize(extension_pb2.TypedExtensionConfig(name=names.scopes_complete(table), typed_config=pack(nothing)))


def build_authorization_filter(wanted: str) -> Any:
    """The HTTP filter after it: tells authorization filters that could not know their route when they were set up.

    `wanted`: key in the metadata of routes and virtual hosts that has the names of those they want (see `ext_authz`).
    """
    source = _AUTHORIZATION_SOURCE.replace("{asked}", names.AUTHORIZATION).replace("{wanted}", wanted)
    return _lua(names.SCOPE_AUTHORIZATION, source)


def _lua(name: str, source: str) -> Any:
    lua = lua_pb2.Lua()
    lua.default_source_code.inline_string = source
    return hcm_pb.HttpFilter(name=name, typed_config=pack(lua))


def build_not_found() -> Any:
    """The last route of a scope."""
    route = route_pb.Route(name="none", match=route_pb.RouteMatch(prefix=""))
    route.direct_response.status = 404
    return route


def build_scope(table: RouteTableKey, hostname: str, fragment: bytes) -> bytes:
    """ScopedRouteConfiguration of one exact hostname; `fragment` is its virtual host as a RouteConfiguration."""
    head = route_pb2.RouteConfiguration(name=scope_key(table, hostname), ignore_port_in_host_matching=True)
    for name in (names.SCOPE_FALLBACK, names.SCOPE_AUTHORIZATION):
        head.typed_per_filter_config[name].CopyFrom(pack(route_pb.FilterConfig(disabled=True)))
    return _scope(table, hostname, head, fragment)


def build_fallback_scope(table: RouteTableKey, route_configuration: bytes) -> bytes:
    """ScopedRouteConfiguration of all that has no scope of its own."""
    return _scope(table, ANY, route_pb2.RouteConfiguration(), route_configuration)


def _scope(table: RouteTableKey, hostname: str, head: Any, body: bytes) -> bytes:
    head.request_headers_to_remove.append(HEADER)
    head.validate_clusters.value = False  # as by RDS: a share that leads nowhere is refused alone, not with its host
    out = scoped_route_pb2.ScopedRouteConfiguration(name=scope_name(table, hostname))
    out.key.fragments.add(string_key=scope_key(table, hostname))
    out.route_configuration.MergeFromString(serialize(head) + body)
    return serialize(out)
