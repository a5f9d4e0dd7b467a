"""Session persistence (GEP-1619) by Envoy's stateful_session filter: the endpoint's address travels in a cookie or
a header, so that any proxy of the fleet finds it again."""

from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2

from propylon.envoy import names
from propylon.envoy.resource import pack, seconds
from propylon.graph.model import Session


def build_filter() -> Any:
    """The HttpFilter: does nothing on routes without a session."""
    return hcm_pb.HttpFilter(name=names.STATEFUL_SESSION, typed_config=pack(stateful_session_pb2.StatefulSession()))


def configure_route(route: Any, session: Session, *, secure: bool) -> None:
    """Keep sessions on this route; `secure` when clients come over TLS."""
    per_route = stateful_session_pb2.StatefulSessionPerRoute(
        stateful_session=stateful_session_pb2.StatefulSession(session_state=_state(session, secure=secure))
    )
    route.typed_per_filter_config[names.STATEFUL_SESSION].CopyFrom(pack(per_route))


def _state(session: Session, *, secure: bool) -> Any:
    if session.type == "Header":
        state: Any = header_pb2.HeaderBasedSessionState(name=session.name.lower())
        return extension_pb2.TypedExtensionConfig(name="envoy.http.stateful_session.header", typed_config=pack(state))
    cookie = http_cookie_pb2.Cookie(name=session.name, path=session.path or "/")
    # Without a lifetime the browser forgets it: a session cookie.
    if session.permanent and session.absolute_timeout:
        cookie.ttl.CopyFrom(seconds(session.absolute_timeout))
    cookie.attributes.add(name="HttpOnly")
    if secure:
        cookie.attributes.add(name="Secure")
    state = cookie_pb2.CookieBasedSessionState(cookie=cookie)
    return extension_pb2.TypedExtensionConfig(name="envoy.http.stateful_session.cookie", typed_config=pack(state))
