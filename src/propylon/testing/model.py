"""What a RouteTest asks and expects, and what an engine answers."""

from typing import Literal

import msgspec

from propylon.explain import Explanation, Request
from propylon.explain.model import Outcome, Place

API_VERSION = "test.propylon.dev/v1alpha1"
KIND = "RouteTest"

EngineName = Literal["graph", "envoy"]
Verdict = Literal["passed", "failed", "disagreement", "error"]
Pairs = tuple[tuple[str, str], ...]


class EngineError(Exception):
    """An engine cannot be run for this, or does not take what it is given. The message says why."""


class HeaderExpectation(msgspec.Struct, frozen=True):
    """Headers that are to be there with these values, and names that are not to be there."""

    present: Pairs = ()
    """Names in lower case; several lines of a header are joined by `,` (RFC 9110 5.3)."""
    absent: tuple[str, ...] = ()


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of a request; None where nothing is."""

    backend: str | None = None
    """`shop/cart:80`, `shop/cart`, or with a kind: `XBackend shop/cart:80`."""
    backends: tuple[tuple[str, float], ...] | None = None
    """A split: backends and their weights. All others get nothing."""
    outcome: Outcome | None = None
    status: int | None = None
    grpc_status: int | None = None
    location: str | None = None
    route: str | None = None
    """`shop/cart`, or with a kind: `HTTPRoute shop/cart`."""
    rule: int | str | None = None
    """Index or name."""
    path: str | None = None
    """As the backend receives it, with its query."""
    host: str | None = None
    """As the backend receives it."""
    backend_headers: HeaderExpectation | None = None
    response_headers: HeaderExpectation | None = None
    unrouted: bool | None = None
    """True: no rule takes it."""
    unwanted: "Expectation | None" = None
    """`not`: none of these may hold for any way that the request can go."""


class Case(msgspec.Struct, frozen=True):
    """One test: requests of which the same is expected."""

    name: str
    requests: tuple[Request, ...]
    expect: Expectation
    place: Place


class RouteTest(msgspec.Struct, frozen=True):
    """The tests of one object, and the manifests they are about."""

    name: str
    manifests: tuple[str, ...]
    """Paths as they can be opened from here."""
    variables: tuple[tuple[str, str], ...]
    dev_certs: bool | None
    cases: tuple[Case, ...]
    place: Place


class Way(msgspec.Struct, frozen=True):
    """One way that a request can go. Backends of tests answer 200, and gRPC calls with status 0."""

    outcome: Outcome
    share: float
    """0 to 1."""
    status: int | None
    """What the client is told; None where it gets no HTTP answer."""
    grpc_status: int | None = None
    backend: str = ""
    """`Service shop/cart:80`."""
    location: str = ""
    path: str | None = None
    """As the backend receives it; None where that is not known (bytes)."""
    host: str | None = None
    headers: Pairs | None = None
    response_headers: Pairs | None = None
    note: str = ""
    """Why it is so, where somebody knows."""


class Answer(msgspec.Struct, frozen=True):
    """What happens to a request, as one engine says it."""

    engine: EngineName
    ways: tuple[Way, ...]
    route: str | None
    """`HTTPRoute shop/cart`; "" if no rule took it, None if the engine cannot tell."""
    rule: int | None
    rule_name: str | None
    samples: int = 0
    """How often it was tried; 0 where shares are exact."""
    cors: bool = False
    """Whether CORS headers may be on the response that the engine does not tell."""


class Unmet(msgspec.Struct, frozen=True):
    """One expectation that does not hold."""

    engine: EngineName
    field: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: wanted {self.wanted}, found {self.found}"


class Result(msgspec.Struct, frozen=True):
    """What became of one request of a case."""

    test: str
    case: str
    place: Place
    request: Request
    verdict: Verdict
    unmet: tuple[Unmet, ...] = ()
    disagreements: tuple[str, ...] = ()
    error: str = ""
    """Why the question could not be answered as it was put, or the engine not run."""
    explanation: Explanation | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """`quickstart: editors meet the next version`."""
        return f"{self.test}: {self.case}"
