"""Hostile requests over TLS against a real `propylon up`: none is answered with a 5xx, none harms what is stored.

Requests are made of parts that are near to good ones (paths, parameters, bodies mutated from real objects) and of bytes
that are not HTTP at all. PROPYLON_FUZZ is how many (default 3,000, `make fuzz` 100,000), PROPYLON_FUZZ_SEED repeats.
"""

import collections
import http.client
import json
import os
import random
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from support.api_client import ApiClient
from support.instance import Instance, eventually

pytestmark = pytest.mark.feature

REQUESTS = int(os.environ.get("PROPYLON_FUZZ", "3000"))
SEED = int(os.environ.get("PROPYLON_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
CLIENTS = 3
GUARD = "/api/v1/namespaces/kept/configmaps/guard"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
PATHS = (
    *(f"{ROUTES}{more}" for more in ("", "/a", "/a/status", "/a/scale", "/%00", "/..%2f..", "/a/b/c")),
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/secrets/a",
    "/api/v1/namespaces/default/pods/none/log",
    "/api/v1/namespaces/default/events",
    "/api/v1/nodes",
    "/apis/apps/v1/namespaces/default/deployments/a",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/a",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "/openapi/v2",
    "/openapi/v3/apis/gateway.networking.k8s.io/v1",
    "/apis",
    "/version",
    "//",
    "/apis/\u00fc",
)
PARAMETERS = [
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "propagationPolicy",
    "force",
    "timeoutSeconds",
    "gracePeriodSeconds",
    "tailLines",
    "sinceTime",
    "pretty",
]
VALUES = (
    "",
    "1",
    "-1",
    "true",
    "All",
    "a=b",
    "a in (b",
    "!a",
    "metadata.name=a",
    "9" * 30,
    "\u00b2",
    "%ff",
    "\x7f",
    "x" * 3000,
)
FORMS = (
    "application/json",
    "application/yaml",
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
    "\u00e9",
)
HOSTILE: tuple[Any, ...] = (None, True, -1, 1e308, 2**70, "", "\ud83d\ude00", "a" * 400, [], {}, [[[]]], {"": None})
RAW = (
    b"a: &x [1]\nb: [*x, *x, *x]\n",
    b"a: &a [&b [&c [*a]]]\n",
    b"{" * 5000,
    b'{"a":' * 3000,
    b'{"metadata":{"name":NaN}}',
    b'{"metadata":{"name":1e99999}}',
    b'"\xff\xfe"',
    b"\x00" * 40,
    b"k8s\x00\x0a\x10garbage",
    b"---\n---\n",
    b"!!python/object:os.system {}",
)
NOT_HTTP = (
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes(range(256)),
)
OBJECTS: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a", "labels": {"a": "b"}, "finalizers": []},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "hostnames": ["a.test"],
            "rules": [{"matches": [{"path": {"value": "/"}}], "backendRefs": [{"name": "a", "port": 80}]}],
        },
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "a"}, "stringData": {"a": "b"}},
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    },
)
PATCHES: tuple[Any, ...] = (
    [{"op": "replace", "path": "/metadata/name", "value": "b"}],
    [{"op": "move", "from": "/spec", "path": "/spec/a/b"}],
    [{"op": "add", "path": "/spec/rules/-1", "value": {}}],
    [{"op": "test", "path": "", "value": 1}, {"op": "remove", "path": ""}],
    {"$patch": "delete"},
    {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "managedFields": [{}]}},
    {"spec": None, "metadata": None},
)


