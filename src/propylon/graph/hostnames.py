"""Hostnames: matching, intersection, specificity. The one place that knows how `*.example.com` behaves.

Everywhere "*" stands for every host, and hostnames are lower case (RFC 4343). A wildcard label matches one or more
labels: `*.example.com` takes `a.b.example.com`, but not `example.com` (Gateway API, `Hostname`).
"""

from collections.abc import Iterable, Iterator

from propylon.graph.model import EffectiveHostname

ANY = "*"


def normalized(hostname: str | None) -> str:
    """Return the hostname as everything here wants it: lower case, "*" if there is none."""
    return hostname.lower() if hostname else ANY


def is_wildcard(hostname: str) -> bool:
    """Tell whether the hostname stands for many hosts."""
    return hostname.startswith("*")


def covers(broad: str, narrow: str) -> bool:
    """Tell whether every host of `narrow` is one of `broad`; both may be wildcards."""
    if broad in {ANY, narrow}:
        return True
    return broad.startswith("*.") and narrow != ANY and narrow.endswith(broad[1:])


def intersection(one: str, other: str) -> str | None:
    """Return the hosts that both take: the narrower of the two, or None if they have none in common."""
    if one == ANY:
        return other  # as mostly: the listener takes every host
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def wider(hostname: str) -> str:
    """Return the most specific wildcard that covers the hostname and more; "*" has none but itself."""
    dot = hostname.find(".", 2 if hostname.startswith("*") else 0)
    return ANY if dot < 0 else "*" + hostname[dot:]


def ancestors(hostname: str) -> Iterator[str]:
    """Yield the hostname, then every wildcard that covers it, the most specific first, at last "*"."""
    yield hostname
    while hostname != ANY:
        hostname = wider(hostname)
        yield hostname


def specificity(hostname: str) -> tuple[int, int]:
    """Return a sort key, most specific first: exact names before wildcards, longer before shorter, "*" and "" last."""
    if hostname in {"", ANY}:
        return (1, 0)
    return (1 if is_wildcard(hostname) else 0, -len(hostname))


def effective(route: Iterable[str], listener: str) -> tuple[EffectiveHostname, ...]:
    """Intersect the hostnames of a route (none: every host) with the listener's ("" or "*": every host).

    Where several hostnames of the route lead to the same host, the most specific one is kept: precedence goes by it.
    """
    listener = normalized(listener)
    written = tuple(route)
    if not written:
        return (EffectiveHostname(listener, ""),)
    if len(written) == 1:
        original = normalized(written[0])
        common = intersection(listener, original)
        return () if common is None else (EffectiveHostname(common, original),)
    found: dict[str, str] = {}
    for hostname in written:
        original = normalized(hostname)
        common = intersection(listener, original)
        if common is not None and (common not in found or specificity(original) < specificity(found[common])):
            found[common] = original
    return tuple(EffectiveHostname(hostname, original) for hostname, original in found.items())
