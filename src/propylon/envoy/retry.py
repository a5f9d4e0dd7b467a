"""RetryPolicy: retries and the time limit of each try (HTTPRouteRetry, HTTPRouteTimeouts.backendRequest)."""

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2

from propylon.envoy.resource import pack, seconds
from propylon.graph.model import Rule

_NOT_PROCESSED = ("connect-failure", "refused-stream")
"""What the backend certainly did not act upon: retried with or without codes. A reset after sending is not."""
_MAXIMUM_BACKOFF_FACTOR = 10


def build_retry_policy(rule: Rule, *, grpc: bool) -> Any | None:
    """The RetryPolicy of a rule, or None if it asks for neither retries nor a limit per try."""
    limit = rule.timeouts.backend_request if rule.timeouts else None
    retry = rule.retry if rule.retry is not None and rule.retry.attempts > 0 else None
    if retry is None and not limit:
        return None
    policy = route_pb.RetryPolicy()
    policy.num_retries.value = retry.attempts if retry else 0
    if limit:
        policy.per_try_timeout.CopyFrom(seconds(limit))
    if retry is None:
        return policy
    conditions = [*_NOT_PROCESSED]
    if retry.codes:
        conditions.append("retriable-status-codes")
        policy.retriable_status_codes.extend(retry.codes)
    if 504 in retry.codes and limit:
        # The 504 of a try that ran out of time is Envoy's own: it never is a status of the backend, but a reset.
        conditions.append("reset")
    if grpc:
        conditions.append("unavailable")
    policy.retry_on = ",".join(conditions)
    # A second try at the endpoint that just refused is a try wasted.
    policy.retry_host_predicate.add(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    policy.host_selection_retry_max_attempts = 5
    if retry.backoff:
        policy.retry_back_off.base_interval.CopyFrom(seconds(retry.backoff))
        policy.retry_back_off.max_interval.CopyFrom(seconds(retry.backoff * _MAXIMUM_BACKOFF_FACTOR))
    return policy
