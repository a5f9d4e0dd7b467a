"""`propylon test` and real Envoy: both engines agree on what is right, and on what is wrong."""

import base64
import contextlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.instance import COMMAND, eventually

pytestmark = pytest.mark.feature
EXAMPLES = Path(__file__).parents[2] / "examples"

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: example.com/c}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: c
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: "*.shop.test", tls: {certificateRefs: [{name: wild}]}}
  - {name: pay, port: 443, protocol: HTTPS, hostname: pay.shop.test, tls: {certificateRefs: [{name: pay}]}}
  - {name: through, port: 443, protocol: TLS, hostname: db.shop.test, tls: {mode: Passthrough}}
  - {name: ended, port: 8443, protocol: TLS, hostname: mq.shop.test, tls: {certificateRefs: [{name: mq}]}}
  - {name: dns, port: 53, protocol: UDP}
  - {name: idle, port: 5432, protocol: TCP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: inside, namespace: shop}
spec:
  gatewayClassName: c
  addresses: [{type: IPAddress, value: 192.0.2.7}]
  listeners:
  - {name: http, port: 80, protocol: HTTP, hostname: inside.test}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: a, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: next, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: grpc, namespace: shop}
spec: {ports: [{port: 50051, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: v1
kind: Service
metadata: {name: secure, namespace: shop}
spec: {ports: [{port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: not.to.be.asked.example.com, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: other}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: authority, namespace: shop}
data:
  ca.crt: |
AUTHORITY
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: secure, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: secure}]
  validation: {hostname: secure.shop.test, caCertificateRefs: [{group: "", kind: ConfigMap, name: authority}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [www.shop.test]
  rules:
  - name: cart
    matches: [{path: {value: /cart}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: cart.internal, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Team, value: cart}], remove: [X-Debug]}}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: X-Served, value: "yes"}], remove: [Content-Type]}
    - {type: RequestMirror, requestMirror: {backendRef: {name: next, port: 80}}}
    backendRefs: [{name: cart, port: 80}]
  - name: basket
    matches: [{path: {type: Exact, value: /basket}, method: POST}, {path: {value: /basket/of}}]
    backendRefs: [{name: cart, port: 80}]
  - name: canary
    matches: [{path: {value: /canary}}]
    backendRefs:
    - {name: cart, port: 80, weight: 3}
    - name: next
      port: 80
      weight: 1
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Canary, value: "1"}]}}]
  - name: foreign
    matches: [{path: {value: /foreign}}]
    backendRefs: [{name: hidden, namespace: other, port: 80}]
  - name: half
    matches: [{path: {value: /half}}]
    backendRefs: [{name: hidden, namespace: other, port: 80}, {name: cart, port: 80}]
  - name: gone
    matches: [{path: {value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        hostname: new.shop.test
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
        statusCode: 308
  - name: secure
    matches: [{path: {value: /secure}}]
    backendRefs: [{name: secure, port: 443}]
  - name: elsewhere
    matches: [{path: {value: /elsewhere}}]
    backendRefs: [{name: elsewhere, port: 80}]
  - name: cors
    matches: [{path: {value: /api}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://app.test"], allowMethods: [PUT]}}]
    backendRefs: [{name: cart, port: 80}]
  - name: query
    matches: [{path: {type: RegularExpression, value: "/items/[0-9]+"}, queryParams: [{name: q, value: a}]}]
    timeouts: {request: 3s}
    backendRefs: [{name: next, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pay, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: pay}]
  rules: [{backendRefs: [{name: next, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: inside, namespace: shop}
spec:
  parentRefs: [{name: inside}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: https}]
  hostnames: [grpc.shop.test]
  rules:
  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [{name: grpc, port: 50051}]
  - matches: [{method: {service: shop.Broken}}]
    backendRefs: [{name: nobody, port: 1}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: db, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: through}]
  hostnames: [db.shop.test]
  rules: [{backendRefs: [{name: next, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: mq, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: ended}]
  hostnames: [mq.shop.test]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: dns, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: dns}]
  rules: [{backendRefs: [{name: cart, port: 53}]}]
"""

TESTS = """
apiVersion: test.propylon.dev/v1alpha1
kind: RouteTest
metadata: {name: shop}
manifests: manifests.yaml
devCerts: true
defaults: {from: shop/edge}
tests:
- name: cart
  request: {url: "http://www.shop.test/cart/1?a=b", headers: {X-Debug: "1", X-Other: [a, b]}}
  expect:
    backend: Service shop/cart:80
    route: HTTPRoute shop/web
    rule: cart
    status: 200
    path: /v2/1?a=b
    host: cart.internal
    backendHeaders: {set: {X-Team: cart, X-Other: "a,b"}, absent: [X-Debug]}
    responseHeaders: {set: {x-served: "yes"}, absent: [content-type]}
    not: {backend: shop/next, status: 500, unrouted: true}
- name: basket
  requests: [{url: "https://www.shop.test/basket", method: POST}, "http://www.shop.test/basket/of/fruit"]
  expect: {backend: shop/cart, rule: 1}
- name: baskets are posted
  requests: ["https://www.shop.test/basket", "http://www.shop.test/basket/"]
  expect: {unrouted: true, outcome: answered, status: 404}
- name: canary
  request: http://www.shop.test/canary
  expect: {rule: canary, backends: {shop/cart: 75, shop/next: 25}, status: 200}
- name: what may not be referred to
  request: http://www.shop.test/foreign
  expect: {rule: foreign, status: 500, outcome: answered}
- name: half of it
  request: http://www.shop.test/half
  expect: {rule: half, not: {backend: other/hidden, status: 404}}
- name: moved
  request: http://www.shop.test/old/page?x=y
  expect: {redirect: {location: "http://new.shop.test/new/page?x=y", status: 308}, rule: gone}
- name: moved over TLS
  request: https://www.shop.test/old
  expect: {redirect: "https://new.shop.test/new"}
- name: backends with TLS and of other places are not asked themselves
  request: http://www.shop.test/secure
  expect: {backend: shop/secure:443}
- name: nor those that have only a name
  request: http://www.shop.test/elsewhere
  expect: {backend: shop/elsewhere:80}
- name: preflight
  request:
    url: http://www.shop.test/api
    method: OPTIONS
    headers: {Origin: "https://app.test", Access-Control-Request-Method: PUT}
  expect: {rule: cors, outcome: answered, status: 204}
- name: regular expression and query
  request: http://www.shop.test/items/12?q=a
  expect: {rule: query, backend: shop/next:80}
- name: neither
  requests: ["http://www.shop.test/items/12?q=b", "http://www.shop.test/items/x?q=a", "http://www.shop.test/ITEMS/1?q=a"]
  expect: {status: 404}
- name: another listener of the port
  request: https://pay.shop.test/anything
  expect: {route: shop/pay, backend: shop/next:80}
- name: misdirected
  request: {url: "https://www.shop.test/", headers: {Host: pay.shop.test}}
  expect: {status: 421, unrouted: true}
- name: the other Gateway
  request: {url: "http://inside.test/", from: shop/inside}
  expect: {route: shop/inside, backend: shop/cart}
- name: by its address
  request: {url: "http://inside.test/", from: 192.0.2.7}
  expect: {route: shop/inside}
- name: not by the other Gateway
  request: {url: "http://www.shop.test/", from: shop/inside}
  expect: {status: 404}
- name: call
  request: {url: "https://grpc.shop.test", grpc: shop.Cart/Add}
  expect: {backend: shop/grpc:50051, route: GRPCRoute shop/calls, rule: 0, grpcStatus: 0, path: /shop.Cart/Add}
- name: call of nobody
  request: {url: "https://grpc.shop.test", grpc: shop.Broken/X}
  expect: {grpcStatus: 14, rule: 1}
- name: call of nothing
  request: {url: "https://grpc.shop.test", grpc: shop.Cart/Remove}
  expect: {grpcStatus: 12, unrouted: true}
- name: passed through
  requests: ["tls://db.shop.test:443", "https://db.shop.test/"]
  expect: {backend: shop/next:80, route: TLSRoute shop/db}
- name: ended
  request: tls://mq.shop.test:8443
  expect: {backend: shop/cart:80, route: TLSRoute shop/mq}
- name: no such server name
  request: tls://other.test:8443
  expect: {outcome: closed, unrouted: true}
- name: datagrams
  request: {udp: 53}
  expect: {backend: shop/cart:53}
- name: nothing behind it
  request: {tcp: 5432}
  expect: {outcome: closed}
- name: nobody listens
  request: {tcp: 5433}
  expect: {outcome: refused}
"""

WRONG = """
apiVersion: test.propylon.dev/v1alpha1
kind: RouteTest
metadata: {name: wrong}
manifests: manifests.yaml
devCerts: true
defaults: {from: shop/edge}
tests:
- {name: backend, request: "http://www.shop.test/cart", expect: {backend: shop/next:80}}
- {name: status, request: "http://www.shop.test/cart", expect: {status: 404}}
- {name: rule, request: "http://www.shop.test/cart", expect: {rule: canary}}
- {name: path, request: "http://www.shop.test/cart/1", expect: {path: /cart/1}}
- {name: split, request: "http://www.shop.test/canary", expect: {backends: {shop/cart: 25, shop/next: 75}}}
- {name: redirect, request: "http://www.shop.test/old", expect: {redirect: "https://new.shop.test/new"}}
- {name: header, request: "http://www.shop.test/cart", expect: {backendHeaders: {absent: [x-team]}}}
- {name: response, request: "http://www.shop.test/cart", expect: {responseHeaders: {set: {x-served: "no"}}}}
- {name: never, request: "http://www.shop.test/canary", expect: {not: {backend: shop/next}}}
- {name: unrouted, request: "http://www.shop.test/cart", expect: {unrouted: true}}
- {name: call, request: {url: "https://grpc.shop.test", grpc: shop.Cart/Add}, expect: {grpcStatus: 12}}
- {name: datagram, request: {udp: 53}, expect: {backend: shop/next:53}}
- {name: refused, request: {tcp: 5433}, expect: {outcome: closed}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    from support.envoy_certificates import Authority

    chain = "".join(f"    {line}\n" for line in Authority().chain.decode().splitlines())
    (tmp_path / "manifests.yaml").write_text(MANIFESTS.replace("AUTHORITY\n", chain))
    return tmp_path


def run(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, "test", *map(str, arguments), "-o", "json"], capture_output=True, text=True, timeout=100
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_both_engines_say_what_is_expected(shop: Path) -> None:
    (shop / "shop.test.yaml").write_text(TESTS)
    code, report = run(shop, "--envoy")
    wrong = [(r["case"], r["verdict"], r["unmet"], r["disagreements"], r["error"]) for r in report["results"]]
    assert [each for each in wrong if each[1] != "passed"] == []
    assert (code, len(report["results"]), report["problems"]) == (0, 32, [])
    assert report["coverage"]["missed"] == []


def test_both_engines_refuse_what_is_wrong(shop: Path) -> None:
    (shop / "wrong.test.yaml").write_text(WRONG)
    code, report = run(shop / "wrong.test.yaml", "--engine", "both")
    assert code == 1
    assert {r["verdict"] for r in report["results"]} == {"failed"}
    engines = {r["case"]: {each["engine"] for each in r["unmet"]} for r in report["results"]}
    assert engines == {each["case"]: {"graph", "envoy"} for each in report["results"]}


def test_the_examples_hold_with_envoy_alone() -> None:
    code, report = run(EXAMPLES / "testing", "--engine", "envoy")
    assert code == 0, report
    assert report["coverage"]["percent"] == 100


@pytest.mark.parametrize("seed", [22, 29])
def test_engines_agree_on_random_manifests(seed: int, tmp_path: Path) -> None:
    """What the oracle of `explain` makes up, asked in the way of route tests: rules and response headers count too."""
    from propylon.app.offline import load
    from propylon.explain import ExplainError
    from propylon.testing.site import Site
    from support.envoy_certificates import Authority
    from support.explain_generator import Generator
    from support.explain_oracle import asked

    pair = Authority().issue("*.test", "*.a.test", "*.x.a.test", "a.test")
    generator = Generator(seed, [8080, 8443, 9443, 9000])
    certificate = tuple(base64.b64encode(part).decode() for part in (pair.chain, pair.private_key))
    manifests = tmp_path / "manifests.yaml"
    manifests.write_text(yaml.safe_dump_all(generator.manifests(certificate)))
    site = Site(lambda: load(str(manifests)), "both", 60)
    count = 0
    try:
        for _ in range(60):
            request = asked(generator.request())
            with contextlib.suppress(ExplainError):
                found = site.ask(request)
                assert not found.disagreements, (request, found.explanation)
                count += 1
    finally:
        site.close()
    assert count > 30


def test_watching(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tests = shop / "a.test.yaml"
    tests.write_text(WRONG.replace("tests:\n", "tests:\n- {request: 'http://www.shop.test/cart', expect: {rule: 0}}\n"))
    log = tmp_path_factory.mktemp("log") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*COMMAND, "test", str(shop), "--watch", "-k", "GET"], stdout=out, stderr=out)

    def runs_again(edited: Path, text: str, says: str) -> None:
        """An edit may be seen in parts (truncated, then written): its last run counts."""
        before = len(log.read_text())
        edited.write_text(text)
        eventually(lambda: re.search(f"{says}(?s:.)*watching;", log.read_text()[before:]), f"{edited.name}: {says}")

    try:
        eventually(lambda: re.search("1 passed(?s:.)*watching;", log.read_text()), "it has run")
        manifests = shop / "manifests.yaml"
        moved = manifests.read_text().replace("- name: cart\n    matches", "- name: moved\n    matches")
        runs_again(manifests, moved, "1 passed")
        runs_again(tests, tests.read_text().replace("{rule: 0}", "{rule: cart}"), "1 failed")
        runs_again(tests, "kind: [", "propylon test: ")
        process.send_signal(2)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
