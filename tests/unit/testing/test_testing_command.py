"""`propylon test` without Envoy: output, exit codes, coverage, bad input."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from propylon.cli.main import main
from propylon.testing.finding import find_tests
from propylon.testing.run import Runner, run_tests

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
  hostnames: ["${domain:=a.test}"]
  rules:
  - name: cart
    matches:
    - path: {value: /cart}
    - path: {value: /basket}
    backendRefs: [{name: cart, port: 80}]
  - matches:
    - path: {value: /gone}
    backendRefs: [{name: nosuch, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
"""
HEAD = """apiVersion: test.propylon.dev/v1alpha1
kind: RouteTest
metadata: {name: shop}
tests:
"""
GOOD = (
    HEAD
    + """
- {name: cart, request: "http://a.test/cart", expect: {backend: shop/cart, rule: cart}}
- {name: gone, request: "http://a.test/gone", expect: {status: 500, rule: 1}}
"""
)
BAD = (
    HEAD
    + """
- {name: cart <1>, request: "http://a.test/cart", expect: {backend: shop/cart, rule: 1}}
- {name: unclear, request: {url: "http://a.test/", from: nobody}, expect: {status: 404}}
"""
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "manifests.yaml").write_text(MANIFESTS)
    return tmp_path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["test", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_all_is_well(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    result = run(directory)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"shop  {directory}/good.yaml"
    assert lines[1:3] == ["  passed  cart", "  passed  gone"]
    assert "coverage: 2 of 4 matches, 50.0 %" in lines
    assert lines[-1].startswith("2 passed in ")
    assert "passed  cart" not in run(directory, "-q").output


def test_what_fails_is_explained(directory: Path) -> None:
    (directory / "bad.yaml").write_text(BAD)
    result = run(directory)
    assert result.exit_code == 1
    assert f"  FAILED  cart <1>  {directory}/bad.yaml:6" in result.output
    assert "rule: wanted 1, found HTTPRoute shop/r rule 0 (cart)  (by the Graph)" in result.output
    assert "  HTTPRoute shop/r rule 0 cart [PathPrefix /cart]" in result.output, "with the explanation"
    assert "there is no Gateway nobody; there is shop/edge" in result.output
    assert result.output.splitlines()[-1].startswith("1 failed, 1 error in")


def test_coverage(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    result = run(directory, "--coverage", "--fail-under", "50")
    assert result.exit_code == 0
    place = MANIFESTS.splitlines().index("    - path: {value: /basket}") + 1
    assert f"  {directory}/manifests.yaml:{place}: HTTPRoute shop/r rule 0 (cart) [PathPrefix /basket]" in result.output
    assert "TCPRoute shop/lost rule 0, of a route that is attached to nothing" in result.output
    too_little = run(directory, "--fail-under", "50.1")
    assert too_little.exit_code == 1
    assert "coverage: 2 of 4 matches, 50.0 %: less than 50.1 %" in too_little.output
    assert "PathPrefix /basket" in too_little.output, "what is missing is told"


def test_one_match_of_two_sets_is_counted_once(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    other = "metadata: {name: more}\nmanifests: manifests.yaml"
    more = GOOD.replace("metadata: {name: shop}", other).replace("/gone", "/basket").replace("500, rule: 1", "200")
    (directory / "more.yaml").write_text(more)
    assert "coverage: 3 of 4 matches" in run(directory).output


def test_json(directory: Path) -> None:
    (directory / "bad.yaml").write_text(BAD)
    (directory / "good.yaml").write_text(GOOD.replace("name: shop", "name: more"))
    result = run(directory, "-o", "json")
    report = json.loads(result.output)
    assert (result.exit_code, report["passed"], report["version"], report["engine"]) == (1, False, 1, "graph")
    assert [r["verdict"] for r in report["results"]] == ["failed", "error", "passed", "passed"]
    failed = report["results"][0]
    assert failed["place"] == {"file": f"{directory}/bad.yaml", "line": 6, "column": 3}
    assert failed["unmet"] == [
        {"engine": "graph", "field": "rule", "wanted": "1", "found": "HTTPRoute shop/r rule 0 (cart)"}
    ]
    assert failed["explanation"]["winner"]["rule_name"] == "cart"
    assert report["coverage"]["percent"] == 50
    assert [m["object"] for m in report["coverage"]["missed"]] == ["HTTPRoute shop/r", "TCPRoute shop/lost"]


def test_junit(directory: Path) -> None:
    (directory / "bad.yaml").write_text(BAD)
    (directory / "wrong.yaml").write_text(HEAD + "- {}")
    result = run(directory, "-o", "junit")
    assert result.exit_code == 2
    suites = {suite.get("name"): suite for suite in ET.fromstring(result.output)}
    assert suites["shop"].attrib.items() >= {"tests": "2", "failures": "1", "errors": "1"}.items()
    failed, unclear = suites["shop"]
    assert (failed.get("name"), failed[0].tag, failed[0].get("type")) == ("cart <1>", "failure", "failed")
    assert (unclear.get("line"), unclear[0].tag) == ("7", "error")
    assert "tests[0].request: is missing" in (suites["files"][0][0].text or "")


def test_choosing_tests_and_manifests(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tests")
    (elsewhere / "good.yaml").write_text(GOOD.replace("a.test", "b.test"))
    result = run(elsewhere, "--manifests", directory, "--var", "domain=b.test", "-k", "GONE")
    assert result.exit_code == 0
    assert "1 passed" in result.output
    assert run(elsewhere, "--manifests", directory, "-k", "gone").exit_code == 1, "of another domain"


def test_variables_of_a_test(directory: Path) -> None:
    text = GOOD.replace("a.test", "b.test").replace("tests:", "variables: {domain: b.test}\ntests:")
    (directory / "good.yaml").write_text(text)
    assert run(directory).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such"], "/no/such does not exist"),
        (["{}"], "there is no RouteTest in"),
        (["{}/good", "-k", "nothing of the kind"], "no test has 'nothing of the kind' in its name"),
        (["{}/good", "--envoy", "--engine", "graph"], "--envoy is --engine both"),
        (["{}/good", "--watch", "-o", "json"], "--watch prints text"),
        (["{}/good", "--engine", "nginx"], "Invalid value for '--engine'"),
        (["{}/wrong"], "wrong.yaml:5:3: error: RouteTest shop tests[0].request: is missing"),
        (["{}/broken"], "broken.yaml:1:1: error: cannot be read"),
        (["{}/nowhere"], "its manifests cannot be read"),
        ([], "Missing argument 'PATHS...'"),
    ],
)
def test_bad_input(directory: Path, arguments: list[str], message: str) -> None:
    for name, text in {
        "good": GOOD,
        "wrong": HEAD + "- {}",
        "broken": "\x00",
        "nowhere": GOOD.replace("tests:", "manifests: /no/such\ntests:"),
    }.items():
        (directory / name).mkdir()
        (directory / name / f"{name}.yaml").write_text(text)
    if arguments == ["{}/broken"]:
        arguments = ["{}/broken/broken.yaml"]
    if arguments == ["{}"]:
        (directory / "empty").mkdir()
        arguments = ["{}/empty"]
    result = run(*(argument.replace("{}", str(directory)) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_manifests_with_errors_are_named_first(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    (directory / "manifests.yaml").write_text(MANIFESTS.replace("path: {value: /gone}", "path: {value: gone}"))
    result = run(directory)
    assert result.exit_code == 1
    assert "HTTPRoute shop/r spec.rules[1].matches[0].path.value" in result.output
    assert result.output.index("spec.rules[1]") < result.output.index("--- shop: cart")


def test_a_broken_test_does_not_hide_the_others(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    (directory / "wrong.yaml").write_text(HEAD + "- {}")
    result = run(directory)
    assert result.exit_code == 2
    assert "2 passed" in result.output


def test_what_the_results_rest_on(directory: Path) -> None:
    (directory / "good.yaml").write_text(GOOD)
    report = run_tests(find_tests([str(directory)]), Runner("graph"))
    assert {str(directory), f"{directory}/good.yaml", f"{directory}/manifests.yaml"} <= set(report.watched)
