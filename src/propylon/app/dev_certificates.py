"""`--dev-certs`: the Secrets that listeners name and nobody made, issued by a local authority."""

import ipaddress
from collections.abc import Callable, Iterable
from typing import NamedTuple

from propylon import api

ANNOTATION = "propylon.dev/dev-certificate"
"""On a Secret that we issued: its names, comma-separated. A Secret without it is somebody else's: left alone."""


class Wanted(NamedTuple):
    """A Secret to issue: DNS names and IP addresses for its certificate."""

    secret: api.ObjectKey
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]

    @property
    def annotation(self) -> str:
        """What ANNOTATION says of it."""
        return ",".join((*self.dns_names, *self.ip_addresses))


def wanted_certificates(
    holders: Iterable[tuple[api.ObjectKey, tuple[api.Listener | api.ListenerEntry, ...], tuple[str, ...]]],
) -> tuple[Wanted, ...]:
    """One certificate per Secret named by terminating listeners.

    `holders`: Gateways and ListenerSets with their listeners and the Gateway's addresses. A listener without a hostname
    gets `localhost`, `*.localhost` and the addresses.
    """
    names: dict[api.ObjectKey, dict[str, None]] = {}
    for key, listeners, addresses in holders:
        for listener in listeners:
            if listener.tls is None or (listener.tls.mode or "Terminate") != "Terminate":
                continue
            for ref in listener.tls.certificate_refs:
                if (ref.group or "", ref.kind or "Secret") == ("", "Secret"):
                    wanted = names.setdefault(api.ObjectKey(ref.namespace or key.namespace, ref.name), {})
                    hosts = (
                        (listener.hostname.lower(),) if listener.hostname else ("localhost", "*.localhost", *addresses)
                    )
                    wanted.update(dict.fromkeys(hosts))
    return tuple(_wanted(secret, tuple(hosts)) for secret, hosts in sorted(names.items()))


def _wanted(secret: api.ObjectKey, names: tuple[str, ...]) -> Wanted:
    addresses = tuple(n for n in names if _is_address(n))
    return Wanted(secret, tuple(n for n in names if n not in addresses), addresses)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def plan_dev_certificates(
    wanted: Iterable[Wanted], existing: Callable[[api.ObjectKey], api.Secret | None]
) -> tuple[Wanted, ...]:
    """Those that are missing, and those of ours whose names changed."""
    return tuple(w for w in wanted if _is_due(w, existing(w.secret)))


def _is_due(wanted: Wanted, secret: api.Secret | None) -> bool:
    if secret is None:
        return True
    issued_for = secret.metadata.annotations.get(ANNOTATION)
    return issued_for is not None and issued_for != wanted.annotation
