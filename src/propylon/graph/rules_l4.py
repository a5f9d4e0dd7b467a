"""Rules of TLSRoutes, TCPRoutes and UDPRoutes: nothing but backends."""

from collections.abc import Sequence

from propylon import api
from propylon.graph.model import Finding, Rule
from propylon.graph.rules import Rules, summarize
from propylon.graph.targets import Resolver


def build_l4_rules(resolver: Resolver, spec: api.TLSRouteSpec | api.TCPRouteSpec | api.UDPRouteSpec) -> Rules:
    """Resolve the backends of each rule."""
    rules: list[Rule] = []
    findings: list[Finding] = []
    written: Sequence[api.TLSRouteRule | api.TCPRouteRule | api.UDPRouteRule] = spec.rules
    for index, rule in enumerate(written):
        backends = tuple(
            resolver.backend(ref, f"spec.rules[{index}].backendRefs[{i}]", ref.weight)
            for i, ref in enumerate(rule.backend_refs)
        )
        findings.extend(backend.finding for backend in backends if backend.finding is not None)
        rules.append(Rule(index, rule.name, (), backends=backends))
    return summarize(len(spec.rules), rules, {}, findings)
