"""Where the Gateways answer: a table of URLs, and lines that can be pasted into a shell."""

from propylon import api
from propylon.graph import Graph
from propylon.graph.model import Port, PortKey, Route


def render_urls(graph: Graph) -> list[str]:
    """One line per hostname of a listener that serves, with the curl command that reaches it; at most 20 a port."""
    hosts: dict[tuple[api.ObjectKey, int], set[str]] = {}
    for route in graph.routes.snapshot().values():
        for place, hostname in _hostnames(route):
            hosts.setdefault(place, set()).add(hostname)
    lines: list[str] = []
    for key, port in graph.ports.items():
        lines += _of_port(key, port, hosts.get((key.gateway, key.port), set()))
    return lines


def _hostnames(route: Route) -> list[tuple[tuple[api.ObjectKey, int], str]]:
    return [
        ((parent.gateway, attachment.port), effective.hostname)
        for parent in route.parents
        for attachment in parent.attachments
        for effective in attachment.effective
    ]


def _of_port(key: PortKey, port: Port, hostnames: set[str]) -> list[str]:
    if not port.addresses:
        return []
    address = port.addresses[0]
    shown = f"[{address}]" if ":" in address else address
    gateway = "/".join(key.gateway)
    protocols = {listener.protocol for listener in port.listeners}
    if not protocols & {"HTTP", "HTTPS"}:
        return [f"{gateway}  {'+'.join(sorted(protocols)).lower()}://{shown}:{port.bound_port}"]
    scheme = "https" if "HTTPS" in protocols else "http"
    lines = []
    for hostname in sorted(hostnames)[:20]:
        host = hostname.replace("*", "any", 1) if hostname.startswith("*.") else hostname
        default = {"http": 80, "https": 443}[scheme]
        suffix = "" if port.bound_port == default else f":{port.bound_port}"
        if host == "*":
            lines.append(f"{gateway}  {scheme}://{shown}{suffix}/")
        else:
            resolve = f"--resolve {host}:{port.bound_port}:{address}"
            insecure = "-k " if scheme == "https" else ""
            lines.append(f"{gateway}  curl {insecure}{resolve} {scheme}://{host}{suffix}/")
    return lines
