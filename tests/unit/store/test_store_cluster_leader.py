"""One writes: whoever holds the lease, until it is given back, runs out, or cannot be renewed."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from propylon.store.cluster import Leader, LeaderElection
from propylon.store.cluster.leader import ADDRESS_ANNOTATION, Spec, Times, plan_spec
from support.scripted_api import Request, serving, until

NOW = "2030-01-01T00:00:00.000000Z"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/system/leases"
HELD = Spec("other", 15, "2029-01-01T00:00:00.000000Z", "2029-12-31T23:59:59.000000Z", 4)


def test_a_free_lease_is_taken() -> None:
    assert plan_spec(None, 0, "me", NOW, 15) == Spec("me", 15, NOW, NOW, 0)
    given_back = Spec("", 1, "x", "x", 4)
    assert plan_spec(given_back, 0, "me", NOW, 15) == Spec("me", 15, NOW, NOW, 5)


def test_a_held_lease_is_respected_until_it_was_not_renewed_for_as_long_as_its_holder_said() -> None:
    assert plan_spec(HELD, 14.9, "me", NOW, 5) is None
    assert plan_spec(HELD, 15.0, "me", NOW, 5) == Spec("me", 5, NOW, NOW, 5)


def test_renewing_keeps_since_when() -> None:
    assert plan_spec(HELD, 3, "other", NOW, 15) == Spec("other", 15, HELD.acquire_time, NOW, 4)


@given(age=st.floats(0, 14.9), holder=st.text(min_size=1), identity=st.text(min_size=1))
def test_nobody_takes_what_another_holds(age: float, holder: str, identity: str) -> None:
    spec = plan_spec(Spec(holder, 15, NOW, NOW, 0), age, identity, NOW, 15)
    assert (spec is None) == (holder != identity)


class Leases:
    """The API server's Leases, with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.broken = False
        self.version = 0

    async def __call__(self, request: Request) -> None:
        if self.broken:
            await request.refuse(500, "InternalError")
        elif request.method == "GET":
            await (request.answer(self.lease) if self.lease else request.refuse(404, "NotFound"))
        else:
            document = json.loads(request.body)
            creates = request.method == "POST"
            assert request.path == (LEASES if creates else f"{LEASES}/propylon")
            stale = self.lease is not None and (
                creates or document["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]
            )
            if stale:
                await request.refuse(409, "Conflict")
                return
            self.version += 1
            document["metadata"]["resourceVersion"] = str(self.version)
            self.lease = document
            await request.answer(document)


async def elect(leases: Leases, steps: Any, names: tuple[str, ...], times: Times) -> dict[str, list[bool]]:
    """Run one election per name; what each was told."""
    told: dict[str, list[bool]] = {name: [] for name in names}
    async with serving(leases) as client:
        elections = {
            name: LeaderElection(client, "system", "propylon", told[name].append, identity=name, times=times)
            for name in names
        }
        tasks = {name: asyncio.create_task(election.run()) for name, election in elections.items()}
        try:
            await steps(elections, tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    return told


QUICK = Times(lease=60, renew=1.0, retry=0.005)


def test_one_leads_and_the_next_follows_when_it_leaves() -> None:
    async def steps(elections: dict[str, LeaderElection], tasks: dict[str, asyncio.Task[None]]) -> None:
        await until(lambda: any(e.leading for e in elections.values()))
        first = next(name for name, e in elections.items() if e.leading)
        second = next(name for name in elections if name != first)
        renewals = leases.version
        await until(lambda: leases.version >= renewals + 3)
        assert not elections[second].leading
        tasks[first].cancel()
        await until(lambda: elections[second].leading)
        assert not elections[first].leading

    leases = Leases()
    told = asyncio.run(elect(leases, steps, ("one", "two"), QUICK))
    assert sorted(told.values()) == [[True, False], [True, False]]


def test_who_cannot_renew_steps_down_and_may_come_back() -> None:
    async def steps(elections: dict[str, LeaderElection], _tasks: Any) -> None:
        await until(lambda: elections["one"].leading)
        leases.broken = True
        await until(lambda: not elections["one"].leading)
        leases.broken = False
        await until(lambda: elections["one"].leading)

    leases = Leases()
    told = asyncio.run(elect(leases, steps, ("one",), QUICK))
    assert told["one"] == [True, False, True, False]
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == "", "given back at the end"


def test_a_dead_holder_is_waited_for_by_our_own_clock() -> None:
    async def steps(elections: dict[str, LeaderElection], _tasks: Any) -> None:
        await until(lambda: elections["one"].leading)

    leases = Leases()
    leases.lease = {
        "metadata": {"name": "propylon", "namespace": "system", "resourceVersion": "0"},
        # Its clock is far ahead of ours, and it died.
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2999-01-01T00:00:00.000000Z"},
    }
    told = asyncio.run(elect(leases, steps, ("one",), QUICK))
    assert told["one"][0] is True


def test_all_learn_who_leads_and_where_it_is_reached() -> None:
    heard: dict[str, list[Leader | None]] = {"one": [], "two": []}

    async def steps(elections: dict[str, LeaderElection], tasks: dict[str, asyncio.Task[None]]) -> None:
        for name, election in elections.items():
            election.tell(f"{name}.test:18000", heard[name].append)
        await until(lambda: any(e.leading for e in elections.values()))
        first = next(name for name, e in elections.items() if e.leading)
        second = next(name for name in elections if name != first)
        leader = Leader(first, f"{first}.test:18000")
        await until(lambda: heard[second] == [leader])
        assert heard[first] == [leader]
        renewals = leases.version
        await until(lambda: leases.version >= renewals + 3)
        assert heard[second] == [leader], "it is told what changed, nothing else"
        tasks[first].cancel()
        await until(lambda: elections[second].leading)
        assert heard[second][-1] == Leader(second, f"{second}.test:18000")

    leases = Leases()
    asyncio.run(elect(leases, steps, ("one", "two"), QUICK))
    assert leases.lease is not None
    assert ADDRESS_ANNOTATION not in leases.lease["metadata"].get("annotations", {}), "nobody leads"


def test_what_others_wrote_on_the_lease_stays_and_a_former_holders_address_does_not() -> None:
    async def steps(elections: dict[str, LeaderElection], _tasks: Any) -> None:
        await until(lambda: elections["one"].leading)
        assert leases.lease is not None
        assert leases.lease["metadata"]["annotations"] == {"theirs": "stays"}
        assert leases.lease["metadata"]["labels"] == {"theirs": "too"}

    annotations = {"theirs": "stays", ADDRESS_ANNOTATION: "gone.test:1"}
    metadata = {"name": "propylon", "namespace": "system", "resourceVersion": "0", "labels": {"theirs": "too"}}
    leases = Leases()
    leases.lease = {"metadata": {**metadata, "annotations": annotations}, "spec": {"holderIdentity": ""}}
    asyncio.run(elect(leases, steps, ("one",), QUICK))
