"""The real kube-apiserver and `propylon.api` about the same objects: ``python conformance/validation/run.py --help``.

Like conformance/run.py, the process that is started by hand enters the namespaces and waits; the same file, run again
inside, does the work: for each channel a fresh control plane with the official CRDs, then one dry run per object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

import build  # noqa: E402
import httpx  # noqa: E402
import yaml  # noqa: E402
from harness import netns  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.processes import ProcessFailedError  # noqa: E402

from validation import corpus  # noqa: E402
from validation.ours import differences, our_answer  # noqa: E402
from validation.summary import Row, Summary  # noqa: E402
from validation.theirs import ApiServer  # noqa: E402

LIFELINE = "--lifeline"
CHANNELS = ("experimental", "standard")
_CONCURRENCY = 8
_SHOWN = 40


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="Compare our validation and defaults with the real API server's.")
    add = result.add_argument
    add("--objects", type=int, default=3000, help="made up for each channel, beside examples (default: %(default)s)")
    add("--swept", type=int, default=2000, help="with one value replaced, for each channel (default: %(default)s)")
    add("--seed", type=int, default=1, help="default: %(default)s")
    add("--only", default="", help="just those whose origin (as printed) matches this pattern")
    add("--channel", choices=CHANNELS, action="append", help="default: both")
    add("--results", type=Path, help="where each disagreement is written, as a regression case")
    add("--report", type=Path, help="where the summary is written, as Markdown")
    add(LIFELINE, type=int, help=argparse.SUPPRESS)
    add("--artifacts", help=argparse.SUPPRESS)
    return result


def main() -> int:
    """Outside: build, enter. Inside: compare. Exit code 0 if both agree on every object, 1 if not, 2 if it failed."""
    options = parser().parse_args()
    if options.lifeline is not None:
        return asyncio.run(inside(options))
    try:
        netns.require_namespaces()
        artifacts = build.build()
    except (netns.NamespacesUnavailableError, build.BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    paths = json.dumps({name: str(path) for name, path in vars(artifacts).items()})
    own = [sys.executable, str(HERE / "run.py"), "--artifacts", paths]
    return netns.enter(own, LIFELINE, sys.argv[1:])


async def inside(options: argparse.Namespace) -> int:
    """Runs in the namespaces until done or until the lifeline ends."""
    task = asyncio.current_task()
    assert task is not None
    netns.watch_lifeline(options.lifeline, task.cancel)
    artifacts = build.Artifacts(**{name: Path(path) for name, path in json.loads(options.artifacts).items()})
    version = build.read_versions()["GATEWAY_API_VERSION"]
    summary = Summary()
    try:
        written = [*corpus.official_examples(version), *corpus.rule_cases()]
        await netns.set_up_node()
        for channel in options.channel or CHANNELS:
            every = corpus.cases(channel, options.objects, options.swept, options.seed, written)
            cases = [case for case in every if re.search(options.only, case.origin)]
            await _channel(channel, cases, artifacts, options, summary)
    except asyncio.CancelledError:
        print("interrupted")
        return 130
    except (ProcessFailedError, TimeoutError, RuntimeError, httpx.TransportError) as error:
        print(f"error: {error}", flush=True)
        return 2
    print(f"\n{summary.table()}", flush=True)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(_report(summary, version, options))
    return 1 if summary.total.disagreed else 0


async def _channel(
    channel: str,
    cases: Sequence[corpus.Case],
    artifacts: build.Artifacts,
    options: argparse.Namespace,
    summary: Summary,
) -> None:
    with tempfile.TemporaryDirectory(prefix="validation-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        cluster = Cluster(
            directory,
            directory / "logs",
            etcd=artifacts.etcd,
            apiserver=artifacts.apiserver,
            controller_manager=artifacts.controller_manager,
        )
        try:
            await cluster.start()
            crds = artifacts.standard_crds if channel == "standard" else artifacts.experimental_crds
            await cluster.install_crds(crds)
            certificate, key = cluster.authority.issue("asker", "asker", groups=["system:masters"])
            async with httpx.AsyncClient(
                base_url=cluster.url,
                verify=cluster.authority.client_context(certificate, key),
                trust_env=False,
                timeout=60,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
            ) as client:
                await _compare(channel, cases, ApiServer(client), options, summary)
        finally:
            await cluster.stop()


async def _compare(
    channel: Any, cases: Sequence[corpus.Case], server: ApiServer, options: argparse.Namespace, summary: Summary
) -> None:
    for info, version in corpus.kinds_and_versions(channel):
        if info.status_subresource:
            await server.prepare_status(corpus.minimal(info, version))
    served_versions = {(info.kind, version) for info, version in corpus.kinds_and_versions(channel)}
    start = time.monotonic()
    waiting = iter(enumerate(cases))
    shown = 0

    async def work() -> None:
        nonlocal shown
        for number, case in waiting:
            theirs = await server.answer(case.document, case.part)
            ours = our_answer(case.document, channel, case.part)
            told = differences(ours, theirs)
            version = case.document["apiVersion"].rpartition("/")[2]
            served = (case.document["kind"], version) in served_versions
            row = Row(case.document["kind"], version if served else "not served", channel, case.part)
            summary.add(row, accepted=theirs.accepted, disagreed=bool(told))
            if told:
                shown += 1
                if shown <= _SHOWN:
                    print(f"{channel} {number} {row.kind} {version} {case.part}: {case.origin}", flush=True)
                    print("".join(f"    {line[:900]}\n" for line in told), flush=True)
                if options.results is not None:
                    _keep(options.results / f"{channel}-{options.seed}-{number}.yaml", channel, case, theirs, told)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONCURRENCY):
            group.create_task(work())
    print(f"{channel}: {len(cases)} objects in {time.monotonic() - start:.0f} s", flush=True)


def _keep(path: Path, channel: str, case: corpus.Case, theirs: Any, told: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"about": case.origin, "told": told, "channel": channel, "part": case.part, "accepted": theirs.accepted}
    if theirs.accepted:
        kept |= {"stored": theirs.stored, "dropped": list(theirs.dropped)}
    else:
        kept["reason"] = theirs.reasons[0]
    kept["document"] = case.document
    path.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=120))


def _report(summary: Summary, version: str, options: argparse.Namespace) -> str:
    total = summary.total
    versions = build.read_versions()
    return f"""# Validation equals the real one

{total.sent} objects were sent to kube-apiserver {versions["KUBERNETES_VERSION"]} with the official CRDs of Gateway
API {version}, and given to `propylon.api`. Compared: the verdict (accepted or refused) and, for accepted ones, the part
of the object that was written as it is stored (defaults filled in, unknown fields dropped) and the names of the fields
that were dropped. "written" is spec (with metadata, at creation) or status (through the subresource).
Not compared: updates (what must not change), metadata as it is stored, and kinds of Kubernetes itself.

Agreed: {total.sent - total.disagreed}. Disagreed: {total.disagreed}.

Reproduce with the same objects (the seed decides all that is random):

```sh
python conformance/validation/run.py --seed {options.seed} --objects {options.objects} --swept {options.swept}
```

{summary.table()}
"""


if __name__ == "__main__":
    sys.exit(main())
