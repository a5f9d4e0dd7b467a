"""Certificates of listeners: their time, and whether they name the hosts that are served with them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from propylon import api
from propylon.certificates.x509 import CertificateError, Names, names_of, read_chain
from propylon.graph import Graph
from propylon.graph.hostnames import is_wildcard
from propylon.graph.model import Listener, ListenerKey

SOON = timedelta(days=14)


class Doubt(NamedTuple):
    """What is wrong with a certificate of a listener."""

    listener: Listener
    code: str
    message: str
    remedy: str


def certificate_doubts(graph: Graph, now: datetime) -> Iterator[Doubt]:
    """Look at the usable certificates of every listener; `now` is aware."""
    hosts = _hosts_by_listener(graph)
    for listener in graph.listeners.snapshot().values():
        if listener.tls is None or listener.tls.mode != "Terminate":
            continue
        names: list[Names] = []
        complete = bool(listener.tls.certificates)
        for key in listener.tls.certificates:
            certificate = graph.secrets.get((listener.key.gateway, key))
            try:
                leaf = read_chain(certificate.chain)[0] if certificate is not None else None
                names.append(names_of(certificate.chain) if certificate is not None else Names())
            except CertificateError:
                leaf = None
            if leaf is None:
                complete = False
                continue
            yield from _of_time(listener, f"Secret {key.namespace}/{key.name}", leaf, now)
        if complete:
            yield from _of_names(listener, hosts.get(listener.key, set()), names)


def _of_time(listener: Listener, what: str, leaf: x509.Certificate, now: datetime) -> Iterator[Doubt]:
    remedy = "renew it: browsers refuse it"
    end, begin = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    if end < now:
        yield Doubt(listener, "certificate_expired", f"{what}: the certificate ended {end:%Y-%m-%d}", remedy)
    elif begin > now:
        yield Doubt(listener, "certificate_expired", f"{what}: the certificate begins only {begin:%Y-%m-%d}", remedy)
    elif end - now < SOON:
        yield Doubt(listener, "certificate_expires_soon", f"{what}: the certificate ends {end:%Y-%m-%d}", "renew it")


def _hosts_by_listener(graph: Graph) -> dict[ListenerKey, set[str]]:
    """Hostnames under which routes are reachable through each listener."""
    hosts: dict[ListenerKey, set[str]] = {}
    for route in graph.routes.snapshot().values():
        for parent in route.parents:
            for attachment in parent.attachments:
                names = {each.hostname for each in attachment.effective if each.hostname not in {"", "*"}}
                hosts.setdefault(attachment.listener, set()).update(names)
    return hosts


def _of_names(listener: Listener, attached: set[str], names: list[Names]) -> Iterator[Doubt]:
    wanted = set(attached)
    if listener.hostname and not is_wildcard(listener.hostname):
        wanted.add(listener.hostname)
    missing = sorted(host for host in wanted if not any(each.covers(host) for each in names))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        message = f"no certificate of the listener names {', '.join(missing[:3])}{more}: browsers refuse it there"
        has = ", ".join(sorted({name for each in names for name in each.dns})[:5]) or "no DNS name at all"
        yield Doubt(listener, "certificate_hostname", message, f"issue one that does; it names {has}")


def holder_of(listener: Listener) -> api.ObjectRef:
    """The Gateway or ListenerSet that a listener is written in."""
    return api.ObjectRef(api.GATEWAY_GROUP, listener.key.kind, listener.key.namespace, listener.key.name)
