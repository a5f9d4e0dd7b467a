"""What a request for logs means, and where it is answered."""

import datetime as dt
from typing import Any

import pytest

from propylon.server.errors import ApiError
from propylon.server.logs import container_of, kubelet_of, log_options
from propylon.server.machine import LogOptions
from propylon.server.requests import Request

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)


def options(**parameters: str) -> LogOptions:
    return log_options(Request("GET", "/", parameters, {}), NOW)


def pod(*containers: str, init: tuple[str, ...] = (), **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": name} for name in containers]}
    if init:
        spec["initContainers"] = [{"name": name} for name in init]
    return {"metadata": {"name": "p", "namespace": "n", **metadata}, "spec": spec}


def test_options() -> None:
    assert options() == LogOptions()
    said = options(container="c", follow="true", previous="1", tailLines="0", limitBytes="7", timestamps="true")
    assert said == LogOptions("c", follow=True, previous=True, tail=0, limit_bytes=7, timestamps=True)
    assert options(sinceSeconds="60").since == NOW - dt.timedelta(minutes=1)
    assert options(sinceTime="2026-05-01T11:00:00Z").since == NOW - dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "-1"}, 400),
        ({"sinceSeconds": "1", "sinceTime": "2026-05-01T11:00:00Z"}, 422),
        ({"sinceTime": "yesterday"}, 400),
        ({"sinceTime": "2026-05-01T11:00:00"}, 400),
        ({"tailLines": "some"}, 400),
        ({"limitBytes": "0"}, 422),
    ],
)
def test_options_that_make_no_sense(parameters: dict[str, str], code: int) -> None:
    with pytest.raises(ApiError) as refused:
        options(**parameters)
    assert refused.value.code == code


def test_container() -> None:
    assert container_of(pod("a"), "") == "a"
    assert container_of(pod("a", "b"), "b") == "b"
    assert container_of(pod("a", "b", annotations={"kubectl.kubernetes.io/default-container": "b"}), "") == "b"
    assert container_of(pod("a", init=("i",)), "i") == "i"
    with pytest.raises(ApiError, match=r"must be specified for pod p, choose one of: \[a b\]"):
        container_of(pod("a", "b"), "")
    with pytest.raises(ApiError, match="container x is not valid for pod p"):
        container_of(pod("a"), "x")


def test_kubelet() -> None:
    addresses = [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}]
    endpoint = {"kubeletEndpoint": {"Port": 10250}}
    assert kubelet_of({"status": {"addresses": addresses, "daemonEndpoints": endpoint}}) == ("10.0.0.1", 10250)
    assert kubelet_of({"status": {"addresses": addresses}}) is None
    assert kubelet_of({"status": {"daemonEndpoints": endpoint}}) is None
    assert kubelet_of({}) is None
