"""Scalars that validation has opinions about: good ones for somebody, and bad ones for most."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache

import re2

from propylon.api.introspect import ScalarSpec
from propylon.api.schema import Constraint

STRINGS_BY_TOPIC: dict[str, tuple[str, ...]] = {
    "names": (
        *(
            "a",
            "web",
            "a-b",
            "a1",
            "1a",
            "0",
            "a.b",
            "a-b.c-d",
            "A",
            "Web",
            "a_b",
            "-a",
            "a-",
            "a--b",
            ".a",
            "a.",
            "a..b",
        ),
        *(
            "Service",
            "Gateway",
            "ConfigMap",
            "Secret",
            "XBackend",
            "ListenerSet",
            "ClusterTrustBundle",
            "service",
            "9Kind",
        ),
        *("gateway.networking.k8s.io", "gateway.networking.x-k8s.io", "certificates.k8s.io", "apps", "core", "k8s.io"),
        *("x" * 63, "x" * 64, "x" * 253, "x" * 254, ".".join(["y" * 63] * 4)[:253], "default", "kube-system"),
    ),
    "hosts": (
        *("example.com", "www.example.com", "*.example.com", "*", "*.", "*.*.com", "a.*.com", "*example.com", "*.com"),
        *(
            "WWW.example.com",
            "example.com.",
            "example..com",
            "xn--bcher-kva.example",
            "bücher.example",
            "a_b.example.com",
        ),
        *(
            "example.com:80",
            "http://example.com",
            "svc.ns.svc.cluster.local",
            "1.example",
            "example.1",
            "cluster.local",
        ),
        *("192.0.2.1", "192.0.2.256", "192.0.2", "192.0.2.01", "192.0.2.1/32", "0.0.0.0", "1.2.3.4.5", "*.1.2.3.4"),
        *(
            "::",
            "::1",
            "2001:db8::1",
            "2001:DB8::1",
            "::ffff:192.0.2.1",
            "fe80::1%eth0",
            "1::2::3",
            "[::1]",
            "::ffff:1",
        ),
        *("2001:db8:0:0:0:0:0:1", "2001:db8::1/64", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "64:ff9b::192.0.2.33"),
        *("010.000.0.00001", "::ffff:192.0.2.01", "00001::1", "1::00000", "0x1.2.3.4", "00.0.0.0", "0", "::0.0.0.256"),
    ),
    "qualified": (
        *("example.com/controller", "example.com/a/b", "example.com/", "/controller", "example.com", "EXAMPLE.com/a"),
        *("example.com/a b", "example.com/~!$&'()*+,;=:@", "Cluster", "Private", "k8s.io/a", "x.k8s.io/a", "a.io/b/c"),
        *(
            "HTTP",
            "HTTPS",
            "TLS",
            "TCP",
            "UDP",
            "http",
            "SCTP",
            "example.com/proto",
            "x example.com/Proto",
            "example.com/p_",
        ),
        *("IPAddress", "Hostname", "NamedAddress", "ipaddress", "HostnameX", "XIPAddressX", "example.com/address"),
    ),
    "paths": (
        *("/", "/a", "/a/b", "a", "/a/", "//", "/a//b", "/a/./b", "/a/../b", "/a/.", "/a/..", "/.a", "/..a", "/a%2fb"),
        *(
            "/a%2Fb",
            "/a%20b",
            "/a%zz",
            "/a b",
            "/a#b",
            "/a?b=c",
            "/ä",
            "/a|b",
            "/a{b}",
            "/~a@b:c",
            "/(a|b)+",
            "[",
            "/%",
        ),
        *("/" + "p" * 1023, "/" + "p" * 1024, "/a\\b", "/a\nb"),
    ),
    "headers": (
        *(
            "X-Header",
            "x-header",
            "X Header",
            "X-Header:",
            "!#$%&'*+-.^_`|~",
            "(x)",
            "Set-Cookie",
            ":authority",
            "X" * 256,
        ),
        *(
            "X" * 257,
            "value",
            "two words",
            " value",
            "value ",
            "va\tlue",
            "two  spaces",
            "välue",
            "va\nlue",
            "v\r\nX: y",
        ),
        *(
            "v" * 4096,
            "v" * 4097,
            "GET",
            "get",
            "POST",
            "HEAD",
            "CONNECT",
            "PATCH",
            "PURGE",
            "TRACE",
            "DELETE",
            "OPTIONS",
        ),
    ),
    "grpc": (
        *(
            "package.Service",
            ".package.Service",
            "package..Service",
            "Service.",
            "9Service",
            "Get",
            "Get-All",
            "_Get",
            "İ",
        ),
    ),
    "durations": (
        *(
            "0s",
            "1s",
            "10s",
            "1m30s",
            "1h",
            "1ms",
            "99999h",
            "100000h",
            "1h1m1s1ms",
            "1h1m1s1ms1h",
            "1.5s",
            "-1s",
            "1d",
        ),
        *("s", "10", "1us", "00001s", "1m 30s", "1s1h", "59s999ms", "60s", "1000ms", "999ms", "0m", "0h0m0s0ms"),
    ),
    "uris": (
        *(
            "https://example.com",
            "https://*.example.com",
            "https://*",
            "http://example.com:8080",
            "https://example.com:99999",
        ),
        *(
            "https://example.com/",
            "https://example.com:123456",
            "ftp://example.com",
            "https://EXAMPLE.com",
            "null",
            "*:*",
        ),
        *("spiffe://example.com/ns/a/sa/b", "urn:a:b", "://a", "a:", ":", "//a/b", "a?b", "https://a b", "mailto:a@b"),
    ),
    "enums": (
        *("Exact", "PathPrefix", "RegularExpression", "Prefix", "Terminate", "Passthrough", "All", "Same", "Selector"),
        *("None", "none", "True", "False", "Unknown", "true", "System", "system", "example.com/certificates", "Cookie"),
        *("Header", "Permanent", "Session", "ReplaceFullPath", "ReplacePrefixMatch", "RequestRedirect", "URLRewrite"),
        *("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "CORS", "ExternalAuth", "ExtensionRef"),
        *("GRPC", "https", "AllowValidOnly", "AllowInsecureFallback", "URI", "EndpointSelector", "ExternalHostname"),
        *("ServerOnly", "ClientAndServer", "ClientOnly", "H2C", "HTTP2", "WSS", "WS", "MCP", "In", "NotIn", "Exists"),
    ),
    "times": (
        *("2026-01-02T03:04:05Z", "2026-01-02t03:04:05z", "2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05+02:00"),
        *("2026-01-02", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z", "2026-02-30T03:04:05Z", "2026-01-02T25:04:05Z"),
        *(
            "2026-01-02T03:04:05",
            "2026-01-02T03:04Z",
            "2026-01-02T23:59:60Z",
            "2026-01-02T24:00:00Z",
            "1970-01-01T00:00:00Z",
        ),
        *("2026-01-02T03:04:05,5Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05+0200", "2026-01-02T03:04:05+99:99"),
    ),
    "blanks": (
        *("", " ", "\t", "\n", "a\n", "\u00a0", "${NAME}", "<NAME>", "\u212a", "é", "e\u0301", "\U0001f600", "\u0130"),
        *(
            "\U0001f600" * 63,
            "\U0001f600" * 64,
            "\U0001f600" * 253,
            "\U0001f600" * 254,
            "ü" * 64,
            "\x00",
            "\x7f",
            "\u2028",
        ),
        *(
            "Accepted",
            "example.com/Accepted",
            "Pending",
            "1Pending",
            "Pen_ding,:x_",
            "Pending:",
            "a" * 1024,
            "a" * 1025,
        ),
    ),
}
"""Strings that somebody may put somewhere, by what they are mostly for."""

STRINGS: tuple[str, ...] = tuple(dict.fromkeys(text for texts in STRINGS_BY_TOPIC.values() for text in texts))
"""All of them."""

TOPICS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("name", "kind", "group", "namespace", "sectionName", "gatewayClassName"), ("names", "qualified")),
    **dict.fromkeys(("hostname", "hostnames"), ("hosts",)),
    "value": ("hosts", "paths", "headers"),
    **dict.fromkeys(("path", "replaceFullPath", "replacePrefixMatch"), ("paths",)),
    **dict.fromkeys(("remove", "allowHeaders", "exposeHeaders", "allowedHeaders"), ("headers",)),
    **dict.fromkeys(("service", "method"), ("grpc", "headers")),
    **dict.fromkeys(("request", "backendRequest", "backoff", "absoluteTimeout"), ("durations",)),
    **dict.fromkeys(("allowOrigins", "uri"), ("uris",)),
    **dict.fromkeys(("controllerName", "routability", "protocol", "type", "wellKnownCACertificates"), ("qualified",)),
    "lastTransitionTime": ("times",),
}
"""Which strings are near to what a field takes, by the field's name; for other fields none are."""

