"""What an explanation says. Its JSON form is these structs; docs/reference/explain.md is their schema."""

from typing import Literal

import msgspec

Outcome = Literal["forwarded", "redirected", "answered", "closed", "refused"]
"""forwarded: to a backend; redirected; answered: by the proxy itself; closed: the connection is; refused: nobody
listens."""
Result = Literal["matched", "failed", "not reached"]


class Place(msgspec.Struct, frozen=True):
    """Where something is written; line and column count from 1."""

    file: str
    line: int
    column: int


class Predicate(msgspec.Struct, frozen=True):
    """One condition of a match, and the values that were compared."""

    what: str
    """path, method, `header NAME` or `query NAME`."""
    wanted: str
    found: str | None
    """None: it is not in the request."""


class Candidate(msgspec.Struct, frozen=True):
    """One match of one rule that could have answered, in the order in which they are tried."""

    position: int
    """From 1, in the order of precedence."""
    object: str
    """`HTTPRoute shop/cart`."""
    rule: int
    rule_name: str | None
    match: int
    """Position in the rule's `matches`."""
    match_text: str
    result: Result
    failed: Predicate | None = None
    """The first condition that does not hold."""
    place: Place | None = None


class Gate(msgspec.Struct, frozen=True):
    """A choice on the way to the rule: Gateway, port, listener, virtual host."""

    what: str
    name: str
    why: str
    place: Place | None = None


class Step(msgspec.Struct, frozen=True):
    """A filter, timeout or the like, and what it changes."""

    what: str
    detail: str
    before: str | None = None
    after: str | None = None


class Backend(msgspec.Struct, frozen=True):
    """One way that the matched request can go."""

    name: str
    """`Service shop/cart:80`; "" if it names none."""
    weight: int
    share: float
    """Of the requests that this rule answers, 0 to 1."""
    outcome: Outcome
    status: int | None
    """What the client gets if the backend does not answer: 500, 503; None if the backend answers."""
    path: str = ""
    """As the backend receives it, query included."""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Those of the request, as the backend receives them."""
    protocol: str = ""
    tls: str = ""
    """Server name that is verified; "" for plain."""
    endpoints: tuple[str, ...] = ()
    why: str = ""
    location: str = ""
    steps: tuple[Step, ...] = ()
    """What is done for this backend alone."""


class Hint(msgspec.Struct, frozen=True):
    """A near miss, or what to change."""

    message: str
    manifest: str = ""
    """YAML to apply."""
    place: Place | None = None


class Explanation(msgspec.Struct, frozen=True):
    """All there is to say about a request."""

    request: str
    outcome: Outcome
    status: int | None
    """HTTP status if the proxy answers by itself, or if every backend would lead to it."""
    grpc_status: int | None
    """What a gRPC client is told in that case."""
    summary: str
    gates: tuple[Gate, ...] = ()
    winner: Candidate | None = None
    candidates: tuple[Candidate, ...] = ()
    """The nearest ones, in order; `candidates_total` counts all."""
    candidates_total: int = 0
    steps: tuple[Step, ...] = ()
    backends: tuple[Backend, ...] = ()
    location: str = ""
    hints: tuple[Hint, ...] = ()

    @property
    def well(self) -> bool:
        """Whether somebody answers the request as the manifests mean it: a backend, a redirect, a preflight."""
        if self.outcome == "forwarded":
            return all(backend.status is None for backend in self.backends)
        return self.outcome == "redirected" or (self.status is not None and self.status < 400)
