"""What one write costs the system, alike with 100 and 3,000 objects beside it. No clock is asked."""

import statistics
import sys
from pathlib import Path

import pytest

from propylon.api.meta import ObjectRef
from propylon.store import LocalStore

SIZES = (100, 3000)
CHANGES = 30
IO = Path("/proc/self/io")


def route(number, tag="first"):
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": f"{tag}.example.org"}}]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"r{number:05}", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "gw"}], "hostnames": [f"h{number}.example.com"], "rules": [rule]},
    }


class Counted:
    """A store with N routes, and what changes of one of them have it do."""

    def __init__(self, directory, size):
        self.store = LocalStore(directory)
        self.store.apply_many([route(number) for number in range(size)], "test", create_namespace=True)
        self.statements = []
        self.store._database._connection.set_trace_callback(self.statements.append)

    def change(self, tag):
        """(statements, transactions, write system calls) of one change."""
        del self.statements[:]
        before = system_writes()
        self.store.apply_many([route(50, tag)], "test")
        commits = sum(statement.startswith("COMMIT") for statement in self.statements)
        return len(self.statements), commits, system_writes() - before


def system_writes():
    """System calls of this process that wrote, so far (proc(5)); 0 where the kernel does not count them."""
    if not IO.exists():
        return 0
    return int(dict(line.split(": ") for line in IO.read_text(encoding="ascii").splitlines())["syscw"])


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    found = {}
    for size in SIZES:
        counted = Counted(tmp_path_factory.mktemp("store"), size)
        found[size] = [counted.change(f"tag{number}") for number in range(CHANGES)]
        counted.store.close()
    return found


def test_a_change_is_one_transaction_of_few_statements(counts):
    statements, transactions = ({each[place] for size in SIZES for each in counts[size]} for place in (0, 1))
    assert transactions == {1}
    assert max(statements) <= 7, statements  # begin, read, object, log, applied, counter, commit
    assert len(statements) == 1, "alike at any size"


def test_a_change_writes_as_often_at_any_size(counts):
    # Two a page of the log, and some more when a page is split or the log is copied into the file.
    small, large = (statistics.median(each[2] for each in counts[size]) for size in SIZES)
    assert large <= 24
    assert large <= small + 8


def endpoint_slice(number):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [f"10.0.0.{number}"]}],
    }


def status(number):
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}
    accepted = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": f"number {number}",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": number,
    }
    return {"parents": [{"parentRef": parent, "controllerName": "propylon.dev/gateway", "conditions": [accepted]}]}


WRITES = {
    "an endpoint slice": (lambda store, number: store.apply_many([endpoint_slice(number)], "test"), 80, 7),
    "the same again": (lambda store, number: store.apply_many([endpoint_slice(1)], "test"), 48, 3),
    "a route": (lambda store, number: store.apply_many([route(1, f"tag{number}")], "test"), 126, 7),
    "a status": (lambda store, number: store.patch_status(REF, lambda _stored: status(number)), 64, 6),
    "a new route": (lambda store, number: store.create(route(100 + number)), 96, 6),
}
"""One write of each kind, the calls of Python functions it may take, and its statements."""
REF = ObjectRef("gateway.networking.k8s.io", "HTTPRoute", "shop", "r00001")


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_takes_few_calls_and_statements(kind, tmp_path):
    # Every function that is called has to be fetched from memory when a write comes alone, so their number is what
    # such a write costs. The limits are a few calls above what there was when they were set.
    write, most_calls, most_statements = WRITES[kind]
    said = []
    with LocalStore(tmp_path) as store:
        store.apply_many([route(1), endpoint_slice(1)], "test", create_namespace=True)
        for number in range(5):
            write(store, number + 2)
        store._database._connection.set_trace_callback(said.append)
        write(store, 8)
        assert len(said) <= most_statements, said
        store._database._connection.set_trace_callback(None)
        made = calls(lambda: write(store, 9))
    assert made <= most_calls


def calls(act):
    """How many Python functions were called."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count
