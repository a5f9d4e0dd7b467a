"""Plays kube-proxy and a load balancer: Service addresses lead to ready pods, through nftables in the node's namespace.

Only runs in which the proxies are pods need it. Services of type LoadBalancer get an address of
``LOAD_BALANCER_RANGE``, or the one that ``spec.loadBalancerIP`` asks for, if that belongs to the node.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import shutil
from collections.abc import Iterable, Mapping

import httpx

from . import netns
from .api import Api, ApiError, Object
from .processes import run

LOAD_BALANCER_RANGE = "10.110.0.0/16"  # inside netns.NODE_RANGE
SERVICE_LABEL = "kubernetes.io/service-name"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}

logger = logging.getLogger(__name__)

Target = tuple[str, int]
Frontend = tuple[str, str, int]
"""Address, ``tcp`` or ``udp``, port."""


class ServiceProxy:
    """Keeps the kernel's translations equal to Services and EndpointSlices until ``stop``."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._services: dict[str, Object] = {}
        self._slices: dict[str, Object] = {}
        self._changed = asyncio.Event()
        self._listed: set[str] = set()
        self._addresses = (f"10.110.{number >> 8}.{number & 255}" for number in itertools.count(10))
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def require() -> None:
        """Raises NamespacesUnavailableError without the nft command."""
        if shutil.which("nft") is None:
            raise netns.NamespacesUnavailableError("the command nft is missing: install nftables")

    def start(self) -> None:
        """Starts watching."""
        self._tasks = [
            asyncio.create_task(self._follow("/api/v1/services", self._services)),
            asyncio.create_task(self._follow("/apis/discovery.k8s.io/v1/endpointslices", self._slices)),
            asyncio.create_task(self._write()),
        ]

    def check(self) -> None:
        """Raises what ended a watch, if something did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """Stops watching; the translations go with the namespace."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, path: str, store: dict[str, Object]) -> None:
        async for kind, item in self._api.follow(path):
            if kind == "SYNC":
                store.clear()
                store.update({_key(entry): entry for entry in item["items"]})
                self._listed.add(path)
            elif kind == "DELETED":
                store.pop(_key(item), None)
            elif kind in {"ADDED", "MODIFIED"}:
                store[_key(item)] = item
            self._changed.set()

    async def _write(self) -> None:
        written = ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if len(self._listed) < 2:
                continue
            wanted = ruleset(translations(self._services.values(), self._slices.values()))
            if wanted != written:
                await run(["nft", "-f", "-"], stdin=wanted)
                written = wanted
            await self._assign_addresses()

    async def _assign_addresses(self) -> None:
        taken = {address for service in self._services.values() for address in _load_balancer_addresses(service)}
        for service in list(self._services.values()):
            if service["spec"].get("type") != "LoadBalancer" or _load_balancer_addresses(service):
                continue
            address = service["spec"].get("loadBalancerIP") or next(self._addresses)
            if address in taken or ipaddress.ip_address(address) not in ipaddress.ip_network(netns.NODE_RANGE):
                continue
            taken.add(address)
            metadata = service["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/services/{metadata['name']}/status"
            try:
                await self._api.merge(path, {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
            except (ApiError, httpx.TransportError) as error:
                # Deleted meanwhile, or its next event comes here again.
                logger.info("service %s: no address written: %s", _key(service), error)


def translations(services: Iterable[Object], slices: Iterable[Object]) -> dict[Frontend, list[Target]]:
    """Where each address and port of a Service leads to: its ready endpoints, sorted. Without any it is left out."""
    endpoints: dict[str, list[Object]] = {}
    for item in slices:
        name = item["metadata"].get("labels", {}).get(SERVICE_LABEL)
        if name and item["addressType"] == "IPv4":
            endpoints.setdefault(f"{item['metadata']['namespace']}/{name}", []).append(item)
    result: dict[Frontend, list[Target]] = {}
    for service in services:
        spec = service["spec"]
        addresses = [spec.get("clusterIP", ""), *(spec.get("externalIPs") or []), *_load_balancer_addresses(service)]
        for port in spec.get("ports") or []:
            protocol = _PROTOCOLS.get(port.get("protocol", "TCP"))
            targets = sorted(_targets(port.get("name", ""), endpoints.get(_key(service), [])))
            if protocol and targets:
                for address in addresses:
                    if address not in {"", "None"}:
                        result[address, protocol, port["port"]] = targets
    return result


def ruleset(translated: Mapping[Frontend, list[Target]]) -> str:
    """The nftables rules, as one atomic replacement. A new connection goes to a random target."""
    chains, elements = [], []
    for number, ((address, protocol, port), targets) in enumerate(sorted(translated.items())):
        choices = ", ".join(f"{index} : {ip} . {to}" for index, (ip, to) in enumerate(targets))
        rule = f"meta l4proto {protocol} dnat ip to numgen random mod {len(targets)} map {{ {choices} }}"
        chains += [f"chain port{number} {{", rule, "}"]
        elements.append(f"{address} . {protocol} . {port} : goto port{number}")
    listed = [f"elements = {{ {', '.join(elements)} }}"] if elements else []
    lines = [
        # Deleting what is not there would fail.
        "table ip services",
        "delete table ip services",
        "table ip services {",
        *chains,
        "map ports {",
        "type ipv4_addr . inet_proto . inet_service : verdict",
        *listed,
        "}",
        "chain translate {",
        "ip daddr . meta l4proto . th dport vmap @ports",
        "}",
        "chain prerouting {",
        "type nat hook prerouting priority -100",
        "jump translate",
        "}",
        "chain output {",
        "type nat hook output priority -100",
        "jump translate",
        "}",
        # Connections of the node have the Service's own address as source, and a pod may be its own target.
        "chain postrouting {",
        "type nat hook postrouting priority 100",
        "ct status dnat masquerade",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _targets(name: str, slices: Iterable[Object]) -> Iterable[Target]:
    for item in slices:
        numbers = [entry["port"] for entry in item["ports"] or [] if (entry.get("name") or "") == name]
        for endpoint in item["endpoints"] or []:
            if endpoint.get("conditions", {}).get("ready", True):
                for number in numbers:
                    yield from ((address, number) for address in endpoint["addresses"])


def _load_balancer_addresses(service: Object) -> list[str]:
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return [entry["ip"] for entry in ingress if "ip" in entry]


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
