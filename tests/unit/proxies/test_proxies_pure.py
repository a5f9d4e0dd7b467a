"""The decisions of the room: bootstrap, back-off, command lines, paths, logs. No Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from propylon.proxies import log
from propylon.proxies.admin import count_in_flight
from propylon.proxies.backoff import BackoffPolicy, delay, next_failures
from propylon.proxies.bootstrap import build_bootstrap
from propylon.proxies.directories import LONGEST_SOCKET_PATH, ProxyFiles, own_directory, run_directory
from propylon.proxies.handle import FoundProcess, ProcessHandle, parse_command_line, start_process
from propylon.proxies.settings import DirectoryRefusedError, ProxySettings, default_concurrency
from propylon.proxies.supervisor import last_words, plan_launch

XDS, ADMIN = Path("/run/x/xds.sock"), Path("/run/x/admin.sock")


def bootstrap(settings: ProxySettings | None = None) -> dict[str, object]:
    built = build_bootstrap("ns/name", xds_socket=XDS, admin_socket=ADMIN, settings=settings or ProxySettings())
    return dict(json.loads(built))


def test_the_bootstrap_names_the_gateway_and_both_sockets() -> None:
    document = bootstrap()
    assert document["node"] == {"id": "ns/name", "cluster": "propylon"}
    text = json.dumps(document)
    assert text.count(str(XDS)) == 1
    assert text.count(str(ADMIN)) == 1
    assert '"api_type": "DELTA_GRPC"' in text


def test_the_bootstrap_is_deterministic_and_follows_the_settings() -> None:
    assert bootstrap() == bootstrap()
    assert '"max_heap_size_bytes": 123' in json.dumps(bootstrap(ProxySettings(max_heap_bytes=123)))
    assert '"max_active_downstream_connections": 7' in json.dumps(bootstrap(ProxySettings(max_connections=7)))


def test_only_stats_of_clusters_that_cannot_change_are_left_out() -> None:
    stats = bootstrap()["stats_config"]
    assert isinstance(stats, dict)
    [pattern] = stats["stats_matcher"]["exclusion_list"]["patterns"]
    cluster = "cluster.Service/shop/update_cart.x/80."
    mute = ["circuit_breakers.high.rq_open", "lb_zone_routing_sampled", "version", "update_attempt", "version_text"]
    told = ["membership_healthy", "upstream_cx_active", "upstream_rq_2xx", "upstream_rq_retry", "ssl.versions.TLSv1.3"]
    assert all(re.fullmatch(pattern["safe_regex"]["regex"], cluster + name) for name in mute)
    others = ["server.version", "cluster_manager.cds.update_success", "listener_manager.lds.version"]
    for name in (*(cluster + name for name in told), *others):
        assert not re.fullmatch(pattern["safe_regex"]["regex"], name), name


def test_extra_resources_are_added_to_ours() -> None:
    extra = ProxySettings(static_resources={"clusters": [{"name": "mine"}], "listeners": [{"name": "l"}]})
    static = bootstrap(extra)["static_resources"]
    assert isinstance(static, dict)
    assert [cluster["name"] for cluster in static["clusters"]] == ["propylon_control_plane", "mine"]
    assert static["listeners"] == [{"name": "l"}]


@pytest.mark.parametrize(
    "wrong", [{"log_level": "loud"}, {"concurrency": -1}, {"max_heap_bytes": 0}, {"drain_seconds": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"log_level|must"):
        ProxySettings(**wrong)  # type: ignore[arg-type]


def test_concurrency_is_bounded() -> None:
    assert 1 <= default_concurrency() <= 4


def test_every_setting_that_reaches_the_process_changes_the_fingerprint(tmp_path: Path) -> None:
    files, envoy = ProxyFiles(tmp_path, tmp_path, "ns/name"), tmp_path / "envoy"
    envoy.write_bytes(b"1")

    def fingerprint(**changed: object) -> str:
        return plan_launch(files, XDS, envoy, ProxySettings(**changed)).fingerprint  # type: ignore[arg-type]

    changes: list[dict[str, object]] = [
        {"concurrency": 3},
        {"log_level": "debug"},
        {"max_heap_bytes": 5},
        {"max_connections": 5},
        {"drain_seconds": 60.0},
        {"hot_restart": False},
        {"static_resources": {"secrets": []}},
    ]
    fingerprints = {fingerprint(), *(fingerprint(**change) for change in changes)}
    assert len(fingerprints) == len(changes) + 1
    assert fingerprint() in fingerprints
    envoy.write_bytes(b"22")  # another version
    assert fingerprint() not in fingerprints


@given(st.integers(0, 10_000))
def test_back_off_grows_up_to_its_limit(failures: int) -> None:
    policy = BackoffPolicy(first=0.1, longest=30.0)
    assert 0 <= delay(failures, policy) <= delay(failures + 1, policy) <= 30.0


def test_back_off_forgives_who_was_healthy() -> None:
    policy = BackoffPolicy(first=0.1, longest=30.0, forgiven_after=20.0)
    assert [delay(n, policy) for n in range(5)] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert next_failures(4, 1.0, policy) == 5
    assert next_failures(4, 20.0, policy) == 1


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["/x/envoy", "-c", "/d/b.json"], FoundProcess(7, Path("/d/b.json"), 0, None)),
        (
            ["/x/envoy", "-c", "/d/b.json", "--restart-epoch", "2", "--base-id", "42"],
            FoundProcess(7, Path("/d/b.json"), 2, 42),
        ),
        (["/x/envoy", "--version"], None),
        (["/x/envoy", "-c", "/d/b.json", "--restart-epoch", "x"], None),
        (["vim", "-c", "/d/b.json"], None),
        ([""], None),
        ([], None),
    ],
)
def test_command_lines(arguments: list[str], found: FoundProcess | None) -> None:
    assert parse_command_line(7, arguments) == found


def test_what_is_in_flight() -> None:
    stats = """