def mutated(chance: random.Random, value: Any) -> Any:
    """A copy with one part replaced, removed or moved somewhere below."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        rest = {each: found for each, found in value.items() if each != key}
        match chance.randrange(8):
            case 0:
                return rest
            case 1:
                return {**rest, chance.choice(("x", "", "\u0000", "$patch", key.upper())): value[key]}
            case _:
                return {**rest, key: mutated(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        return [*value[:index], mutated(chance, value[index]), *value[index:]][: chance.choice((None, 1, 60))]
    return chance.choice(HOSTILE)


class Attacker(threading.Thread):
    """One client with a connection that it opens again whenever the server has closed it."""

    def __init__(self, keys: ApiClient, place: tuple[str, int], seed: int, count: int) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(seed)
        self.context, self.place, self.count = keys.context, place, count
        self.codes: collections.Counter[int] = collections.Counter()
        self.wrong: list[object] = []

    def run(self) -> None:
        connection = self._open()
        for _ in range(self.count):
            if self.chance.random() < 0.02:
                self._send_garbage()
                continue
            request = self._request()
            try:
                connection.request(*request)
                answered = connection.getresponse()
                body = answered.read()
            except (http.client.HTTPException, ConnectionError, ssl.SSLError):
                connection.close()
                connection = self._open()
                self.codes[0] += 1
                continue
            self.codes[answered.status] += 1
            if answered.status >= 500:
                self.wrong.append((request, answered.status, body[:500]))
            if answered.will_close:
                connection.close()
                connection = self._open()
        connection.close()

    def _open(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self.place, context=self.context, timeout=60)

    def _request(self) -> tuple[str, str, bytes, dict[str, str]]:
        chance = self.chance
        method = chance.choice(("GET", "POST", "PUT", "PATCH", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"))
        chosen = {chance.choice(PARAMETERS): chance.choice(VALUES) for _ in range(chance.choice((0, 0, 1, 2)))}
        query = "&".join(f"{name}={quoted(value)}" for name, value in chosen.items())
        path = quoted(chance.choice(PATHS), "/%") + (f"?{query}" if query else "")
        body = chance.choice(RAW) if chance.random() < 0.15 else self._body(method)
        if method == "GET" and chance.random() < 0.7:
            body = b""
        form = chance.choice(FORMS if chance.random() < 0.3 or method == "PATCH" else FORMS[:2])
        headers = {
            "Content-Type": form.encode().decode("latin-1"),
            "Accept": chance.choice(("application/json", "*/*", "a/b")),
        }
        return method, path, body, headers

    def _body(self, method: str) -> bytes:
        chance = self.chance
        value: Any = chance.choice(PATCHES) if method == "PATCH" and chance.random() < 0.5 else chance.choice(OBJECTS)
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            value = mutated(chance, value)
        return json.dumps(value).encode()

    def _send_garbage(self) -> None:
        connection = self._open()
        try:
            connection.connect()
            connection.sock.settimeout(60)
            connection.sock.sendall(self.chance.choice(NOT_HTTP))
            connection.sock.shutdown(1)
            answered = connection.sock.recv(12)
            code = int(answered[9:12] or b"0") if answered.startswith(b"HTTP/1.") else 0
            self.codes[code] += 1
            if code >= 500 and code != 505:  # 505: a version of HTTP that nobody speaks, said as it should be
                self.wrong.append((answered,))
        except (ConnectionError, ssl.SSLError):
            self.codes[0] += 1
        finally:
            connection.close()


def quoted(text: str, safe: str = "%") -> str:
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "/-._~" + safe) else "".join(f"%{b:02x}" for b in c.encode())
        for c in text
    )


@pytest.mark.timeout(3600)
def test_nothing_hostile_is_a_server_error(tmp_path: Path) -> None:
    with Instance(tmp_path, "--api-port", "0") as instance:
        kubeconfig = instance.data_dir / "kubeconfig"
        eventually(kubeconfig.exists, "a kubeconfig", 60)
        keys = ApiClient(kubeconfig, tmp_path / "keys")
        eventually(lambda: keys.ask("GET", "/api/v1/namespaces/default")[0] == 200, "an answer", 60)
        named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}}
        guard = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "guard"}, "data": {"a": "b"}}
        assert keys.ask("POST", "/api/v1/namespaces", named)[0] == 201
        assert keys.ask("POST", GUARD.rpartition("/")[0], guard)[0] == 201
        before = keys.ask("GET", GUARD)
        attackers = [Attacker(keys, keys.place, SEED + i, REQUESTS // CLIENTS) for i in range(CLIENTS)]
        for each in attackers:
            each.start()
        for each in attackers:
            each.join()
        codes = sum((each.codes for each in attackers), collections.Counter[int]())
        print(f"seed {SEED}: {sum(codes.values())} requests, codes {dict(sorted(codes.items()))}")
        wrong = [found for each in attackers for found in each.wrong]
        assert not wrong, (SEED, len(wrong), wrong[:3])
        assert codes[200] and codes[201] and codes[400], codes
        keys.close()  # it was idle for long: asked again, it opens another
        assert keys.ask("GET", GUARD) == before
        assert instance.process is not None and instance.process.poll() is None
        assert "Traceback" not in instance.output(), instance.output()[-4000:]
