"""The oracle: what `explain` says of a request against what real Envoy does with it.

A disagreement is shrunk: objects, rules, matches, filters and backends are taken away while it persists.
"""

import base64
import contextlib
import copy
import http.client
import json
import socket
import ssl
import time
from collections import Counter

import yaml

from propylon import api
from propylon.api.validation import validate
from propylon.app.controller import Controller
from propylon.envoy import EnvoySettings
from propylon.explain import ExplainError, Request, explain
from propylon.explain import Settings as ExplainSettings
from propylon.graph import GatewayAddresses, Settings
from propylon.graph.model import BackendKey, Endpoint
from support.envoy_certificates import Authority
from support.envoy_proxy import Proxy, free_port
from support.explain_backends import EchoPorts
from support.explain_generator import SERVICES, Generator

GATEWAY = api.ObjectKey("default", "gw")
DATAGRAM_PATIENCE = 0.25
"""Seconds for an answer to a datagram; one that was forwarded is sent again while `PATIENCE` lasts."""
PATIENCE = 5.0
"""Seconds for what Envoy acknowledged to reach all of its threads."""


class World:
    """A Graph and Envoy's configuration of it."""

    def __init__(self, documents, ports, trusted_hops=0):
        self.trusted_hops = trusted_hops
        self.controller = Controller(Settings(), EnvoySettings(access_log=False, trusted_hops=trusted_hops))
        sources = self.controller.sources
        for document in documents:
            if any(finding.severity == "error" for finding in validate(document)):
                continue
            filled = api.apply_defaults(document)
            metadata = filled["metadata"]
            ref = api.ObjectRef(
                api.meta.group_of(filled["apiVersion"]), filled["kind"], metadata.get("namespace", ""), metadata["name"]
            )
            self.controller.set_document(ref, filled)
        local = ("127.0.0.1",)
        sources.addresses.set(GATEWAY, GatewayAddresses(tuple(api.GatewayStatusAddress(a) for a in local), local))
        for number in range(SERVICES):
            for namespace, shift in (("default", 0), ("other", SERVICES)):
                key = BackendKey("Service", namespace, f"s{number}", 0)
                sources.endpoint_overrides.set(key, (Endpoint("127.0.0.1", ports[number + shift]),))
        failures = self.controller.commit().failures
        assert not failures, failures

    def resources(self):
        """As support.envoy_proxy.Proxy takes them."""
        found = (
            resource for part in self.controller.translation for (node, _), resource in part.items() if node == GATEWAY
        )
        return {(resource.type_url, resource.name): resource for resource in found}


class Oracle:
    """One Envoy that is given one world after another."""

    def __init__(self):
        self.ports = [*(free_port() for _ in range(4)), free_port(socket.SOCK_DGRAM)]
        self.trusted_hops = 0
        self.echo = EchoPorts(2 * SERVICES)
        pair = Authority().issue("*.test", "*.a.test", "*.x.a.test", "a.test")
        self.certificate = tuple(base64.b64encode(part).decode() for part in (pair.chain, pair.private_key))
        self.proxy = Proxy()
        self.pairs = 0
        self.outcomes = Counter()
        """What was explained, by scheme: a run that only ever meets 404 shows little."""
        self._connections = {}
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def close(self):
        self._drop()
        self.proxy.close()
        self.echo.close()

    def run(self, seed, requests, shrink=True):
        """One random world and so many requests; the text of the first disagreement, shrunk, or ""."""
        generator = Generator(seed, self.ports, wide=True)
        documents = generator.manifests(self.certificate)
        self.trusted_hops = generator.trusted_hops
        world = self.apply(documents)
        for _ in range(requests):
            request = generator.request()
            self.pairs += 1
            difference = self.difference(world, request)
            if difference:
                if shrink:
                    documents = self.shrunk(documents, request)
                    difference = self.difference(self.apply(documents), request) or difference
                return f"seed {seed}\n{request}\n{difference}\n{_text(documents)}"
        return ""

    def apply(self, documents):
        self._drop()
        world = World(documents, self.echo.ports, self.trusted_hops)
        self.proxy.apply(world)
        return world

    def difference(self, world, request, patience=PATIENCE):
        """What explain says and what happened, if they differ."""
        deadline = time.monotonic() + patience
        try:
            settings = ExplainSettings(trusted_hops=world.trusted_hops)
            explanation = explain(world.controller.graph, asked(request), settings)
        except ExplainError:
            return ""  # shrunk too far: nothing is left to ask
        while True:
            answer = self.ask(request)
            if agrees(explanation, answer, request):
                self.outcomes[f"{request[0]} {explanation.outcome} {explanation.status or ''}".strip()] += 1
                return ""
            if time.monotonic() > deadline:
                return (
                    f"explained: {explanation.outcome} {explanation.status}: {explanation.summary}\nhappened: {answer}"
                )
            self._drop()
            time.sleep(0.02)

    def shrunk(self, documents, request):
        """A smaller set of manifests for which they still differ."""
        deadline = time.monotonic() + 240
        smaller = True
        while smaller and time.monotonic() < deadline:
            smaller = False
            for candidate in _smaller(documents):
                if time.monotonic() > deadline:
                    break
                if self.difference(self.apply(candidate), request, 0.5):
                    documents, smaller = candidate, True
                    break
        return documents

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, request):
        """What Envoy does: a dict with status, location, grpc and the backend's echo, or "refused" or "closed"."""
        for attempt in (0, 1):
            try:
                return self._ask(request)
            except ConnectionRefusedError:
                self._drop()
                return "refused"
            except (OSError, http.client.HTTPException):
                self._drop()
                if attempt:
                    return "closed"
        return "closed"

    def _ask(self, request):
        scheme, port, sni, authority, method, target, headers = request
        if scheme == "udp":
            return self._ask_datagram(port)
        try:
            connection = self._connection(scheme, port, sni)
        except ssl.SSLError:
            return self._ask_raw(port, sni)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", authority), *headers]:
            connection.putheader(name, value)
        if method in {"POST", "PUT"}:
            connection.putheader("Content-Length", "0")
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        told = response.getheader("x-echo")
        return {
            "status": response.status,
            "location": response.getheader("location"),
            "grpc": response.getheader("grpc-status"),
            "echo": json.loads(told) if told else None,
        }

    @staticmethod
    def _ask_datagram(port):
        """The number of the backend that answers, "closed" if none does."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(DATAGRAM_PATIENCE)
            client.connect(("127.0.0.1", port))
            try:
                client.send(b"hello")
                return {"raw": int(client.recv(100).split()[0])}
            except OSError:
                return "closed"

    def _ask_raw(self, port, sni):
        """Begin a handshake; the number of the backend, if its answer comes without TLS being terminated."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = self._context.wrap_bio(incoming, outgoing, server_hostname=sni)
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(outgoing.read())
            found = client.makefile("rb").readline()
        if not found.startswith(b"ECHO "):
            raise ConnectionResetError("closed")
        return {"raw": int(found.split()[1])}

    def _connection(self, scheme, port, sni):
        key = (scheme, port, sni)
        if key not in self._connections:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            raw = socket.create_connection(("127.0.0.1", port), timeout=10)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = self._context.wrap_socket(raw, server_hostname=sni) if scheme == "https" else raw
            connection.auto_open = 0
            self._connections[key] = connection
        return self._connections[key]

    def _drop(self):
        for connection in self._connections.values():
            connection.close()
        self._connections = {}