http.admin.downstream_cx_active: 1
http.admin.downstream_rq_active: 1
http.web.downstream_cx_active: 3
http.web.downstream_rq_active: 2
listener.127.0.0.1_80.downstream_cx_active: 3
listener.127.0.0.1_80.worker_0.downstream_cx_active: 3
listener.127.0.0.1_9000.downstream_cx_active: 4
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
"""
    assert count_in_flight(stats) == 2 + 4
    assert count_in_flight("") == 0


@pytest.mark.parametrize(
    ("lines", "ran_for", "told"),
    [
        (["[1][critical][main] no such file", "exiting"], 1.0, "no such file"),
        (["libfoo.so: not found"], 0.1, "libfoo.so: not found"),
        (["GET / 200"], 3600.0, "Envoy ended"),
        ([], 0.1, "Envoy ended"),
    ],
)
def test_last_words(lines: list[str], ran_for: float, told: str) -> None:
    assert last_words(lines, ran_for).endswith(told)


class TestDirectories:
    def test_paths_fit_however_long_the_data_directory_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 90)))
        (tmp_path / ("x" * 90)).mkdir()
        data = tmp_path / ("long" * 40) / "data"
        run = run_directory(data)
        try:
            assert run.parent == Path("/tmp") / f"propylon-{os.geteuid()}"
            assert run.stat().st_mode & 0o777 == 0o700
            files = ProxyFiles(data, run, f"{'n' * 63}/{'g' * 253}")
            files.create()
            assert len(os.fsencode(files.admin_socket)) <= LONGEST_SOCKET_PATH
            assert len(os.fsencode(f"{files.hot_restart_socket}_udp_parent_42949672959")) <= LONGEST_SOCKET_PATH
            files.forget()
            assert not files.directory.exists()
        finally:
            run.rmdir()

    def test_the_choice_is_kept_in_another_session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with tempfile.TemporaryDirectory(prefix="run-") as short:
            self._choose_and_return(Path(short), tmp_path, monkeypatch)

    def _choose_and_return(self, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        run = run_directory(tmp_path / "data")
        assert run.is_relative_to(runtime)
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert run_directory(tmp_path / "data") == run
        # After a reboot it is gone, and made again.
        run.rmdir()
        assert run_directory(tmp_path / "data") == run
        assert run_directory(tmp_path / "other") != run
        run_directory(tmp_path / "other").rmdir()

    def test_somebody_elses_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(DirectoryRefusedError, match="not a directory"):
            own_directory(tmp_path / "link")
        (tmp_path / "file").touch()
        with pytest.raises(DirectoryRefusedError, match="not a directory"):
            own_directory(tmp_path / "file")
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        assert own_directory(tmp_path / "open").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("node", ["", "name", "a/../b", "../x", "a/b/c", "A/b", "a/", "/b", "a/.."])
    def test_a_node_cannot_lead_out_of_the_directory(self, tmp_path: Path, node: str) -> None:
        with pytest.raises(ValueError, match="NAMESPACE/NAME"):
            ProxyFiles(tmp_path, tmp_path, node)

    def test_nodes_do_not_share_files(self, tmp_path: Path) -> None:
        one, two = ProxyFiles(tmp_path, tmp_path, "a/b-c"), ProxyFiles(tmp_path, tmp_path, "a-b/c")
        assert one.directory != two.directory
        assert one.run != two.run


class TestLog:
    def test_rotation_keeps_every_line_and_the_writer(self, tmp_path: Path) -> None:
        path = tmp_path / "envoy.log"
        with path.open("a") as writer:
            for number in range(100):
                print(number, file=writer, flush=True)
            assert not log.rotate(path, largest=1000)
            assert log.rotate(path, largest=100)
            assert path.read_text() == ""
            for number in range(100, 103):
                print(number, file=writer, flush=True)
        assert path.read_text() == "100\n101\n102\n"
        assert log.last_lines(path, 5)[0] == ["98", "99", "100", "101", "102"]
        assert log.last_lines(path, 1000)[0] == [str(number) for number in range(103)]
        assert log.last_lines(path, 0)[0] == []
        assert log.last_lines(tmp_path / "none", 5) == ([], 0)
        assert not log.rotate(tmp_path / "none", largest=0)

    @given(lines=st.lists(st.text("ab", max_size=5), max_size=30), count=st.integers(0, 40), partial=st.booleans())
    def test_the_tail_is_the_tail(
        self, tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int, partial: bool
    ) -> None:
        path = tmp_path_factory.mktemp("log") / "envoy.log"
        path.write_text("".join(f"{line}\n" for line in lines) + ("incomplete" if partial else ""))
        told, offset = log.last_lines(path, count)
        assert told == (lines[-count:] if count else [])
        if count:
            assert offset == sum(len(line) + 1 for line in lines)

    def test_long_lines_across_blocks(self, tmp_path: Path) -> None:
        path = tmp_path / "envoy.log"
        lines = [letter * 70_000 for letter in "abcde"]
        path.write_text("\n".join(lines) + "\n")
        assert log.last_lines(path, 3)[0] == lines[-3:]

    def test_following_goes_on_over_a_rotation(self, tmp_path: Path) -> None:
        path = tmp_path / "envoy.log"
        path.write_text("old\n")

        async def scenario() -> list[str]:
            seen: list[str] = []
            lines = log.follow(path, path.stat().st_size, every=0.01)
            async with asyncio.timeout(10):
                with path.open("a") as writer:
                    print("one\ntwo", end="", file=writer, flush=True)
                    seen.append(await anext(lines))
                    print("\nthree", file=writer, flush=True)
                    seen += [await anext(lines), await anext(lines)]
                    waiting = asyncio.ensure_future(anext(lines))
                    assert log.rotate(path, largest=0)
                    print("four", file=writer, flush=True)
                    seen.append(await waiting)
            return seen

        assert asyncio.run(scenario()) == ["one", "two", "three", "four"]


class TestProcesses:
    def test_a_started_process_is_nobodys_child_and_logs(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            command = (sys.executable, "-c", "import os; print(os.getppid(), os.getsid(0), flush=True); input()")
            handle = await start_process(command, log=tmp_path / "log", directory=tmp_path)
            await asyncio.wait_for(handle.wait(), 20)  # stdin is empty
            assert not handle.running
            parent, session = (tmp_path / "log").read_text().split("\n")[0].split()
            assert int(parent) != os.getpid()
            assert int(session) != os.getsid(0)
            handle.signal(signal.SIGTERM)  # too late, and harmless
            handle.release()

        asyncio.run(scenario())

    def test_a_process_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            script = "import signal, time; signal.signal(15, 1); print('ready', flush=True); time.sleep(100)"
            handle = await start_process((sys.executable, "-c", script), log=tmp_path / "log", directory=tmp_path)
            deadline = time.monotonic() + 20
            while (tmp_path / "log").read_text() != "ready\n":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            await handle.terminate(seconds=0.05)
            assert not handle.running

        asyncio.run(scenario())

    def test_a_start_that_is_cancelled_starts_nothing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            command = (sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')")
            starting = asyncio.create_task(start_process(command, log=tmp_path / "log", directory=tmp_path))
            await asyncio.sleep(0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting

        asyncio.run(scenario())  # waits for its threads
        assert not (tmp_path / "ran").exists()

    def test_there_is_no_handle_of_nothing(self) -> None:
        async def scenario() -> None:
            with pytest.raises(ProcessLookupError):
                ProcessHandle(2**22 - 3)

        asyncio.run(scenario())
