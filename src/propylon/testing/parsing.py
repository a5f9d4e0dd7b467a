"""RouteTests from documents. Everything that is wrong is told at once, each with its field. Pure."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from propylon.explain import ExplainError, Request
from propylon.explain.model import Place
from propylon.explain.request import parse
from propylon.testing.fields import Fields, Wrong, kind_of
from propylon.testing.model import API_VERSION, KIND, Case, Expectation, HeaderExpectation, RouteTest

OUTCOMES = ("forwarded", "redirected", "answered", "closed", "refused")
_BACKEND = re.compile(r"(?:[A-Za-z]+ )?[a-z0-9.-]+/[a-z0-9.-]+(?::\d{1,5})?")
_ROUTE = re.compile(r"(?:[A-Za-z]+ )?[a-z0-9.-]+/[a-z0-9.-]+")

Locate = Callable[[str], Place]
"""Field path to its place."""


def parse_route_test(
    document: Mapping[str, Any], directory: str, locate: Locate
) -> tuple[RouteTest | None, tuple[Wrong, ...]]:
    """Read one document of kind RouteTest; relative `manifests` begin at `directory`. None if anything is wrong."""
    wrongs: list[Wrong] = []
    fields = Fields(document, "", wrongs)
    if fields.raw("kind") != KIND or fields.raw("apiVersion") != API_VERSION:
        fields.wrong("apiVersion", f"a {KIND} has apiVersion {API_VERSION}, not {document.get('apiVersion')!r}")
    metadata = fields.mapping("metadata")
    name = metadata.text("name") if metadata is not None else None
    if name is None and not wrongs:
        fields.wrong("metadata.name", "is missing")
    manifests = fields.strings("manifests")
    variables = fields.pairs("variables") or ()
    dev_certs = fields.boolean("devCerts")
    base = _Defaults(fields.mapping("defaults"))
    cases = [
        case for path, value in fields.items("tests") if (case := _case(value, path, base, wrongs, locate)) is not None
    ]
    if not fields.has("tests") or document.get("tests") == []:
        fields.wrong("tests", "there is no test", "give a list of at least one request and what is expected of it")
    fields.done()
    _refuse_twins(cases, wrongs)
    if wrongs or name is None:
        return None, tuple(wrongs)
    paths = tuple(os.path.normpath(os.path.join(directory, each)) for each in manifests or (".",))  # noqa: PTH118
    return RouteTest(name, paths, variables, dev_certs, tuple(cases), locate("metadata.name")), ()


def checked_backend(text: str) -> str:
    """The name of a backend as expectations have it. Raises ValueError."""
    if _BACKEND.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not NAMESPACE/NAME[:PORT], such as shop/cart:80")
    return text


def checked_route(text: str) -> str:
    """The name of a route as expectations have it. Raises ValueError."""
    if _ROUTE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not NAMESPACE/NAME, such as shop/cart, or HTTPRoute shop/cart")
    return text


def _refuse_twins(cases: list[Case], wrongs: list[Wrong]) -> None:
    seen: dict[str, int] = {}
    for index, case in enumerate(cases):
        first = seen.setdefault(case.name, index)
        if first != index:
            wrongs.append(Wrong(f"tests[{index}].name", f"tests[{first}] has the name {case.name!r} already"))


class _Defaults:
    """What is the same for all requests of a RouteTest."""

    def __init__(self, fields: Fields | None) -> None:
        self.gateway = ""
        self.headers: tuple[tuple[str, str], ...] = ()
        if fields is not None:
            self.gateway = fields.text("from") or ""
            self.headers = fields.pairs("headers") or ()
            fields.done()


def _case(value: Any, path: str, base: _Defaults, wrongs: list[Wrong], locate: Locate) -> Case | None:
    if not isinstance(value, Mapping):
        wrongs.append(Wrong(path, f"must be a mapping with request and expect, not {kind_of(value)}"))
        return None
    before = len(wrongs)
    fields = Fields(value, path, wrongs)
    requests = []
    if fields.has("request") and fields.has("requests"):
        fields.wrong("requests", "stands beside request", "keep one of them")
    elif fields.has("request"):
        requests.append(_request(fields.raw("request"), fields.path("request"), base, wrongs))
    elif fields.has("requests"):
        requests += [_request(each, where, base, wrongs) for where, each in fields.items("requests")]
    else:
        fields.wrong("request", "is missing", "give a URL, or a mapping with a url")
    if fields.raw("requests") == []:
        fields.wrong("requests", "is empty")
    name = fields.text("name")
    wanted = fields.mapping("expect")
    expect = _expectation(wanted, inner=False) if wanted is not None else None
    if wanted is None and len(wrongs) == before:
        fields.wrong("expect", "is missing", "such as expect: {backend: shop/cart:80}")
    fields.done()
    found = tuple(each for each in requests if each is not None)
    if expect is None or len(wrongs) != before:
        return None
    return Case(name or request_text(found[0]), found, expect, locate(path))


def request_text(request: Request) -> str:
    """`GET https://shop.example.com/cart`."""
    if request.grpc:
        return f"{request.url} {request.grpc}"
    if request.url.split("://", maxsplit=1)[0] in {"tcp", "udp", "tls"}:
        return request.url
    return f"{request.method or 'GET'} {request.url}"


def _request(value: Any, path: str, base: _Defaults, wrongs: list[Wrong]) -> Request | None:
    if isinstance(value, str) and value:
        request = Request(value, headers=base.headers, gateway=base.gateway)
        return _sound(request, path, wrongs)
    if not isinstance(value, Mapping):
        wrongs.append(Wrong(path, f"must be a URL or a mapping with one, not {kind_of(value)}"))
        return None
    before = len(wrongs)
    fields = Fields(value, path, wrongs)
    targets = {
        "url": fields.text("url"),
        "tcp": fields.integer("tcp", 1, 65535),
        "udp": fields.integer("udp", 1, 65535),
    }
    given = [name for name, target in targets.items() if target is not None]
    if len(given) != 1 and len(wrongs) == before:
        fields.wrong("", "needs one of url, tcp and udp", "such as url: https://shop.example.com/cart")
    headers = _merged(base.headers, fields.pairs("headers") or ())
    sni = fields.raw("sni")
    if sni is not None and not isinstance(sni, str):
        fields.wrong("sni", f'must be a string ("" for none), not {kind_of(sni)}')
    request = Request(
        "",
        fields.text("method") or "",
        headers,
        fields.text("from") or base.gateway,
        sni if isinstance(sni, str) else None,
        fields.text("grpc") or "",
    )
    fields.done()
    if len(wrongs) != before:
        return None
    name = given[0]
    url = str(targets[name]) if name == "url" else f"{name}://:{targets[name]}"
    made = Request(url, request.method, request.headers, request.gateway, request.sni, request.grpc)
    return _sound(made, path, wrongs)


def _merged(base: tuple[tuple[str, str], ...], own: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    names = {name.lower() for name, _ in own}
    return (*(pair for pair in base if pair[0].lower() not in names), *own)


def _sound(request: Request, path: str, wrongs: list[Wrong]) -> Request | None:
    """The request, if it can be asked at all."""
    try:
        parse(request)
    except ExplainError as error:
        wrongs.append(Wrong(path, str(error)))
        return None
    return request


def _expectation(fields: Fields, *, inner: bool) -> Expectation:
    before = len(fields.wrongs)
    location, redirect_status = _redirect(fields)
    status = fields.integer("status", 100, 599)
    if redirect_status is not None and status is not None:
        fields.wrong("redirect.status", "stands beside status", "keep one of them")
    outcome = fields.choice("outcome", OUTCOMES)
    route, rule = fields.text("route"), fields.raw("rule")
    if rule is not None and (isinstance(rule, bool) or not isinstance(rule, int | str) or rule == ""):
        fields.wrong("rule", f"must be the index or the name of a rule, not {kind_of(rule)}")
    if route is not None and _ROUTE.fullmatch(route) is None:
        fields.wrong("route", f"{route!r} is not NAMESPACE/NAME", "such as shop/cart, or HTTPRoute shop/cart")
    backend = fields.text("backend")
    if backend is not None:
        _check_backend(fields, "backend", backend)
    unwanted = None
    if not inner:
        negated = fields.mapping("not")
        unwanted = _expectation(negated, inner=True) if negated is not None else None
    expect = Expectation(
        backend=backend,
        backends=_split(fields),
        outcome=outcome or ("redirected" if fields.has("redirect") else None),  # type: ignore[arg-type]
        status=status if status is not None else redirect_status,
        grpc_status=fields.integer("grpcStatus", 0, 16),
        location=location,
        route=route,
        rule=rule,
        path=fields.text("path"),
        host=fields.text("host"),
        backend_headers=_headers(fields, "backendHeaders"),
        response_headers=_headers(fields, "responseHeaders"),
        unrouted=fields.boolean("unrouted"),
        unwanted=unwanted,
    )
    fields.done()
    if expect == Expectation() and len(fields.wrongs) == before:
        fields.wrong("", "nothing is expected", "such as backend: shop/cart:80, status: 404 or unrouted: true")
    return expect


def _redirect(fields: Fields) -> tuple[str | None, int | None]:
    """`redirect: LOCATION`, or a mapping with location and status."""
    if not isinstance(fields.raw("redirect"), Mapping):
        return fields.text("redirect"), None
    inner = fields.mapping("redirect")
    assert inner is not None
    location, status = inner.text("location"), inner.integer("status", 300, 399)
    inner.done()
    return location, status


def _check_backend(fields: Fields, name: str, value: str) -> None:
    if _BACKEND.fullmatch(value) is None:
        fields.wrong(name, f"{value!r} is not NAMESPACE/NAME[:PORT]", "such as shop/cart:80")


def _split(fields: Fields) -> tuple[tuple[str, float], ...] | None:
    value = fields.raw("backends")
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        fields.wrong("backends", f"must be a mapping of backends to weights, not {kind_of(value)}")
        return None
    out = []
    for key, weight in value.items():
        _check_backend(fields, f'backends["{key}"]', str(key))
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
            fields.wrong(f'backends["{key}"]', f"must be a weight, not {kind_of(weight)}")
        else:
            out.append((str(key), float(weight)))
    if out and not sum(weight for _, weight in out):
        fields.wrong("backends", "all weights are 0", "expect status: 500 instead")
    return tuple(out)


def _headers(fields: Fields, name: str) -> HeaderExpectation | None:
    inner = fields.mapping(name)
    if inner is None:
        return None
    present, absent = inner.pairs("set") or (), inner.strings("absent") or ()
    inner.done()
    if not present and not absent:
        inner.wrong("", "nothing is expected", "give set: {NAME: VALUE} or absent: [NAME]")
    return HeaderExpectation(tuple((key.lower(), value) for key, value in present), tuple(map(str.lower, absent)))
