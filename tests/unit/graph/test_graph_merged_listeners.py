"""Listeners of a Gateway and its ListenerSets, judged one by one, are what walking through all in order gives."""

import random
from typing import Any

from graph_world import World

from propylon import api
from propylon.graph.hostnames import covers, normalized
from propylon.graph.model import Listener, ListenerKey

GROUP = "gateway.networking.k8s.io"
FAMILIES = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
HOSTNAMES = (None, "*.test", "a.test", "b.test", "*.a.test", "x.a.test")


def listener(dice: random.Random, name: str) -> dict[str, Any]:
    protocol = dice.choices([*FAMILIES, "SPDY"], [3, 6, 3, 1, 1, 1])[0]
    found: dict[str, Any] = {"name": name, "port": dice.choice([80, 443, 443]), "protocol": protocol}
    if protocol in {"HTTPS", "TLS"}:
        mode = "Passthrough" if protocol == "TLS" and dice.random() < 0.3 else "Terminate"
        found["tls"] = {"mode": mode, "certificateRefs": [{"name": dice.choice(["cert", "cert", "none"])}]}
    if protocol in {"HTTP", "HTTPS", "TLS"} and (hostname := dice.choice(HOSTNAMES)) is not None:
        found["hostname"] = hostname
    return found


def listeners(dice: random.Random, most: int) -> list[dict[str, Any]]:
    return [listener(dice, name) for name in dice.sample(["a", "b", "c", "d"], dice.randint(1, most))]


def gateway(dice: random.Random) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "n"},
        "spec": {
            "gatewayClassName": "edge",
            "allowedListeners": {"namespaces": {"from": "Same"}},
            "listeners": listeners(dice, dice.choice([1, 3])),
        },
    }


def listener_set(dice: random.Random) -> dict[str, Any]:
    created = f"2026-01-0{dice.randint(1, 3)}T00:00:00Z"
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {"name": f"s{dice.randint(0, 7)}", "namespace": "n", "creationTimestamp": created},
        "spec": {"parentRef": {"name": "g"}, "listeners": listeners(dice, 3)},
    }


def said(listener: Listener) -> dict[str, str]:
    """What was found out by meeting others: condition -> reason."""
    return {f.condition: f.reason for f in listener.findings if f.condition in {"Conflicted", "OverlappingTLSConfig"}}


def socket_of(each: Listener) -> tuple[int, bool]:
    return each.port, each.protocol == "UDP"


def expected(every: tuple[Listener, ...]) -> dict[ListenerKey, dict[str, str]]:
    """All of them in order of precedence, each held against all that came before it."""
    found: dict[ListenerKey, dict[str, str]] = {}
    heard: list[Listener] = []
    for each in every:
        found[each.key] = {}
        if each.protocol not in FAMILIES:
            continue
        own = each.key.kind == "Gateway"
        there = [o for o in every if o.key.kind == "Gateway" and o is not each] if own else heard
        there = [o for o in there if o.protocol in FAMILIES and socket_of(o) == socket_of(each)]
        same = [o for o in there if o.hostname == each.hostname]
        if any(FAMILIES[o.protocol] != FAMILIES[each.protocol] for o in there):
            found[each.key]["Conflicted"] = "ProtocolConflict"
        elif same:
            # Own listeners are all losers, so that any other protocol counts; else the one that has the hostname.
            others = {o.protocol for o in same} if own else {same[-1].protocol}
            alike = others == {each.protocol} and each.protocol not in {"TCP", "UDP"}
            found[each.key]["Conflicted"] = "HostnameConflict" if alike else "ProtocolConflict"
        if own or not found[each.key]:
            heard.append(each)
    ending = [
        each
        for each in every
        if each.tls is not None
        and each.tls.mode == "Terminate"
        and not found[each.key]
        and not any(f.condition == "Accepted" for f in each.findings)
    ]
    for each in ending:
        for other in ending:
            here, there_too = normalized(each.hostname), normalized(other.hostname)
            if other.port == each.port and here != there_too and covers(here, there_too):
                found[each.key]["OverlappingTLSConfig"] = found[other.key]["OverlappingTLSConfig"] = (
                    "OverlappingHostnames"
                )
    return found


def world_of(dice: random.Random) -> World:
    world = World()
    world.set(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "edge"},
            "spec": {"controllerName": "example.com/edge"},
        }
    )
    world.set({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    world.set(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "cert", "namespace": "n"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": "@cert test", "tls.key": "@key test"},
        }
    )
    world.set(gateway(dice))
    return world


def change(world: World, dice: random.Random) -> None:
    document = gateway(dice) if dice.random() < 0.1 else listener_set(dice)
    if document["kind"] == "ListenerSet" and dice.random() < 0.25:
        world.remove(api.ObjectRef(GROUP, "ListenerSet", "n", document["metadata"]["name"]))
    else:
        world.set(document)
    world.commit()


def test_one_by_one_is_all_in_order() -> None:
    key, seen = api.ObjectKey("n", "g"), set()
    for seed in range(25):
        dice = random.Random(seed)
        world = world_of(dice)
        for step in range(20):
            change(world, dice)
            every = world.graph.merged_listeners(key)
            assert {each.key: said(each) for each in every} == expected(every), (seed, step)
            assert {each.key for each in every} == set(world.graph.listeners), (seed, step)
            bound = world.graph.bindings.get(key) is not None
            served = {each.key for port in world.graph.ports.snapshot().values() for each in port.listeners}
            assert served == {each.key for each in every if each.servable and bound}, (seed, step)
            seen |= {reason for each in every for reason in said(each).values()}
    assert seen == {"ProtocolConflict", "HostnameConflict", "OverlappingHostnames"}
