"""The pytest plugin, in a pytest of its own."""

import re

import pytest

pytest_plugins = ["pytester"]

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
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [a.test]
  rules:
  - matches: [{path: {value: /cart}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: "1"}], remove: [X-B]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-C, value: "3"}]}}
    backendRefs: [{name: cart, port: 80, weight: 3}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /cart}}}]
"""
ROUTE_TEST = """apiVersion: test.propylon.dev/v1alpha1
kind: RouteTest
metadata: {name: shop}
manifests: ../manifests
tests:
- {name: cart, request: "http://a.test/cart", expect: {backend: shop/cart:80}}
- {name: wrong, requests: ["http://a.test/cart", "http://a.test/"], expect: {backend: shop/cart:80}}
"""


@pytest.fixture
def site(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # only ours: the others take longer to load than it all
    (pytester.mkdir("manifests") / "all.yaml").write_text(MANIFESTS)
    (pytester.mkdir("tests") / "shop.yaml").write_text(ROUTE_TEST)
    return pytester


def run(site: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return site.runpytest_inprocess(*arguments, "-p", "propylon.pytest_plugin")


def test_the_fixture(site: pytest.Pytester) -> None:
    site.makepyfile("""
        def test_all(gateway):
            shop = gateway("manifests")
            answer = shop.get("http://a.test/cart/1?x", headers={"X-B": "2"})
            answer.routed_to("shop/cart:80").taken_by("HTTPRoute shop/r", rule=0).status(200)
            answer.split({"shop/cart": 1}).not_routed_to("shop/other")
            answer.backend_sees("/1?x", "a.test", {"X-A": "1"}, absent=["x-b"]).responds({"x-c": "3"}, absent="x-d")
            shop.post("http://a.test/old").redirected_to("http://a.test/cart", 302)
            shop.delete("http://a.test/").not_routed().status(404)
            shop.grpc("http://a.test", "a.B/C").grpc_status(12)
            shop.tcp(9000).refused()
            assert "404" in repr(shop.get("http://b.test"))
            assert gateway("manifests")._site is shop._site
    """)
    run(site).assert_outcomes(passed=1)


def test_assertions_that_fail_explain(site: pytest.Pytester) -> None:
    site.makepyfile("""
        def test_backend(gateway):
            gateway("manifests").get("http://a.test/carts").routed_to("shop/cart:80")
        def test_name(gateway):
            gateway("manifests").get("http://a.test/cart").routed_to("cart")
        def test_question(gateway):
            gateway("manifests").get("http://a.test/cart", gateway="nobody")
    """)
    result = run(site)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: backend: wanted shop/cart:80, found status 404 by the proxy  (by the Graph)",
            "* x *HTTPRoute shop/r rule 0 [[]PathPrefix /cart[]]*",
            '*path is "/carts", wanted PathPrefix /cart',
            "*ValueError: 'cart' is not NAMESPACE/NAME*",
            "*ExplainError: there is no Gateway nobody; there is shop/edge*",
        ]
    )


def test_route_tests_are_collected_where_it_is_asked_for(site: pytest.Pytester) -> None:
    site.makepyfile("def test_python(): pass")
    result = run(site, "--propylon")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*shop: wrong*",
            "*shop.yaml:7: wrong [[]GET http://a.test/[]]*",
            "*backend: wanted shop/cart:80, found status 404 by the proxy*",
            "=> 404*",
        ]
    )
    assert not re.search(r"Traceback|pytest_plugin.py:\d+: ", result.stdout.str())


def test_an_ini_file_may_ask_for_it(site: pytest.Pytester) -> None:
    site.makeini("[pytest]\npropylon = true")
    result = run(site, "tests", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["tests/shop.yaml::shop: cart", "tests/shop.yaml::shop: wrong"])


def test_a_route_test_that_cannot_be_read(site: pytest.Pytester) -> None:
    (site.path / "tests" / "bad.yaml").write_text(ROUTE_TEST.replace("expect:", "expects:"))
    result = run(site, "--propylon")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*bad.yaml:6:*tests[[]0[]].expects: there is no such field (did you mean expect?)*"])


def test_manifests_that_are_not_there(site: pytest.Pytester) -> None:
    (site.path / "tests" / "shop.yaml").write_text(ROUTE_TEST.replace("../manifests", "nowhere"))
    result = run(site, "--propylon", "-k", "cart")
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["the manifests cannot be read: *nowhere does not exist"])


def test_other_yaml_disturbs_nobody(site: pytest.Pytester) -> None:
    (site.path / "tests" / "shop.yaml").write_text("RouteTest: [\n")
    (site.path / "data.yaml").write_text("a: &a [*a]\n")
    site.makepyfile("def test_python(): pass")
    run(site).assert_outcomes(passed=1)


def test_coverage(site: pytest.Pytester) -> None:
    site.makepyfile("""
        def test_cart(gateway):
            gateway("manifests").get("http://a.test/cart").routed_to("shop/cart")
    """)
    result = run(site, "--propylon-coverage")
    result.stdout.fnmatch_lines(
        ["propylon coverage: 1 of 2 matches, 50.0 %", "  no test reaches *all.yaml:*: HTTPRoute shop/r rule 1*"]
    )


def test_an_engine_that_there_is_not(site: pytest.Pytester) -> None:
    site.makepyfile("def test_cart(gateway): pass")
    site.makeini("[pytest]\npropylon_engine = nginx")
    run(site).stdout.fnmatch_lines(["*propylon_engine is 'nginx', and not one of graph, envoy, both*"])
