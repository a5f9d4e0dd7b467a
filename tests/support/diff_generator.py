"""Pairs of manifest sets: a random one, and the same with something changed; a random request for both."""

import copy
import random

from propylon import api
from propylon.api.validation import validate
from propylon.app.configuration import UpOptions
from propylon.app.offline import Snapshot
from propylon.explain import ExplainError, Request
from propylon.explain import explain as explain_in
from propylon.explain.walk import Settings
from support.envoy_certificates import Authority
from support.explain_generator import SERVICES, Generator

PORTS = (18080, 18081, 18443, 15432, 15353)


def certificate():
    import base64

    pair = Authority().issue("*.test", "*.a.test", "*.x.a.test", "a.test")
    return tuple(base64.b64encode(part).decode() for part in (pair.chain, pair.private_key))


def snapshot(documents, tmp_path):
    found = {}
    for document in documents:
        if any(finding.severity == "error" for finding in validate(document)):
            continue
        metadata = document["metadata"]
        group = api.meta.group_of(document["apiVersion"])
        found[api.ObjectRef(group, document["kind"], metadata.get("namespace", ""), metadata["name"])] = document
    return Snapshot(found, UpOptions(data_dir=tmp_path))


class Mutator:
    """Changes one thing of a manifest set."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.generator = Generator(seed + 1, PORTS, wide=True)

    def mutated(self, documents):
        """A copy with one change, and what was done."""
        copied = copy.deepcopy(documents)
        routes = [d for d in copied if d["kind"].endswith("Route")]
        for _ in range(50):
            act = self.random.choice(
                [
                    self._drop,
                    self._match,
                    self._match,
                    self._backend,
                    self._filter,
                    self._hostname,
                    self._listener,
                    self._order,
                    self._weight,
                    self._service,
                ]
            )
            done = act(copied, routes)
            if done:
                return copied, done
        return copied, ""

    def _http(self, routes):
        found = [d for d in routes if d["kind"] == "HTTPRoute"]
        return self.random.choice(found) if found else None

    def _rule(self, routes):
        route = self._http(routes)
        return (route, self.random.choice(route["spec"]["rules"])) if route else (None, None)

    def _drop(self, documents, routes):
        route = self.random.choice(routes)
        documents.remove(route)
        return f"dropped {route['kind']} {route['metadata']['name']}"

    def _match(self, documents, routes):
        route, rule = self._rule(routes)
        if route is None:
            return ""
        matches = rule.setdefault("matches", [{}])
        index = self.random.randrange(len(matches))
        matches[index] = self.generator.match()
        return f"match {index} of {route['metadata']['name']}: {matches[index]}"

    def _backend(self, documents, routes):
        route, rule = self._rule(routes)
        if route is None or not rule.get("backendRefs"):
            return ""
        ref = self.random.choice(rule["backendRefs"])
        ref["name"] = f"s{self.random.randrange(SERVICES)}"
        return f"backend of {route['metadata']['name']}: {ref}"

    def _weight(self, documents, routes):
        route, rule = self._rule(routes)
        if route is None or not rule.get("backendRefs"):
            return ""
        ref = self.random.choice(rule["backendRefs"])
        ref["weight"] = self.random.randint(0, 5)
        return f"weight of {route['metadata']['name']}: {ref}"

    def _filter(self, documents, routes):
        route, rule = self._rule(routes)
        if route is None:
            return ""
        rule["filters"] = self.generator.filters("m")
        if any(f["type"] == "RequestRedirect" for f in rule["filters"]):
            rule.pop("backendRefs", None)
        return f"filters of {route['metadata']['name']}: {rule['filters']}"

    def _hostname(self, documents, routes):
        route = self.random.choice(routes)
        hostnames = route["spec"].get("hostnames")
        if not hostnames:
            route["spec"]["hostnames"] = ["a.test"]
        else:
            hostnames.pop()
            if not hostnames:
                del route["spec"]["hostnames"]
        return f"hostnames of {route['metadata']['name']}: {route['spec'].get('hostnames')}"

    def _listener(self, documents, routes):
        holder = self.random.choice([d for d in documents if d["kind"] in {"Gateway", "ListenerSet"}])
        listener = self.random.choice(holder["spec"]["listeners"])
        if self.random.random() < 0.5 and listener["protocol"] not in {"TCP", "UDP"}:
            listener["hostname"] = self.random.choice(["a.test", "*.test", "x.a.test"])
            return f"hostname of listener {listener}"
        if len(holder["spec"]["listeners"]) > 1:
            holder["spec"]["listeners"].remove(listener)
            return f"dropped listener {listener}"
        return ""

    def _order(self, documents, routes):
        route = self.random.choice(routes)
        route["metadata"]["creationTimestamp"] = f"2026-01-0{self.random.randint(1, 5)}T00:00:00Z"
        return f"age of {route['metadata']['name']}"

    def _service(self, documents, routes):
        services = [d for d in documents if d["kind"] == "Service" and d["metadata"]["namespace"] == "default"]
        if self.random.random() > 0.3 or not services:
            return ""
        service = self.random.choice(services)
        documents.remove(service)
        return f"dropped Service {service['metadata']['name']}"


def asked(request):
    scheme, port, sni, authority, method, target, headers = request
    if scheme in {"tcp", "udp"}:
        return Request(f"{scheme}://:{port}", gateway="default/gw")
    url = f"{scheme}://{sni}:{port}{target}"
    return Request(url, method, (("Host", authority), *headers), "default/gw", sni if scheme == "https" else None)


def answer(snapshot_, request):
    """What explain says that a client or backend would notice."""
    try:
        found = explain_in(snapshot_.graph, request, Settings(endpoints_known=False, candidates=1))
    except ExplainError as error:
        return str(error)
    ways = {}
    for b in found.backends:
        seen = (b.outcome, b.status, b.location, b.name if b.status is None else "", b.protocol, b.tls, b.path, b.host)
        key = (*seen, tuple(sorted(b.headers))) if b.outcome == "forwarded" else seen[:4]
        ways[key] = round(ways.get(key, 0) + b.share, 6)
    single = found.outcome != "forwarded"
    return (found.outcome, found.status, found.location, None if single and found.outcome != "redirected" else ways)
