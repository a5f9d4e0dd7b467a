"""What a route or listener does to requests and responses besides forwarding them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from propylon.api.references import BackendObjectReference, LocalObjectReference
from propylon.api.schema import (
    EXPERIMENTAL,
    HEADER_VALUE,
    PATH_PATTERN,
    Constraint,
    Doc,
    HeaderName,
    InExperimental,
    Model,
    PortNumber,
    PreciseHostname,
    atomic,
    keyed,
    one_of,
    set_of,
)

_PATH = Constraint(max_length=1024)


class HTTPHeader(Model, frozen=True):
    """A header to set or add."""

    name: HeaderName
    value: Annotated[str, Constraint(min_length=1, max_length=4096), InExperimental(HEADER_VALUE)]


class HTTPHeaderFilter(Model, frozen=True):
    """Headers to overwrite (`set`), to append (`add`) and to take away (`remove`)."""

    set: Annotated[tuple[HTTPHeader, ...], keyed("name", max=16), Doc("Overwritten, or added if absent.")] = ()
    add: Annotated[tuple[HTTPHeader, ...], keyed("name", max=16), Doc("Appended to what is there.")] = ()
    remove: Annotated[tuple[str, ...], set_of(max=16), Doc("Names of headers to take away.")] = ()


class HTTPPathModifier(Model, frozen=True):
    """A new path: all of it, or in place of the matched prefix."""

    type: Annotated[str, one_of("ReplaceFullPath", "ReplacePrefixMatch")]
    replace_full_path: Annotated[str | None, _PATH] = None
    replace_prefix_match: Annotated[str | None, _PATH] = None


class HTTPRequestRedirectFilter(Model, frozen=True):
    """Answers with a redirect; what is not given is kept from the request."""

    scheme: Annotated[str | None, one_of("http", "https"), Doc("The request's own when absent.")] = None
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None
    port: Annotated[
        PortNumber | None, Doc("By default the scheme's usual port if scheme is given, else the listener's.")
    ] = None
    status_code: Annotated[int, one_of(301, 302, 303, 307, 308)] = 302


class HTTPURLRewriteFilter(Model, frozen=True):
    """Changes host and path of a request before it is forwarded."""

    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None


class Fraction(Model, frozen=True):
    """A share of the requests."""

    numerator: Annotated[int, Constraint(minimum=0, format="int32")]
    denominator: Annotated[int, Constraint(minimum=1, format="int32")] = 100


class HTTPRequestMirrorFilter(Model, frozen=True):
    """Sends a copy of requests (all, a percentage or a fraction) to another backend and ignores its answers."""

    backend_ref: BackendObjectReference
    percent: Annotated[
        int | None,
        Constraint(minimum=0, maximum=100, format="int32"),
        Doc("Share of requests to copy; all when neither percent nor fraction is given."),
    ] = None
    fraction: Fraction | None = None


_CORS_ORIGIN = (
    r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)"  # scheme://host[:port]
)


class HTTPCORSFilter(Model, frozen=True):
    """Which pages of other origins may use the route from a browser."""

    allow_origins: Annotated[
        tuple[Annotated[str, Constraint(pattern=_CORS_ORIGIN, min_length=1, max_length=253)], ...],
        set_of(max=64),
        Doc('Origins such as "https://www.example.com" or "https://*.example.com"; "*" for any.'),
    ] = ()
    allow_credentials: Annotated[bool | None, Doc("Whether cookies and the like may be sent along.")] = None
    allow_methods: Annotated[
        tuple[
            Annotated[str, one_of("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*")],
            ...,
        ],
        set_of(max=9),
    ] = ()
    allow_headers: Annotated[tuple[HeaderName, ...], set_of(max=64)] = ()
    expose_headers: Annotated[tuple[HeaderName, ...], set_of(max=64)] = ()
    max_age: Annotated[
        int, Constraint(minimum=1, format="int32"), Doc("Seconds a browser may remember a preflight's answer.")
    ] = 5


class GRPCAuthConfig(Model, frozen=True):
    """What an external authorizer that speaks Envoy's gRPC protocol gets to see."""

    allowed_headers: Annotated[tuple[str, ...], set_of(max=64)] = ()


class HTTPAuthConfig(Model, frozen=True):
    """How an external authorizer that speaks HTTP is asked, and which of its headers are passed on."""

    path: Annotated[str | None, Constraint(pattern=PATH_PATTERN, max_length=1024)] = None
    allowed_headers: Annotated[tuple[str, ...], set_of(max=64)] = ()
    allowed_response_headers: Annotated[tuple[str, ...], set_of(max=64)] = ()


class ForwardBodyConfig(Model, frozen=True):
    """How much of a request's body the authorizer gets, in bytes."""

    max_size: Annotated[
        int | None, Constraint(minimum=0, format="int32"), Doc("Bytes at most; without it, or when 0, no body is sent.")
    ] = None


class HTTPExternalAuthFilter(Model, frozen=True):
    """Asks another service whether a request may pass."""

    protocol: Annotated[str, one_of("HTTP", "GRPC")]
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBodyConfig | None = None


class HTTPRouteFilter(Model, frozen=True):
    """One filter of an HTTPRoute rule or backend; the field named like its type holds its settings."""

    type: Annotated[
        str,
        one_of(
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "RequestMirror",
            "RequestRedirect",
            "URLRewrite",
            "ExtensionRef",
            "CORS",
        ),
        InExperimental(
            one_of(
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
                "RequestRedirect",
                "URLRewrite",
                "ExtensionRef",
                "CORS",
                "ExternalAuth",
            )
        ),
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    cors: HTTPCORSFilter | None = None
    external_auth: Annotated[HTTPExternalAuthFilter | None, EXPERIMENTAL] = None
    extension_ref: LocalObjectReference | None = None


class GRPCRouteFilter(Model, frozen=True):
    """One filter of a GRPCRoute rule or backend; the field named like its type holds its settings."""

    type: Annotated[str, one_of("ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef")]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None


HTTPFilters = Annotated[tuple[HTTPRouteFilter, ...], atomic(max=16)]
GRPCFilters = Annotated[tuple[GRPCRouteFilter, ...], atomic(max=16)]

__all__ = [name for name, value in globals().items() if isinstance(value, type) and issubclass(value, msgspec.Struct)]
