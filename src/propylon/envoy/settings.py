"""What an operator may choose about the proxies' configuration; the defaults are those of an edge proxy."""

import msgspec


class EnvoySettings(msgspec.Struct, frozen=True):
    """Choices that apply to every Gateway. Times are seconds; 0 means no limit.

    Requests may be silent for as long as they like by default (`stream_idle_timeout` 0), because watches, event streams
    and WebSockets are; dead peers are found by TCP keep-alive, slow headers by `request_headers_timeout`.
    """

    access_log: bool = True
    """One line a request on the proxy's standard output."""
    backend_statistics: bool = True
    """Status codes and times of answers counted for each cluster too. Those of listeners are counted anyway; so are
    requests, connections, timeouts and retries of clusters. Counting them costs 6 % of what Envoy executes for a
    request."""
    trusted_hops: int = 0
    """How many proxies in front of the Gateway say the truth in X-Forwarded-For and its kin; 0: nobody is believed."""
    system_ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    """What `wellKnownCACertificates: System` means on the machine where the proxies run."""
    connect_timeout: float = 5.0
    stream_idle_timeout: float = 0.0
    request_headers_timeout: float = 15.0
    client_idle_timeout: float = 3600.0
    """How long a client's HTTP connection stays open without requests."""
    max_request_headers_kb: int = 60
    authorization_timeout: float = 5.0
    """How long an external authorization service may take to answer."""
    discover_chains: bool = True
    """Whether filter chains of ListenerSets and TLSRoutes are resources of their own (see `filter_chain`)."""
    scopes_from: int = 200
    """From so many hostnames with routes in a route table each is a resource of its own (see `scope`)."""
    misdirected_limit: int = 128
    """Up to so many HTTPS hostnames on a port are told apart from unknown ones on a foreign connection (421 against
    404); the tables would grow with the square of their number."""
