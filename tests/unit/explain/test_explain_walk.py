"""The walk from a request to its answer, and the hints of those that get none."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import propylon
from propylon.app.offline import as_document
from propylon.cli.main import main

BASE = """
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
  - {name: tcp, port: 5432, protocol: TCP}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: away}
spec: {ports: [{port: 80}]}
"""


def route(name, *rules, hostnames=(), namespace="shop", kind="HTTPRoute", section=""):
    spec = {"parentRefs": [{"name": "edge", "namespace": "shop"}], "rules": list(rules)}
    if section:
        spec["parentRefs"][0]["sectionName"] = section
    if hostnames:
        spec["hostnames"] = list(hostnames)
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def rule(path="/", kind="PathPrefix", backend="cart", filters=(), **more):
    refs = [{"name": backend, "port": 80, **more.pop("ref", {})}]
    return {"matches": [{"path": {"type": kind, "value": path}, **more}], "backendRefs": refs, "filters": list(filters)}


@pytest.fixture
def load(tmp_path):
    def loaded(*documents, text=BASE):
        (tmp_path / "base.yaml").write_text(text)
        (tmp_path / "routes.yaml").write_text(yaml.safe_dump_all(documents))
        manifests = propylon.load(tmp_path)
        assert not manifests.errors
        return manifests

    return loaded


def hints(explanation):
    return " | ".join(hint.message for hint in explanation.hints)


def test_the_winner_its_line_and_what_the_backend_receives(load, tmp_path):
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}, "hostname": "inner.test"}
    change = {"set": [{"name": "X-A", "value": "new"}], "remove": ["X-B"]}
    filters = [
        {"type": "URLRewrite", "urlRewrite": rewrite},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": change},
    ]
    manifests = load(route("r", rule("/other"), rule("/cart", filters=filters)))
    asked = propylon.Request("http://a.test/cart/1?q=2", headers=(("x-b", "1"), ("x-a", "old"), ("x-c", "3")))
    found = manifests.explain(asked)
    assert (found.outcome, found.winner.rule, found.winner.position) == ("forwarded", 1, 2)
    assert found.winner.place.file == str(tmp_path / "routes.yaml")
    line = (tmp_path / "routes.yaml").read_text().splitlines()[found.winner.place.line - 1]
    assert "path" in line
    (backend,) = found.backends
    assert (backend.name, backend.path, backend.host) == ("Service shop/cart:80", "/1?q=2", "inner.test")
    assert backend.headers == (("x-c", "3"), ("x-a", "new"))
    assert found.candidates[0].failed == propylon.explain.Predicate("path", "PathPrefix /other", "/cart/1")


def test_weights_and_what_cannot_be_used(load):
    rules = rule()
    rules["backendRefs"] = [
        {"name": "cart", "port": 80, "weight": 3},
        {"name": "missing", "port": 80, "weight": 1},
        {"name": "cart", "port": 80, "weight": 0},
    ]
    found = load(route("r", rules)).explain("http://a.test/")
    assert [(b.share, b.status) for b in found.backends] == [(0.75, None), (0.25, 500)]
    assert not found.well
    assert "Service shop/missing does not exist" in hints(found)


def test_redirects(load):
    redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
    rules = {"filters": [redirect]}
    found = load(route("r", rules)).explain("http://Shop.test:80/a?b=1")
    assert (found.outcome, found.status, found.location) == ("redirected", 301, "https://Shop.test/a?b=1")
    # Of a Host with a port Envoy only replaces the port.
    found = load(route("r", rules)).explain(propylon.Request("http://a.test", headers=(("Host", "a.test:81"),)))
    assert found.location == "https://a.test:443/"


def test_a_missing_grant_comes_with_the_grant(load):
    manifests = load(route("r", rule(backend="far", ref={"namespace": "away"})))
    found = manifests.explain("http://a.test/")
    assert found.status == 500
    (hint,) = found.hints
    grant = yaml.safe_load(hint.manifest)
    again = load(route("r", rule(backend="far", ref={"namespace": "away"})), grant)
    assert again.explain("http://a.test/").well


@pytest.mark.parametrize(
    ("match", "url", "said"),
    [
        ({"path": "/a", "kind": "Exact"}, "http://a.test/a/", "trailing slash"),
        ({"path": "/a", "kind": "Exact"}, "http://a.test/A", "case-sensitive"),
        ({"path": "/a", "kind": "Exact"}, "http://a.test/a/b", "PathPrefix takes both"),
        ({"path": "/a"}, "http://a.test/ab", "whole path segments"),
        ({"path": "/a"}, "http://a.test/A/b", "case-sensitive"),
        ({"path": "/a[0-9]", "kind": "RegularExpression"}, "http://a.test/a12", "whole path"),
        ({"method": "POST"}, "http://a.test/", "takes POST only"),
        ({"headers": [{"name": "x", "value": "1"}]}, "http://a.test/", "no header x"),
        ({"queryParams": [{"name": "q", "value": "Ab"}]}, "http://a.test/?q=ab", "case-sensitive"),
    ],
)
def test_near_misses(load, match, url, said):
    found = load(route("r", rule(**match))).explain(url)
    assert found.status == 404
    assert said in hints(found)


@pytest.mark.parametrize(
    ("hostname", "url", "said"),
    [
        ("*.shop.test", "http://shop.test/", "not shop.test itself"),
        ("shop.test", "http://www.shop.test/", "a wildcard would be *.shop.test"),
        ("shop.test", "http://shop.test:8080/", "wrong port"),
    ],
)
def test_hostnames_that_look_as_if(load, hostname, url, said):
    assert said in hints(load(route("r", rule(), hostnames=[hostname])).explain(url))


def test_no_fall_through_to_wildcards(load):
    manifests = load(
        route("own", rule("/own"), hostnames=["a.shop.test"]), route("wide", rule("/wide"), hostnames=["*.shop.test"])
    )
    found = manifests.explain("http://a.shop.test/wide")
    assert found.status == 404
    assert "wide" in hints(found)
    assert manifests.explain("http://b.shop.test/wide").well


def test_routes_that_are_not_attached_are_named(load):
    manifests = load(route("r", rule(), namespace="away"), route("typo", rule(), section="htp"))
    found = manifests.explain("http://a.test/")
    assert found.status == 404
    assert "takes routes from its own namespace" in hints(found)
    assert "has no listener 'htp'" in hints(found)


def test_tcp(load):
    tcp = route("db", {"backendRefs": [{"name": "cart", "port": 80}]}, kind="TCPRoute", section="tcp")
    manifests = load(tcp)
    assert manifests.explain("tcp://:5432").outcome == "forwarded"
    assert manifests.explain("tcp://:1").outcome == "refused"
    assert manifests.explain("https://a.test:80").outcome == "closed"


def test_gateways_are_told_apart_or_asked_for(load):
    other = next(each for each in yaml.safe_load_all(BASE) if each["kind"] == "Gateway")
    other["metadata"]["name"] = "other"
    manifests = load(route("r", rule()), other)
    with pytest.raises(propylon.ExplainError, match="several Gateways fit"):
        manifests.explain("http://a.test/")
    assert manifests.explain(propylon.Request("http://a.test/", gateway="edge")).well
    assert manifests.explain(propylon.Request("http://a.test/", gateway="shop/other")).status == 404
    with pytest.raises(propylon.ExplainError, match="no Gateway nosuch"):
        manifests.explain(propylon.Request("http://a.test/", gateway="nosuch"))


def test_no_gateway_at_all(tmp_path):
    with pytest.raises(propylon.ExplainError, match="no Gateway"):
        propylon.load(tmp_path).explain("http://a.test/")


def test_preflights(load):
    cors = {"type": "CORS", "cors": {"allowOrigins": ["https://o.test"]}}
    manifests = load(route("r", rule(method="PUT", filters=[cors])))
    headers = (("Origin", "https://o.test"), ("Access-Control-Request-Method", "PUT"))
    found = manifests.explain(propylon.Request("http://a.test/", "OPTIONS", headers))
    assert (found.status, found.well) == (204, True)
    assert manifests.explain(propylon.Request("http://a.test/", "OPTIONS")).status == 404


def test_grpc(load):
    rules = {"matches": [{"method": {"service": "shop.Cart"}}], "backendRefs": [{"name": "cart", "port": 80}]}
    manifests = load(route("g", rules, kind="GRPCRoute"))
    assert manifests.explain(propylon.Request("http://a.test", grpc="shop.Cart/Add")).well
    assert manifests.explain(propylon.Request("http://a.test", grpc="shop.Till/Pay")).grpc_status == 12


def test_only_the_nearest_candidates_are_told_of(load):
    rules = [rule(f"/{n}") for n in range(10)]
    manifests = load(*(route(f"r{n}", *rules) for n in range(10)), route("near", rule("/x", method="PUT")))
    found = manifests.explain("http://a.test/x", candidates=5)
    assert (len(found.candidates), found.candidates_total) == (5, 101)
    assert "HTTPRoute shop/near" in {candidate.object for candidate in found.candidates}


def test_the_command_prints_and_exits(load, tmp_path):
    load(route("r", rule("/cart")))

    def run(*arguments):
        return CliRunner().invoke(main, ["explain", "--manifests", str(tmp_path), *arguments])

    good = run("http://a.test/cart")
    assert good.exit_code == 0
    assert good.output.rstrip().endswith("=> forwarded to Service shop/cart:80")
    bad = run("http://a.test/Cart", "-o", "json")
    assert bad.exit_code == 1
    assert json.loads(bad.output)["status"] == 404
    for arguments in (
        ["ftp://a"],
        [],
        ["http://a", "--tcp", "5"],
        ["http://a", "-H", "x"],
        ["http://a", "--from", "x"],
    ):
        assert run(*arguments).exit_code == 2
    assert CliRunner().invoke(main, ["explain", "http://a", "--manifests", str(tmp_path / "no")]).exit_code == 2
    assert CliRunner().invoke(main, ["explain", "http://a", "--data-dir", str(tmp_path / "no")]).exit_code == 3


def test_manifests_with_errors_are_told_and_the_rest_explained(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "broken.yaml").write_text("kind: [")
    (tmp_path / "route.yaml").write_text(yaml.safe_dump(route("r", rule())))
    result = CliRunner().invoke(main, ["explain", "--manifests", str(tmp_path), "http://a.test/"])
    assert result.exit_code == 0
    assert "broken.yaml:" in result.stderr


def test_the_json_form_is_documented():
    fields = as_document(propylon.explain.Explanation("", "refused", None, None, "")).keys()
    text = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "explain.md").read_text()
    assert not [field for field in fields if f"`{field}`" not in text]
