"""The harness's decisions, without a cluster. ``run.py --self-test`` covers the rest."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import build
import run as entry
from harness.containers import Program, UnsupportedError, _relocated, expand, program_for
from harness.logs import Log
from harness.report import Counts, outside_profiles, read_profiles, table
from harness.services import ruleset, translations
from harness.suite import Outcome, _take, run_pattern

REPORT = """
kind: ConformanceReport
profiles:
- name: GATEWAY-TLS
  core: {result: success, statistics: {Passed: 3, Failed: 0, Skipped: 0}}
- name: GATEWAY-HTTP
  core: {result: failure, failedTests: [HTTPRouteA], statistics: {Passed: 30, Failed: 1, Skipped: 2}}
  extended: {result: partial, statistics: {Passed: 7, Failed: 0, Skipped: 1}}
"""


def test_go_mods_have_the_pinned_versions():
    assert build.pins_broken(build.read_versions()) == []


def test_another_version_than_the_pinned_one_is_named():
    broken = build.pins_broken(build.read_versions() | {"ETCD_VERSION": "v3.0.0"})
    assert len(broken) == 1
    assert "go.etcd.io/etcd/server/v3" in broken[0] and "v3.0.0" in broken[0]


def test_replacement_counts_before_requirement(tmp_path: Path):
    shutil.copytree(build.HERE / "go", tmp_path / "go")
    file = tmp_path / "go" / "suite" / "go.mod"
    wanted = build.read_versions()["CONFORMANCE_IMAGES_VERSION"]
    images = "sigs.k8s.io/gateway-api-conformance-images"
    required = f"{images} {wanted} // indirect\n"
    file.write_text(file.read_text().replace(f"=> {images} {wanted}", f"=> {images} v9.9.9") + f"require {required}")
    (broken,) = build.pins_broken(build.read_versions(), tmp_path / "go")
    assert "v9.9.9" in broken


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("registry.example/echo:v0.1.0", "echo"),
        ("registry.example/echo", "echo"),
        ("registry.example:5000/other@sha256:abc", "other"),
    ],
)
def test_program_is_found_with_and_without_tag(image: str, expected: str):
    programs = {"registry.example/echo": Program(("echo",)), "*/other": Program(("other",))}
    assert program_for(image, programs).command == (expected,)


def test_unknown_image_names_the_remedy():
    with pytest.raises(UnsupportedError, match="--image"):
        program_for("registry.example/echo-advanced:v1", {"registry.example/echo": Program(("echo",))})


@pytest.mark.parametrize(("text", "expected"), [("$(A)/x", "1/x"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("a$b", "a$b")])
def test_variables_expand_as_kubernetes_says(text: str, expected: str):
    assert expand(text, {"A": "1"}) == expected


def test_mount_paths_are_replaced_by_whole_segments():
    mounts = {"/etc/tls": Path("/run/volume")}
    assert _relocated("--cert=/etc/tls/crt,/etc/tls", mounts) == "--cert=/run/volume/crt,/run/volume"
    assert _relocated("/etc/tls-extra/crt", mounts) == "/etc/tls-extra/crt"


def test_log_keeps_lines_since_a_time(tmp_path: Path):
    async def scenario() -> None:
        log = Log(tmp_path / "pod" / "container.log")
        before = dt.datetime.now(dt.UTC)
        stream = asyncio.StreamReader(limit=16)
        stream.feed_data(b"one\ntwo\n" + b"x" * 40 + b"\nlast")
        stream.feed_eof()
        await log.read_from(stream)
        assert [line for _, line in log.lines(since=before)][:2] == [b"one", b"two"]
        assert b"".join(line for _, line in log.lines()) == b"onetwo" + b"x" * 40 + b"last"
        assert [line for _, line in log.lines(tail=1)] == [b"last"]
        assert log.lines(since=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)) == []
        await log.close()
        assert [entry async for entry in log.follow(log.count)] == []

    asyncio.run(scenario())


def test_follower_gets_lines_printed_after_it_began(tmp_path: Path):
    async def scenario() -> None:
        log = Log(tmp_path / "container.log")
        stream = asyncio.StreamReader()
        reading = asyncio.create_task(log.read_from(stream))
        following = log.follow(log.count)
        stream.feed_data(b"one\n")
        assert (await asyncio.wait_for(anext(following), 5))[1] == b"one"
        stream.feed_eof()
        await reading
        await log.close()
        assert [entry async for entry in following] == []

    asyncio.run(scenario())


def test_report_becomes_sorted_profiles(tmp_path: Path):
    path = tmp_path / "report.yaml"
    path.write_text(REPORT)
    http, tls = read_profiles(path)
    assert (http.name, http.core, http.extended) == ("GATEWAY-HTTP", Counts(30, 1, 2), Counts(7, 0, 1))
    assert http.failed_tests == ("HTTPRouteA",)
    assert tls.extended == Counts()


def test_table_names_failures_that_no_profile_counts(tmp_path: Path):
    path = tmp_path / "report.yaml"
    path.write_text(REPORT)
    profiles = read_profiles(path)
    outcome = Outcome(code=1, set_up=True, results={"HTTPRouteA": "fail", "GRPCRouteNamedRule": "fail", "B": "pass"})
    assert outside_profiles(profiles, outcome) == ["GRPCRouteNamedRule"]
    text = table(profiles, outcome)
    assert re.search(r"GATEWAY-HTTP +30/33 +7/8 +3 +1", text)
    assert "in no profile of the report: GRPCRouteNamedRule" in text
    assert "1 tests passed, 2 failed, 0 skipped" in text


def test_absent_report_is_said():
    text = table(read_profiles(Path("/nonexistent/report.yaml")), Outcome(code=1))
    assert "no report" in text and "before its first test" in text


def test_events_of_subtests_count_once_for_their_test():
    outcome, outputs, said = Outcome(), {}, []
    events = [
        {"Action": "output", "Test": "TestConformance/A/sub", "Output": "why\n"},
        {"Action": "fail", "Test": "TestConformance/A/sub", "Elapsed": 1.0},
        {"Action": "fail", "Test": "TestConformance/A", "Elapsed": 1.5},
        {"Action": "output", "Test": "TestConformance/B", "Output": "fine\n"},
        {"Action": "pass", "Test": "TestConformance/B", "Elapsed": 2.0},
        {"Action": "skip", "Test": "TestConformance/C", "Elapsed": 0.0},
        {"Action": "fail", "Test": "TestConformance", "Elapsed": 9.0},
    ]
    for event in events:
        _take(event, outcome, outputs, said.append)
    assert outcome.results == {"A": "fail", "B": "pass", "C": "skip"}
    assert outputs == {"A": ["why\n"]}
    assert len(said) == 2


def test_pattern_selects_whole_names():
    top, name = run_pattern(["A", "Bc"]).split("/")
    assert re.search(top, "TestConformance")
    assert [candidate for candidate in ("A", "AB", "Bc", "B") if re.search(name, candidate)] == ["A", "Bc"]


def test_results_of_strangers_are_not_deleted(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="--results"):
        entry.claim(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_results_are_emptied_and_locked(tmp_path: Path):
    with entry.claim(tmp_path):
        (tmp_path / "logs").mkdir()
        (tmp_path / "table.txt").write_text("old")
        with pytest.raises(ValueError, match="another run"):
            entry.claim(tmp_path)
    with entry.claim(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".conformance-results"]


def service(name: str, **spec: object) -> dict:
    ports = [{"name": "web", "port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIP": "10.96.0.7", "ports": ports} | spec}


def endpoint_slice(name: str, *endpoints: tuple[str, bool], port_name: str = "web") -> dict:
    return {
        "metadata": {"namespace": "ns", "name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": 3000, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}} for ip, ready in endpoints],
    }


def test_services_lead_to_ready_endpoints_of_the_port():
    web = service("a")
    web["status"] = {"loadBalancer": {"ingress": [{"ip": "10.110.0.10"}]}}
    slices = [endpoint_slice("a", ("10.128.0.12", True), ("10.128.0.11", True), ("10.128.0.13", False))]
    targets = [("10.128.0.11", 3000), ("10.128.0.12", 3000)]
    assert translations([web], slices) == {("10.96.0.7", "tcp", 80): targets, ("10.110.0.10", "tcp", 80): targets}


def test_headless_services_and_those_without_endpoints_are_left_out():
    slices = [endpoint_slice("a", ("10.128.0.11", True)), endpoint_slice("b", ("10.128.0.11", False))]
    assert translations([service("a", clusterIP="None"), service("b"), service("c")], slices) == {}


def test_rules_are_the_same_whatever_the_order():
    one = {("10.96.0.7", "tcp", 80): [("10.128.0.1", 1)], ("10.96.0.8", "udp", 53): [("10.128.0.2", 2)]}
    assert ruleset(one) == ruleset(dict(reversed(one.items())))
    assert "10.96.0.8 . udp . 53 : goto port1" in ruleset(one)
    assert "elements" not in ruleset({})