def asked(request):
    """A generated request as explain takes it."""
    scheme, port, sni, authority, method, target, headers = request
    if scheme in {"tcp", "udp"}:
        return Request(f"{scheme}://:{port}", gateway="default/gw")
    url = f"{scheme}://{sni}:{port}{target}"
    return Request(url, method, (("Host", authority), *headers), "default/gw", sni if scheme == "https" else None)


def agrees(explanation, answer, request):
    """Whether an answer is one of those that were explained."""
    if explanation.outcome in {"refused", "closed"}:
        # Of datagrams nobody says whether they were refused.
        return answer == explanation.outcome or (request[0] == "udp" and answer == "closed")
    if answer == "closed":
        return any(backend.share > 0 and backend.outcome == "closed" for backend in explanation.backends)
    if not isinstance(answer, dict):
        return False
    if "raw" in answer:
        return any(
            backend.share > 0
            and backend.outcome == "forwarded"
            and backend.protocol in {"PASSTHROUGH", "UDP"}
            and _number(backend) == answer["raw"]
            for backend in explanation.backends
        )
    if explanation.backends:
        return any(backend.share > 0 and _backend_agrees(backend, answer, request) for backend in explanation.backends)
    if explanation.outcome == "redirected":
        return answer["location"] == explanation.location and _status_agrees(
            explanation.status, explanation.grpc_status, answer
        )
    return answer["echo"] is None and _status_agrees(explanation.status, explanation.grpc_status, answer)


def _status_agrees(status, grpc, answer):
    if grpc is not None:
        return (answer["status"], answer["grpc"]) == (200, str(grpc))
    return answer["status"] == status


def _backend_agrees(backend, answer, request):
    if backend.outcome == "closed":
        return False  # an answer came
    if _of_bytes(backend):
        return answer["echo"] is not None and answer["echo"]["backend"] == _number(backend)
    is_grpc = ("Content-Type", "application/grpc") in request[6]
    grpc = {503: 14}.get(backend.status, 2) if is_grpc else None
    if backend.outcome == "redirected":
        return answer["location"] == backend.location and _status_agrees(backend.status, grpc, answer)
    if backend.status is not None:
        return answer["echo"] is None and _status_agrees(backend.status, grpc, answer)
    echo = answer["echo"]
    if echo is None or answer["status"] != 200:
        return False
    return (
        echo["backend"] == _number(backend)
        and (echo["target"], echo["host"]) == (backend.path, backend.host)
        and _lines(echo["headers"]) == _lines(pair for pair in backend.headers if pair[0].startswith("x-t"))
    )


def _of_bytes(backend):
    """Whether bytes are passed on, of which nothing is told but where they go."""
    return backend.outcome == "forwarded" and backend.protocol == "TCP"


def _number(backend):
    namespace, _, rest = backend.name.removeprefix("Service ").partition("/")
    return int(rest.partition(":")[0].removeprefix("s")) + (SERVICES if namespace == "other" else 0)


def _lines(pairs):
    """By name, values in order; a header may be sent in one line or in several (RFC 9110 5.3)."""
    found = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _smaller(documents):
    """Copies with one thing less, large things first."""
    for index, document in enumerate(documents):
        if document["kind"] not in {"Gateway", "GatewayClass"}:
            yield [*documents[:index], *documents[index + 1 :]]
    for index, document in enumerate(documents):
        for path in _lists(document.get("spec") or {}):
            size = len(_at(document["spec"], path))
            for position in range(size):
                copied = copy.deepcopy(document)
                del _at(copied["spec"], path)[position]
                yield [*documents[:index], copied, *documents[index + 1 :]]


def _lists(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lists(inner, (*path, key))
    elif isinstance(value, list):
        if value:
            yield path
        for index, inner in enumerate(value):
            yield from _lists(inner, (*path, index))


def _at(value, path):
    for step in path:
        value = value[step]
    return value


def _text(documents):
    shown = [document for document in documents if document["kind"] not in {"Secret", "Namespace", "Service"}]
    return yaml.safe_dump_all(shown, sort_keys=False)
