"""What a client meets before its first request: certificates, and whether it has to show one itself."""

import msgspec

from propylon.api import ObjectKey
from propylon.diff.answers import Side, fingerprint
from propylon.explain.places import Chosen
from propylon.graph.model import Listener, SecretKey


def handshake(side: Side, chosen: Chosen) -> dict[str, str] | None:
    """By name what a handshake is made of; None where no TLS is terminated."""
    listener = _listener(side, chosen)
    if listener is None or listener.tls is None or listener.tls.mode != "Terminate":
        return None
    gateway = listener.key.gateway
    found = {"certificate": ", ".join(_certificate(side, gateway, key) for key in listener.tls.certificates)}
    client = listener.tls.client_validation
    if client is not None:
        authority = side.graph.secrets.get((gateway, client.secret))
        said = fingerprint("authority", authority.chain) if authority is not None else "no authority"
        found["client certificates"] = f"{'required' if client.required else 'optional'}, {said}"
    if listener.tls.options:
        found["TLS options"] = ", ".join(
            f"{k} {v}" for k, v in sorted(msgspec.to_builtins(listener.tls.options).items())
        )
    return found


def _listener(side: Side, chosen: Chosen) -> Listener | None:
    if chosen.listener is not None:
        return chosen.listener
    return side.graph.listeners.get(chosen.route.listener) if chosen.route is not None else None


def _certificate(side: Side, gateway: ObjectKey, key: SecretKey) -> str:
    name = f"Secret {key.namespace}/{key.name}"
    found = side.graph.secrets.get((gateway, key))
    if found is None or key in side.issued:
        return f"{name} (of the local authority)" if key in side.issued else name
    return fingerprint(name, found.chain)
