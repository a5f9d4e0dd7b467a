"""Requests as written and as a proxy reads them."""

import pytest

from propylon.explain import ExplainError, Request
from propylon.explain.request import host_of, normalized_path, parse


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/./b/", "/a/b/"),
        ("/a/..", "/"),
        ("/a//b", "/a//b"),
        ("/a\\b", "/a/b"),
        ("/%41%2d%7e", "/A-~"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a|b", "/a%7Cb"),
        ("/a?x=/../y", "/a?x=/../y"),
        ("/...", "/..."),
        ("/%00", None),
        ("/é", None),
        ("a", None),
    ],
)
def test_paths_are_normalized_as_envoy_does(sent, read):
    assert normalized_path(sent) == read


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("A.test:80", "a.test"),
        ("a.test.", "a.test"),
        ("a.test.:81", "a.test"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_hosts_lose_port_case_and_dot(authority, host):
    assert host_of(authority) == host


def test_urls():
    asked = parse(Request("shop.test/cart?q=1#there"))
    assert (asked.scheme, asked.host, asked.port, asked.target, asked.method) == (
        "http",
        "shop.test",
        80,
        "/cart?q=1",
        "GET",
    )
    asked = parse(Request("https://Shop.test:8443", headers=(("HOST", "b.test"), ("X-A", " 1 "))))
    assert (asked.port, asked.authority, asked.sni, asked.headers) == (8443, "b.test", "shop.test", (("x-a", "1"),))
    assert parse(Request("https://127.0.0.1")).sni == ""
    assert parse(Request("http://a.test/ü b")).target == "/%C3%BC%20b"


def test_grpc_calls():
    asked = parse(Request("grpc://api.test:80", grpc="shop.Cart/Add"))
    assert (asked.method, asked.target, asked.grpc) == ("POST", "/shop.Cart/Add", True)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("http://[::1"), "not a URL"),
        (Request("http://a.test:99999"), "not a URL"),
        (Request("ftp://a.test"), "scheme 'ftp'"),
        (Request("http://:80/"), "has no host"),
        (Request("http://a b/"), "is not a host"),
        (Request("tcp://a.test"), "needs a port"),
        (Request("http://a.test", headers=(("a b", "1"),)), "not a header name"),
        (Request("http://a.test", headers=(("a", "1\n2"),)), "line break"),
        (Request("http://a.test", grpc="Add"), "SERVICE/METHOD"),
    ],
)
def test_what_cannot_be_read_is_said(request_, said):
    with pytest.raises(ExplainError, match=said.replace("/", "/")):
        parse(request_)