INTEGERS: tuple[int, ...] = (
    *(-(2**63) - 1, -(2**63), -(2**31) - 1, -(2**31), -2, -1, 0, 1, 2, 5, 63, 64, 80, 99, 100, 101, 200, 301, 302, 303),
    *(304, 307, 308, 399, 400, 404, 500, 503, 599, 600, 1000, 8080, 65534, 65535, 65536, 999_999, 1_000_000, 1_000_001),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30),
)
"""Every integer that somebody may put somewhere."""

FRACTIONS: tuple[float, ...] = (0.0, 1.0, 80.0, 80.5, -0.0, -1.0, 65535.0, 65536.0, 1e3, 1e21, 1e300, 0.1, 302.0, -80.5)
"""Numbers that are written with a point or an exponent."""


def fits(constraint: Constraint, value: object) -> bool:
    """Whether a scalar keeps the constraints beside its type."""
    if constraint.enum is not None:
        return value in constraint.enum
    if isinstance(value, str):
        low, high = constraint.min_length or 0, constraint.max_length
        long_enough = low <= len(value) and (high is None or len(value) <= high)
        if constraint.format == "date-time":
            return bool(re.fullmatch(r"\d{4}-0\d-0\dT0\d:0\d:0\dZ", value))
        return long_enough and (constraint.pattern is None or bool(re2.search(constraint.pattern, value)))
    assert isinstance(value, int)
    low = constraint.minimum if constraint.minimum is not None else -(2**31)
    high = constraint.maximum if constraint.maximum is not None else 2**31 - 1
    return low <= value <= high


