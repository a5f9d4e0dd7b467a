"""Redirects that lead to themselves: each is followed with a request made from its own match."""

from collections.abc import Iterator
from typing import NamedTuple

from propylon.explain import ExplainError, Explanation, Request, Settings, explain
from propylon.graph import Graph
from propylon.graph.model import PortKey, Redirect, VirtualHost, VirtualHostEntry

MOST_STEPS = 10
"""Browsers give up after about twenty redirects; who has not arrived after ten does not either."""


class Loop(NamedTuple):
    """A rule whose redirect comes back to it, and the URLs on the way."""

    entry: VirtualHostEntry
    match: int
    urls: tuple[str, ...]


def redirect_loops(graph: Graph) -> Iterator[Loop]:
    """Rules that redirect, followed from every virtual host; each rule once."""
    seen = set()
    settings = Settings(endpoints_known=False, candidates=1)
    for host in graph.virtual_hosts.snapshot().values():
        for entry in host.entries:
            place = (entry.route, entry.rule.index)
            if place in seen or not any(isinstance(each, Redirect) for each in entry.rule.filters):
                continue
            urls = _follow(graph, host, entry, settings)
            if urls:
                seen.add(place)
                yield Loop(entry, entry.rule.matches.index(entry.match), urls)


def example(graph: Graph, host: VirtualHost, entry: VirtualHostEntry) -> Request | None:
    """A request that the entry takes, if one can be made: not for expressions."""
    match = entry.match
    values = (*match.headers, *match.query)
    if match.path_type == "RegularExpression" or any(value.type != "Exact" for value in values):
        return None
    table = host.key.table
    port = graph.ports.get(PortKey(table.gateway, table.port, "TCP"))
    if port is None:
        return None
    name = host.key.hostname.replace("*", "www") if host.key.hostname != "*" else "www.example.com"
    query = "&".join(f"{each.name}={each.value}" for each in match.query)
    url = (
        f"{'https' if table.listener else 'http'}://{name}:{port.bound_port}{match.path}{'?' + query if query else ''}"
    )
    headers = tuple((each.name, each.value) for each in match.headers)
    return Request(url, match.method or "GET", headers, str(table.gateway))


def _follow(graph: Graph, host: VirtualHost, entry: VirtualHostEntry, settings: Settings) -> tuple[str, ...]:
    request = example(graph, host, entry)
    urls: list[str] = []
    while request is not None and len(urls) < MOST_STEPS:
        try:
            answer: Explanation = explain(graph, request, settings)
        except ExplainError:
            return ()
        if answer.outcome != "redirected" or not answer.location:
            return ()
        urls.append(request.url)
        if answer.location in urls or _same(answer.location, request.url):
            return (*urls, answer.location)
        request = Request(answer.location, request.method, request.headers, request.gateway)
    return tuple(urls) if len(urls) == MOST_STEPS else ()


def _same(location: str, url: str) -> bool:
    """Whether two URLs are one: default ports may be written or not."""

    def plain(text: str) -> str:
        scheme, _, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority.removesuffix({'http': ':80', 'https': ':443'}.get(scheme, ''))}{slash}{path}"

    return plain(location) == plain(url)
