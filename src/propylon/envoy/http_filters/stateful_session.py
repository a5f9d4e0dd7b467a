"""Session persistence (GEP-1619) by Envoy's stateful_session filter: the endpoint's address travels in a cookie or
a header, so that any proxy of the fleet finds it again.

The filter works within one cluster. Where a rule splits traffic among several backends, a second cookie keeps a session
on the one it was given. A session that travels in a header has no room for that: its endpoint is found again only if
the split happens to fall on the same backend, which is why rules with weights should use cookies.
"""

import hashlib
from typing import Any

import re2
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2

from propylon import api
from propylon.envoy import matcher, names
from propylon.envoy.resource import pack, seconds
from propylon.graph.model import ClusterKey, ResponseHeaders, Session


def build_filter() -> Any:
    """The HttpFilter: does nothing on routes without a session."""
    return hcm_pb.HttpFilter(name=names.STATEFUL_SESSION, typed_config=pack(stateful_session_pb2.StatefulSession()))


def configure_route(route: Any, session: Session, *, secure: bool) -> None:
    """Keep sessions on this route; `secure` when clients come over TLS."""
    per_route = stateful_session_pb2.StatefulSessionPerRoute(
        stateful_session=stateful_session_pb2.StatefulSession(session_state=_state(session, secure=secure))
    )
    route.typed_per_filter_config[names.STATEFUL_SESSION].CopyFrom(pack(per_route))


def pins_backends(session: Session | None) -> bool:
    """Whether sessions of a rule with several backends can be kept on one of them."""
    return session is not None and session.type == "Cookie"


def pinning_filter(session: Session, cluster: ClusterKey, *, secure: bool) -> ResponseHeaders:
    """What the answers of a backend carry so that the next request comes to it again."""
    parts = [f"{_pin_name(session)}={_pin(cluster)}", f"Path={session.path or '/'}", "HttpOnly"]
    if session.permanent and session.absolute_timeout:
        parts.append(f"Max-Age={round(session.absolute_timeout)}")
    if secure:
        parts.append("Secure")
    cookie = api.HTTPHeader(name="set-cookie", value="; ".join(parts))
    return ResponseHeaders(api.HTTPHeaderFilter(add=(cookie,)))


def build_pin_match(session: Session, cluster: ClusterKey) -> Any:
    """HeaderMatcher of requests that were given to this backend before."""
    pair = f"{re2.escape(_pin_name(session))}={_pin(cluster)}"
    return matcher.header("cookie", matcher.regex(f"(?:.*; *)?{pair}(?:;.*)?"))


def _pin_name(session: Session) -> str:
    return f"{session.name}-backend"


def _pin(cluster: ClusterKey) -> str:
    return hashlib.blake2b(names.cluster(cluster).encode(), digest_size=6).hexdigest()


def _state(session: Session, *, secure: bool) -> Any:
    if session.type == "Header":
        state: Any = header_pb2.HeaderBasedSessionState(name=session.name.lower())
        return extension_pb2.TypedExtensionConfig(name="envoy.http.stateful_session.header", typed_config=pack(state))
    cookie = http_cookie_pb2.Cookie(name=session.name, path=session.path or "/")
    # Without a lifetime the browser forgets it: a session cookie.
    if session.permanent and session.absolute_timeout:
        cookie.ttl.CopyFrom(seconds(session.absolute_timeout))
    # Envoy adds HttpOnly by itself.
    if secure:
        cookie.attributes.add(name="Secure")
    state = cookie_pb2.CookieBasedSessionState(cookie=cookie)
    return extension_pb2.TypedExtensionConfig(name="envoy.http.stateful_session.cookie", typed_config=pack(state))