@cache
def good_strings(constraint: Constraint) -> tuple[str, ...]:
    """The strings that keep the constraints, the enum's own values included."""
    if constraint.enum is not None:
        return tuple(str(value) for value in constraint.enum)
    return tuple(text for text in STRINGS if fits(constraint, text)) or ("x" * (constraint.min_length or 1),)


@cache
def good_integers(constraint: Constraint) -> tuple[int, ...]:
    """The integers that keep the constraints."""
    if constraint.enum is not None:
        return tuple(int(value) for value in constraint.enum)
    return tuple(number for number in INTEGERS if fits(constraint, number))


def good_scalar(spec: ScalarSpec, random_: random.Random) -> object:
    """A value that keeps type and constraints."""
    kind = random_.choice(spec.kinds)
    if kind == "boolean":
        return random_.random() < 0.5
    if kind in ("integer", "number"):
        return random_.choice(good_integers(spec.constraint))
    return random_.choice(good_strings(spec.constraint))


def telling_scalars(spec: ScalarSpec, name: str) -> Iterator[object]:
    """Every value that may tell something about the field of that name."""
    constraint = spec.constraint
    if "string" in spec.kinds:
        for topic in (*TOPICS.get(name, ()), "blanks"):
            yield from STRINGS_BY_TOPIC[topic]
        for good in (*good_strings(constraint)[:1], *(str(value) for value in constraint.enum or ())):
            yield from (good, good.upper(), good.lower(), f"{good}-", f"-{good}", f"{good} ", f"{good}\n")
        for limit in (constraint.min_length, constraint.max_length):
            if limit is not None:
                yield from (letter * size for letter in "aü" for size in (limit - 1, limit, limit + 1) if size >= 0)
    if "integer" in spec.kinds:
        yield from (*INTEGERS, *FRACTIONS)
    yield from (None, True, 0, 1.5, "1", [], {}, [None], ["a"], {"a": "b"})


def near_scalar(spec: ScalarSpec, random_: random.Random, name: str = "") -> object:
    """A value of the right type that may break a constraint, often just so."""
    kind = random_.choice(spec.kinds)
    constraint = spec.constraint
    if kind == "boolean":
        return random_.random() < 0.5
    if kind in ("integer", "number"):
        edges = [edge for edge in (constraint.minimum, constraint.maximum) if edge is not None]
        if edges and random_.random() < 0.4:
            return random_.choice(edges) + random_.choice((-1, 0, 1))
        return random_.choice(FRACTIONS if random_.random() < 0.3 else INTEGERS)
    roll = random_.random()
    if roll < 0.15 and constraint.max_length is not None:
        return random_.choice("aA1ü") * (constraint.max_length + random_.choice((-1, 0, 1)))
    if roll < 0.4:
        return _bent(random_.choice(good_strings(constraint)), random_)
    topics = TOPICS.get(name)
    return random_.choice(STRINGS_BY_TOPIC[random_.choice(topics)] if topics and roll < 0.75 else STRINGS)


def _bent(text: str, random_: random.Random) -> str:
    """A good string with one thing about it changed."""
    at = random_.randrange(len(text) + 1)
    return random_.choice(
        (
            text.upper(),
            text.lower(),
            text + random_.choice("-._/ \n:*%#"),
            random_.choice("-._/ \n:*%#") + text,
            text[:at] + random_.choice("-._/ :*%#üA\x00") + text[at:],
            text[:-1],
            text[1:],
            text + text,
        )
    )
