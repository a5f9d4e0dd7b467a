"""`propylon diff`: what it reads, how it tells, and its exit codes."""

import json
import subprocess

import pytest
from click.testing import CliRunner

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
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [a.test]
  rules:
"""
CART = """  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart, port: 80}]
"""
ROOT = """  - backendRefs: [{name: other, port: 80}]
"""


@pytest.fixture
def differ(tmp_path):
    def run(before, after, *arguments, base=BASE, after_base=None):
        (tmp_path / "a.yaml").write_text(base + before)
        (tmp_path / "b.yaml").write_text((after_base or base) + after)
        paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
        done = CliRunner().invoke(main, ["diff", *paths, *arguments])
        return done.exit_code, done.output

    return run


def changes(differ, before, after, **bases):
    code, output = differ(before, after, "-o", "json", **bases)
    found = json.loads(output)
    assert found["same"] == (code == 0)
    return found["changes"]


def test_rules_that_are_renamed_moved_and_spread_are_the_same(differ):
    named = CART.replace("  - matches", "  - name: x\n    matches")
    second = BASE[BASE.index("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute") :]
    spread = ROOT + second.replace("name: r,", "name: s,") + named
    code, output = differ(CART + ROOT, spread)
    assert code == 0
    assert "no changes of behaviour" in output
    assert "+ HTTPRoute shop/s" in output


def test_a_moved_prefix_is_told_with_requests_for_both_places(differ):
    found = changes(differ, CART + ROOT, CART.replace("/cart", "/basket") + ROOT)
    told = {(c["before"], c["after"], c["example"]["url"]) for c in found}
    assert told == {
        ("HTTPRoute shop/r rule 0", "HTTPRoute shop/r rule 1", "http://a.test:80/cart"),
        ("HTTPRoute shop/r rule 1", "HTTPRoute shop/r rule 0", "http://a.test:80/basket"),
    }
    assert all(c["causes"] == ["HTTPRoute shop/r (changed)"] for c in found)
    assert found[0]["example"]["curl"].startswith("curl -i 'http://a.test/")


@pytest.mark.parametrize(
    ("filters", "aspect", "after"),
    [
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: A, value: b}]}}",
            "response headers",
            "set a: b",
        ),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [X-A]}}", "headers at the backend", ""),
        ("{type: URLRewrite, urlRewrite: {hostname: b.test}}", "host at the backend", "b.test"),
        ("{type: CORS, cors: {allowOrigins: ['https://o.test']}}", "CORS", "allowOrigins https://o.test, maxAge 5"),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: other, port: 80}, percent: 5}}",
            "copies",
            "5 % to Service shop/other:80",
        ),
    ],
)
def test_filters_show_in_what_they_do(differ, filters, aspect, after):
    found = changes(differ, CART, f"{CART}    filters: [{filters}]\n")
    named = {each["name"]: each["after"] for c in found for each in c["aspects"]}
    assert named[aspect] == after


def test_limits_and_weights_show(differ):
    two = CART.replace("[{name: cart, port: 80}]", "[{name: cart, port: 80, weight: 3}, {name: other, port: 80}]")
    assert not changes(
        differ, two, two.replace("weight: 3}", "weight: 6}").replace("other, port: 80", "other, port: 80, weight: 2")
    )
    (change,) = changes(differ, two, two.replace("weight: 3", "weight: 1"))
    assert change["aspects"] == [
        {
            "name": "backends",
            "before": "Service shop/cart:80 75 %, Service shop/other:80 25 %",
            "after": "Service shop/cart:80 50 %, Service shop/other:80 50 %",
        }
    ]
    (change,) = changes(differ, CART, f"{CART}    timeouts: {{request: 3s}}\n")
    assert [each["name"] for each in change["aspects"]] == ["timeouts"]


def test_what_does_not_resolve_any_more_changes_answers_and_conditions(differ):
    code, output = differ(CART, CART.replace("name: cart", "name: nosuch"), "-o", "json")
    found = json.loads(output)
    assert code == 1
    assert [(c["aspects"][0]["name"], c["example"]["after"][:4]) for c in found["changes"]] == [("answer", "500:")]
    (condition,) = found["conditions"]
    assert (condition["object"], condition["type"], condition["after"]) == (
        "HTTPRoute shop/r",
        "ResolvedRefs",
        "False (BackendNotFound)",
    )


def test_one_cause_is_told_once_however_many_rules_it_concerns(differ):
    second = BASE[BASE.index("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute") :]
    routes = "".join(
        second.replace("name: r,", f"name: r{n},").replace("a.test", f"h{n}.test") + CART for n in range(5)
    )
    service = BASE.index("---\napiVersion: v1\nkind: Service\nmetadata: {name: cart")
    gone = BASE[:service] + BASE[BASE.index("---", service + 3) :]
    (change,) = changes(differ, CART + routes, CART + routes, after_base=gone)
    assert (change["hosts_total"], len(change["alike"])) == (6, 5)
    assert change["causes"] == ["Service shop/cart (removed)"]
    _, output = differ(CART + routes, CART + routes, after_base=gone)
    assert (
        "HTTPRoute shop/r parents[edge], HTTPRoute shop/r0 parents[edge], HTTPRoute shop/r1 parents[edge] and 3"
        in output
    )


def test_a_listener_that_goes_is_told_once(differ):
    gone = BASE.replace("port: 80, protocol: HTTP}]", "port: 81, protocol: HTTP}]")
    found = changes(differ, CART, CART, after_base=gone)
    assert {(c["port"], c["aspects"][0]["after"] or c["aspects"][0]["before"]) for c in found} >= {
        (80, "nothing listens on TCP port 80")
    }


def test_markdown_and_text(differ):
    code, output = differ(CART, CART.replace("cart, port", "other, port"), "-o", "markdown")
    assert code == 1
    assert output.startswith("### Routing: 1 change of behaviour")
    assert "| backends | Service shop/cart:80 | Service shop/other:80 |" in output
    code, output = differ(CART, CART.replace("cart, port", "other, port"))
    assert "     - Service shop/cart:80\n     + Service shop/other:80" in output
    assert "try:    curl -i 'http://a.test/cart'" in output


def test_git_revisions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.email=a@b", "-c", "user.name=n"]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "all.yaml").write_text(BASE + CART)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True, cwd=tmp_path)
    (tmp_path / "m" / "all.yaml").write_text(BASE + CART.replace("/cart", "/basket"))

    def run(*arguments):
        done = CliRunner().invoke(main, ["diff", *arguments, "-o", "json"])
        return done.exit_code, done.output

    code, output = run("HEAD:m", "m")
    assert code == 1
    assert json.loads(output)["objects"][0]["place"].startswith("m/all.yaml:")
    assert run("git:HEAD", "HEAD:m")[0] == 0
    assert run("m", "HEAD:./m")[0] == 1
    for wrong in ("HEAD:nosuch", "nosuch:m", "nosuch", "HEAD:../..", "--output=x:m"):
        code, output = run("m", wrong) if not wrong.startswith("-") else run("m", "--", wrong)
        assert code == 2, wrong
        assert "Traceback" not in output


@pytest.mark.parametrize("wrong", ["instance:/nosuch", "cluster:", "nosuch.yaml"])
def test_what_cannot_be_read_is_a_usage_error(tmp_path, monkeypatch, wrong):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nosuch"))
    (tmp_path / "a.yaml").write_text(BASE + CART)
    done = CliRunner().invoke(main, ["diff", str(tmp_path / "a.yaml"), wrong])
    assert done.exit_code == 2
    assert done.output.startswith("propylon diff: ")


def test_what_is_half_readable_is_not_compared(differ, tmp_path):
    code, output = differ(CART, CART, after_base="a: [1\n---\n" + BASE)
    assert code == 2
    assert "cannot be read as a whole" in output
    assert CliRunner().invoke(main, ["diff", "-", "-"]).exit_code == 2
    refused = (
        BASE + CART + "---\n" + BASE[BASE.rindex("apiVersion") :].replace("name: r,", "name: s,") + "  - matches: 5\n"
    )
    code, output = differ("", "", base=refused)
    assert code == 0
    assert "HTTPRoute shop/s spec.rules[0].matches" in output
