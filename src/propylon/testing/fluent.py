"""Tests of routing in Python.

gateway("examples/").get("https://shop.example.com/cart").routed_to("shop/cart:80").taken_by("shop/cart", rule=0)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from propylon.explain import Explanation, Request
from propylon.testing.expectations import rule_text, where
from propylon.testing.formats import ENGINES
from propylon.testing.model import Answer, Expectation, HeaderExpectation, Pairs, Unmet
from propylon.testing.parsing import checked_backend, checked_route
from propylon.testing.site import Asked, Site

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Render = Callable[[Explanation], str]


class EnginesDisagreeError(AssertionError):
    """Envoy does something else than the Graph says: a fault of propylon's, not of the manifests."""


class Gateway:
    """Manifests that can be asked."""

    def __init__(self, site: Site, render: Render) -> None:
        """`render` makes text of an explanation, for the messages of assertions that fail."""
        self._site = site
        self._render = render

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        gateway: str = "",
        sni: str | None = None,
        grpc: str = "",
    ) -> "Answered":
        """Ask what happens to a request.

        `gateway` (NAME, NAMESPACE/NAME or an address) is needed only where several Gateways fit; `sni` is the server
        name of the TLS handshake where it is not the URL's host.

        Raises ExplainError if the question cannot be answered as it was put, EngineError if Envoy cannot be run, and
        EnginesDisagreeError.
        """
        pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
        asked = self._site.ask(Request(url, method, pairs, gateway, sni, grpc))
        answered = Answered(asked, self._render)
        if asked.disagreements:
            raise EnginesDisagreeError(answered.message([f"the engines disagree: {t}" for t in asked.disagreements]))
        return answered

    def get(self, url: str, **options: Any) -> "Answered":
        """GET; options as of `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> "Answered":
        """HEAD; options as of `request`."""
        return self.request("HEAD", url, **options)

    def post(self, url: str, **options: Any) -> "Answered":
        """POST; options as of `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> "Answered":
        """PUT; options as of `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> "Answered":
        """PATCH; options as of `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> "Answered":
        """DELETE; options as of `request`."""
        return self.request("DELETE", url, **options)

    def options(self, url: str, **options: Any) -> "Answered":
        """OPTIONS; options as of `request`."""
        return self.request("OPTIONS", url, **options)

    def grpc(self, url: str, call: str, **options: Any) -> "Answered":
        """A gRPC call, `SERVICE/METHOD`; options as of `request`."""
        return self.request("", url, grpc=call, **options)

    def tcp(self, port: int, *, gateway: str = "") -> "Answered":
        """A TCP connection."""
        return self.request("", f"tcp://:{port}", gateway=gateway)

    def udp(self, port: int, *, gateway: str = "") -> "Answered":
        """A datagram."""
        return self.request("", f"udp://:{port}", gateway=gateway)

    def tls(self, url: str, *, gateway: str = "", sni: str | None = None) -> "Answered":
        """A TLS connection, `tls://HOST:PORT`."""
        return self.request("", url, gateway=gateway, sni=sni)


class Answered:
    """What happens to a request. Each method asserts one thing of every engine that was asked, and returns this."""

    def __init__(self, asked: Asked, render: Render) -> None:
        self.asked = asked
        self._render = render

    @property
    def explanation(self) -> Explanation:
        """Why it happens."""
        return self.asked.explanation

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What each engine answers."""
        return self.asked.answers

    def __repr__(self) -> str:
        ways = " or ".join(dict.fromkeys(where(way) for way in self.answers[0].ways))
        return f"<{self.explanation.request}: {ways}, {rule_text(self.answers[0])}>"

    def message(self, lines: Iterable[str]) -> str:
        """What an assertion says that fails: what does not hold, and the explanation."""
        return "\n".join([*lines, "", self._render(self.explanation)])

    def expect(self, expectation: Expectation) -> "Answered":
        """Assert whatever can be expected."""
        __tracebackhide__ = True
        unmet: tuple[Unmet, ...] = self.asked.unmet(expectation)
        if unmet:
            raise AssertionError(self.message(f"{each}  (by {ENGINES[each.engine]})" for each in unmet))
        return self

    def routed_to(self, backend: str) -> "Answered":
        """It always goes to this backend: `shop/cart:80`, or `shop/cart` for any port."""
        __tracebackhide__ = True
        return self.expect(Expectation(backend=checked_backend(backend)))

    def not_routed_to(self, backend: str) -> "Answered":
        """It never goes to this backend."""
        __tracebackhide__ = True
        return self.expect(Expectation(unwanted=Expectation(backend=checked_backend(backend))))

    def split(self, weights: Mapping[str, float]) -> "Answered":
        """It goes to these backends by these weights, and to no other."""
        __tracebackhide__ = True
        if not weights or any(weight < 0 for weight in weights.values()) or not sum(weights.values()):
            raise ValueError("a split needs weights, and one above 0")
        pairs = tuple((checked_backend(name), float(weight)) for name, weight in weights.items())
        return self.expect(Expectation(backends=pairs))

    def redirected_to(self, location: str, status: int | None = None) -> "Answered":
        """It is answered with this Location, and status."""
        __tracebackhide__ = True
        return self.expect(Expectation(outcome="redirected", location=location, status=status))

    def status(self, status: int) -> "Answered":
        """The client gets this status; backends of tests answer 200."""
        __tracebackhide__ = True
        return self.expect(Expectation(status=status))

    def grpc_status(self, status: int) -> "Answered":
        """The gRPC client gets this status; backends of tests answer 0."""
        __tracebackhide__ = True
        return self.expect(Expectation(grpc_status=status))

    def not_routed(self) -> "Answered":
        """No rule takes it."""
        __tracebackhide__ = True
        return self.expect(Expectation(unrouted=True))

    def taken_by(self, route: str | None = None, rule: int | str | None = None) -> "Answered":
        """This route takes it, by the rule of this index or name."""
        __tracebackhide__ = True
        return self.expect(Expectation(route=None if route is None else checked_route(route), rule=rule))

    def refused(self) -> "Answered":
        """Nobody listens there."""
        __tracebackhide__ = True
        return self.expect(Expectation(outcome="refused"))

    def closed(self) -> "Answered":
        """The connection is closed without an answer."""
        __tracebackhide__ = True
        return self.expect(Expectation(outcome="closed"))

    def backend_sees(
        self,
        path: str | None = None,
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        absent: Iterable[str] = (),
    ) -> "Answered":
        """The backend receives this path (with its query), Host and headers, and none that are `absent`."""
        __tracebackhide__ = True
        return self.expect(Expectation(path=path, host=host, backend_headers=_headers(headers, absent)))

    def responds(self, headers: Mapping[str, str] | None = None, absent: Iterable[str] = ()) -> "Answered":
        """The client gets these headers, and none that are `absent`."""
        __tracebackhide__ = True
        return self.expect(Expectation(response_headers=_headers(headers, absent)))


def _headers(present: Mapping[str, str] | None, absent: Iterable[str]) -> HeaderExpectation | None:
    pairs: Pairs = tuple((name.lower(), value) for name, value in (present or {}).items())
    names = (absent,) if isinstance(absent, str) else tuple(absent)
    return HeaderExpectation(pairs, tuple(name.lower() for name in names)) if pairs or names else None
