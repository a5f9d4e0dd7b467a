"""What one write costs the system, alike with 100 and 3,000 objects beside it. No clock is asked."""

import statistics
from pathlib import Path

import pytest

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
    assert max(statements) <= 12, statements
    assert len(statements) == 1, "alike at any size"


def test_a_change_writes_as_often_at_any_size(counts):
    # Two a page of the log, and some more when a page is split or the log is copied into the file.
    small, large = (statistics.median(each[2] for each in counts[size]) for size in SIZES)
    assert large <= 24
    assert large <= small + 8
