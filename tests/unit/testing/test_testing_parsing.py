"""RouteTests from documents: what they say, and what is wrong with them, each with field and line."""

from pathlib import Path

import pytest

from propylon.explain import Request
from propylon.testing.finding import find_tests
from propylon.testing.model import Expectation, HeaderExpectation

HEAD = """apiVersion: test.propylon.dev/v1alpha1
kind: RouteTest
metadata: {name: shop}
"""


def read(directory: Path, text: str) -> tuple:
    file = directory / "a.test.yaml"
    file.write_text(HEAD + text)
    found = find_tests([str(directory)])
    return found.tests, [(p.line, p.column, p.field, p.message, p.remedy) for p in found.problems]


def test_everything_that_can_be_written(tmp_path: Path) -> None:
    tests, problems = read(
        tmp_path,
        """
manifests: [., ../more]
variables: {domain: example.com, port: 80}
devCerts: true
defaults: {from: edge, headers: {X-A: "1", X-B: "2"}}
tests:
- request: http://a.test/x
  expect: {backend: shop/cart:80}
- name: all
  request:
    url: https://a.test/
    method: PUT
    headers: {x-b: [b, c], Host: b.test}
    from: shop/edge
    sni: ""
  expect:
    backend: XBackend shop/cart
    backends: {shop/cart:80: 1, shop/next: 0.5}
    status: 200
    redirect: https://b.test/
    route: HTTPRoute shop/r
    rule: named
    path: /x?y
    host: b.test
    backendHeaders: {set: {X-C: c}, absent: [X-D]}
    responseHeaders: {absent: X-E}
    unrouted: false
    not: {outcome: closed, status: 500}
- requests: [{tcp: 9000}, {udp: 53}, {url: "http://a.test", grpc: a.B/C}]
  name: several
  expect: {outcome: forwarded, grpcStatus: 0, rule: 0}
""",
    )
    assert problems == []
    (test,) = tests
    assert (test.name, test.manifests) == ("shop", (str(tmp_path), str(tmp_path.parent / "more")))
    assert (test.variables, test.dev_certs) == ((("domain", "example.com"), ("port", "80")), True)
    plain, everything, several = test.cases
    assert plain.name == "GET http://a.test/x"
    assert plain.requests == (Request("http://a.test/x", "", (("X-A", "1"), ("X-B", "2")), "edge"),)
    assert (plain.place.line, plain.place.column) == (10, 3)
    headers = (("X-A", "1"), ("x-b", "b"), ("x-b", "c"), ("Host", "b.test"))
    assert everything.requests == (Request("https://a.test/", "PUT", headers, "shop/edge", ""),)
    assert everything.expect == Expectation(
        backend="XBackend shop/cart",
        backends=(("shop/cart:80", 1.0), ("shop/next", 0.5)),
        outcome="redirected",
        status=200,
        location="https://b.test/",
        route="HTTPRoute shop/r",
        rule="named",
        path="/x?y",
        host="b.test",
        backend_headers=HeaderExpectation((("x-c", "c"),), ("x-d",)),
        response_headers=HeaderExpectation((), ("x-e",)),
        unrouted=False,
        unwanted=Expectation(outcome="closed", status=500),
    )
    assert [r.url for r in several.requests] == ["tcp://:9000", "udp://:53", "http://a.test"]
    assert several.requests[2].grpc == "a.B/C"
    assert (several.expect.rule, several.expect.grpc_status) == (0, 0)


