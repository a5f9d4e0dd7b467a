"""The xDS server and real Envoy: round trips, refusals, restarts, and changes under load that lose no request."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from xds_envoy import World, answers, backend, cluster, endpoints, listener, request, routes, world_of

from propylon.xds import CDS, EDS, LDS, RDS, Acknowledged, Connected, Disconnected, version_of

pytestmark = pytest.mark.feature


def test_clusters_endpoints_listeners_and_routes_arrive_and_change(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        await world.start()
        assert stat.S_IMODE(world.socket.stat().st_mode) == 0o600
        async with backend(tmp_path / "b1", "one") as b1, backend(tmp_path / "b2", "two") as b2, world.envoy():
            everything = world_of(tmp_path, b1, web)
            world.update(everything)
            await answers(world, web, "one")
            await world.acknowledged(*everything)
            await world.settled()
            sent = world.server.counters[RDS].responses
            world.update({(EDS, "one"): endpoints("one", b2)})
            await world.acknowledged((EDS, "one"))
            await answers(world, web, "two")
            assert world.server.counters[RDS].responses == sent, "an endpoint change touches no routes"
            world.update({(RDS, "routes"): routes("routes", answer="direct")})
            await world.acknowledged((RDS, "routes"))
            await answers(world, web, "direct")
            world.update(dict.fromkeys(everything))
            await world.settled()
            (state,) = world.server.state(world.node)
            assert {name for name, resource in state.resources.items() if resource.acknowledged} == set()
            assert not world.rejections()
        await world.until(lambda: any(isinstance(event, Disconnected) and event.last for event in world.events))
        assert isinstance(world.events[0], Connected)
        await world.server.stop(0)

    asyncio.run(run())


def test_a_changed_cluster_stays_warm_and_is_acknowledged(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, world.envoy():
            world.update(world_of(tmp_path, b1, web))
            await answers(world, web, "one")
            for seconds in ("3s", "4s"):
                world.update({(CDS, "one"): cluster("one", connect_timeout=seconds)})
                await world.acknowledged((CDS, "one"))  # Envoy answers when the cluster has its endpoints again
                await answers(world, web, "one")
            await world.settled()
        await world.server.stop(0)

    asyncio.run(run())


def test_a_refused_listener_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, world.envoy():
            world.update(world_of(tmp_path, b1, web))
            await answers(world, web, "one")
            world.update(
                {
                    (LDS, "a"): listener("a", tmp_path / "a"),
                    (LDS, "bad"): listener("bad", tmp_path / "no such directory" / "socket"),
                    (LDS, "z"): listener("z", tmp_path / "z"),
                }
            )
            await answers(world, tmp_path / "a", "one")
            await answers(world, tmp_path / "z", "one")
            await world.settled()
            (rejected,) = world.rejections()
            assert rejected.name == (LDS, "bad")
            assert "No such file or directory" in rejected.message
            (state,) = world.server.state(world.node)
            assert state.resources[LDS, "bad"].acknowledged is None
            assert state.resources[LDS, "bad"].rejection == (rejected.version, rejected.message)
            world.update({(LDS, "bad"): listener("bad", tmp_path / "repaired")})
            await answers(world, tmp_path / "repaired", "one")
        await world.server.stop(0)

    asyncio.run(run())


def test_refused_routes_keep_their_last_good_version_and_stop_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path)
        names = ("r1", "r2", "r3")
        await world.start()
        async with world.envoy():
            world.update({(LDS, name): listener(name, tmp_path / name, route=name) for name in names})
            world.update({(RDS, name): routes(name, answer=f"{name} old") for name in names})
            for name in names:
                await answers(world, tmp_path / name, f"{name} old")
            bad = routes("r2", answer="never", domains=["*.same", "*.same"])
            world.update(
                {
                    (RDS, "r1"): routes("r1", answer="r1 new"),
                    (RDS, "r2"): bad,
                    (RDS, "r3"): routes("r3", answer="r3 new"),
                }
            )
            await answers(world, tmp_path / "r1", "r1 new")
            await answers(world, tmp_path / "r3", "r3 new")
            await world.settled()
            assert await request(tmp_path / "r2") == (200, "r2 old")
            (rejected,) = world.rejections()
            assert (rejected.name, rejected.version) == ((RDS, "r2"), version_of(bad))
            assert "Duplicate entry of domain" in rejected.message
        await world.server.stop(0)

    asyncio.run(run())


def test_a_restarted_server_resends_nothing_and_removes_what_went_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, world.envoy():
            everything = world_of(tmp_path, b1, web)
            world.update({**everything, (CDS, "stale"): cluster("stale"), (EDS, "stale"): endpoints("stale", b1)})
            await answers(world, web, "one")
            await world.settled()
            await world.restart()
            await world.start()
            await world.until(lambda: any(isinstance(event, Connected) for event in world.events), "reconnected")
            assert await request(web) == (200, "one")
            assert not world.server.counters, "a half-known world is not sent"
            world.update(everything)
            await world.acknowledged(*everything)
            await world.settled()
            assert {t: c.resources for t, c in world.server.counters.items() if c.resources} == {}
            assert world.server.counters[CDS].removals == 1
            assert await request(web) == (200, "one")
        await world.server.stop(0)

    asyncio.run(run())


def test_what_is_known_ahead_goes_to_a_new_proxy_and_not_to_one_that_serves(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, backend(tmp_path / "b2", "two") as b2, world.envoy():
            everything = world_of(tmp_path, b1, web)
            ahead = {name: body for name, body in everything.items() if name[0] in {CDS, EDS}}
            world.server.update(world.node, ahead)
            await world.acknowledged(*ahead)
            assert not web.exists(), "nobody is served by half a world"
            world.update(everything)
            await answers(world, web, "one")
            await world.settled()
            assert world.server.counters[CDS].resources == 1
            await world.restart()
            await world.start()
            await world.until(lambda: any(isinstance(event, Connected) for event in world.events), "reconnected")
            world.server.update(world.node, {(EDS, "one"): endpoints("one", b2), (CDS, "two"): cluster("two")})
            assert await request(web) == (200, "one")
            assert not world.server.counters, "whoever serves is not told of half a world"
            world.update({**everything, (EDS, "one"): endpoints("one", b2), (CDS, "two"): None})
            await answers(world, web, "two")
            await world.settled()
            assert {t: c.resources for t, c in world.server.counters.items() if c.resources} == {EDS: 1}
        await world.server.stop(0)

    asyncio.run(run())


def test_switching_clusters_under_load_fails_no_request(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path), tmp_path / "web"
        failures: list[tuple[int, str]] = []
        seen: set[str] = set()
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                status, body = await request(web)
                seen.add(body)
                if status != 200:
                    failures.append((status, body))

        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, backend(tmp_path / "b2", "two") as b2, world.envoy():
            world.update(world_of(tmp_path, b1, web))
            await answers(world, web, "one")
            clients = [asyncio.create_task(load()) for _ in range(4)]
            old = "one"
            for turn in range(15):
                new, to = f"turn-{turn}", (b1, b2)[turn % 2]
                world.update(
                    {
                        (CDS, old): None,
                        (EDS, old): None,
                        (CDS, new): cluster(new),
                        (EDS, new): endpoints(new, to),
                        (RDS, "routes"): routes("routes", to=new),
                    }
                )
                await world.acknowledged((RDS, "routes"), (CDS, new), (CDS, old))
                old = new
            done.set()
            await asyncio.gather(*clients)
            assert failures == []
            assert seen == {"one", "two"}
            assert not world.rejections()
        await world.server.stop(0)

    asyncio.run(run())


def test_a_cluster_that_stays_cold_delays_other_routes_only_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        world, web = World(tmp_path, patience=0.3), tmp_path / "web"
        await world.start()
        async with backend(tmp_path / "b1", "one") as b1, world.envoy():
            world.update(world_of(tmp_path, b1, web))
            await answers(world, web, "one")
            # Refused late, in company: Envoy holds its answer back until the cluster is repaired.
            bad = cluster("cold", lb_policy="MAGLEV", maglev_lb_config={"table_size": 4})
            world.update(
                {
                    (CDS, "cold"): bad,
                    (CDS, "company"): cluster("company"),
                    (RDS, "routes"): routes("routes", answer="moved on"),
                }
            )
            await answers(world, web, "moved on")
            assert not world.server.settled(world.node)
            world.update({(CDS, "cold"): cluster("cold"), (EDS, "cold"): endpoints("cold", b1)})
            await world.acknowledged((CDS, "cold"))
            await world.settled()
            assert [rejected.name for rejected in world.rejections()] == [(CDS, "cold")]
        await world.server.stop(0)

    asyncio.run(run())


def test_garbage_ends_its_own_stream_only(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path)
        await world.start()
        world.update({(LDS, "a"): b"a"})
        method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

        def asking(**content: object) -> bytes:
            return bytes(discovery_pb2.DeltaDiscoveryRequest(**content).SerializeToString())

        async def outcome(*bodies: bytes) -> tuple[grpc.StatusCode, list[bytes]]:
            call = channel.stream_stream(method)()
            answers: list[bytes] = []
            try:
                for body in bodies:
                    await call.write(body)
                await call.done_writing()
                answers.extend([answer async for answer in call])
            except grpc.aio.AioRpcError as error:
                return error.code(), answers
            return await call.code(), answers

        async with grpc.aio.insecure_channel(f"unix:{world.socket}") as channel:
            node = {"id": world.node}
            assert (await outcome(b"\xff\xff"))[0] == grpc.StatusCode.INVALID_ARGUMENT
            assert (await outcome(asking(type_url=LDS)))[0] == grpc.StatusCode.INVALID_ARGUMENT
            assert (await outcome(asking(type_url=LDS, node=node), b"\xff"))[0] == grpc.StatusCode.INVALID_ARGUMENT
            assert (await outcome())[0] == grpc.StatusCode.OK
            odd = asking(type_url="", node={"id": "stranger"}, resource_names_subscribe=["*", "x"], response_nonce="9")
            assert (await outcome(odd))[0] == grpc.StatusCode.OK
            assert world.server.nodes == (world.node,)
            good = channel.stream_stream(method)()
            await good.write(asking(type_url=LDS, node=node))
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(await good.read())
            assert [(r.name, r.version, r.resource.type_url, r.resource.value) for r in response.resources] == [
                ("a", version_of(b"a"), LDS, b"a")
            ]
            await good.write(asking(type_url=LDS, response_nonce=response.nonce))
            await world.acknowledged((LDS, "a"))
            last = next(event for event in reversed(world.events) if isinstance(event, Acknowledged))
            assert last.all_settled
            good.cancel()
        await world.server.stop(0)

    asyncio.run(run())