def test_manifests_are_those_beside_the_file(tmp_path: Path) -> None:
    tests, _ = read(tmp_path, "tests: [{request: 'http://a.test', expect: {status: 404}}]")
    assert tests[0].manifests == (str(tmp_path),)


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("tests: []", 4, "tests", "there is no test"),
        ("tests: {a: b}", 4, "tests", "must be a list, not a mapping"),
        ("test: 1\ntests: [{request: x, expect: {status: 404}}]", 4, "test", "there is no such field"),
        ("tests: [http://a.test]", 4, "tests[0]", "must be a mapping with request and expect"),
        ("tests:\n- expect: {status: 404}", 5, "tests[0].request", "is missing"),
        ("tests:\n- request: http://a.test", 5, "tests[0].expect", "is missing"),
        ("tests:\n- request: http://a.test\n  expect: {}", 6, "tests[0].expect", "nothing is expected"),
        ("tests:\n- request: http://a.test\n  expect: {stats: 404}", 6, "tests[0].expect.stats", "no such field"),
        (
            "tests:\n- request: http://a.test\n  expect: {status: 40}",
            6,
            "tests[0].expect.status",
            "between 100 and 599",
        ),
        ("tests:\n- request: http://a.test\n  expect: {status: ok}", 6, "tests[0].expect.status", "whole number"),
        ("tests:\n- request: http://a.test\n  expect: {backend: cart}", 6, "tests[0].expect.backend", "NAMESPACE/NAME"),
        ("tests:\n- request: http://a.test\n  expect: {route: cart}", 6, "tests[0].expect.route", "NAMESPACE/NAME"),
        ("tests:\n- request: http://a.test\n  expect: {rule: true}", 6, "tests[0].expect.rule", "index or the name"),
        ("tests:\n- request: http://a.test\n  expect: {unrouted: 1}", 6, "tests[0].expect.unrouted", "true or false"),
        ("tests:\n- request: http://a.test\n  expect: {outcome: gone}", 6, "tests[0].expect.outcome", "must be one of"),
        (
            "tests:\n- request: http://a.test\n  expect:\n    backends: {a/b: -1}",
            7,
            'tests[0].expect.backends["a/b"]',
            "must be a weight",
        ),
        (
            "tests:\n- request: http://a.test\n  expect: {backends: {a/b: 0}}",
            6,
            "tests[0].expect.backends",
            "all weights are 0",
        ),
        (
            "tests:\n- request: http://a.test\n  expect:\n    not:\n      not: {status: 404}",
            8,
            "tests[0].expect.not.not",
            "there is no such field",
        ),
        ("tests:\n- request: 'http://a b/'\n  expect: {status: 404}", 5, "tests[0].request", "is not a host"),
        ("tests:\n- request: {tcp: 99999}\n  expect: {status: 404}", 5, "tests[0].request.tcp", "between 1 and 65535"),
        ("tests:\n- request: {}\n  expect: {status: 404}", 5, "tests[0].request", "needs one of url, tcp and udp"),
        (
            "tests:\n- request: {url: 'http://a', headers: {X: yes}}\n  expect: {status: 404}",
            5,
            'tests[0].request.headers["X"]',
            "in quotes",
        ),
        (
            "tests:\n- request: {url: 'http://a', headers: {'a b': c}}\n  expect: {status: 404}",
            5,
            "tests[0].request",
            "'a b' is not a header name",
        ),
        (
            "tests:\n- {name: n, request: 'http://a', expect: {status: 404}}\n"
            "- {name: n, request: 'http://b', expect: {status: 404}}",
            6,
            "tests[1].name",
            "has the name 'n' already",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, line: int, field: str, message: str) -> None:
    tests, problems = read(tmp_path, text)
    assert tests == ()
    assert [(p[0], p[2]) for p in problems] == [(line, field)]
    assert message in problems[0][3]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    _, problems = read(tmp_path, "tests:\n- request: http://a.test\n  expect: {stattus: 1, rule: [], path: {}}")
    assert [p[2] for p in problems] == [f"tests[0].expect.{name}" for name in ("rule", "path", "stattus")]
    assert problems[2][4] == "did you mean status?"


def test_files_that_are_no_tests(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: RouteTest\na: [")
    (tmp_path / "manifest.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n")
    (tmp_path / "other.yaml").write_text("apiVersion: v1\nkind: RouteTest\nmetadata: {name: a}\n")
    (tmp_path / ".hidden.yaml").write_text("kind: RouteTest\na: [")
    found = find_tests([str(tmp_path)])
    assert found.tests == ()
    assert [(Path(p.file).name, p.code) for p in found.problems] == [
        ("broken.yaml", "invalid_test"),
        ("other.yaml", "invalid_test"),
        ("other.yaml", "invalid_test"),
    ]
    assert "test.propylon.dev/v1alpha1, not 'v1'" in found.problems[1].message


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_tests(["/no/such/path"])
