"""Addresses of Gateways without a cluster: one each, stable across restarts, from the pools if there are any, else a
loopback address. An address that a Gateway asks for comes first of all, if this machine has it.
"""

import errno
import hashlib
import ipaddress
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from propylon import api
from propylon.graph import GatewayAddresses
from propylon.graph.model import Finding

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Assignment = dict[str, str]
"""`namespace/name` of a Gateway -> its address."""


class AddressFile:
    """Remembers who had which address, so that a URL in somebody's notes keeps working."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Assignment:
        """What was written last; nothing if the file is missing or spoilt (addresses are then chosen anew)."""
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}

    def write(self, assignment: Assignment) -> None:
        """Replace the file in one step."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(assignment, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(self._path)


def loopback_block(data_dir: Path) -> ipaddress.IPv4Network:
    """A /24 of 127.0.0.0/8 derived from the data directory, so that two instances seldom meet."""
    digest = hashlib.sha256(str(data_dir.resolve()).encode()).digest()
    return ipaddress.IPv4Network((int.from_bytes(bytes([127, 64 + digest[0] % 128, digest[1], 0]), "big"), 24))


def parse_pool(text: str) -> Network:
    """Read one `--address-pool` value. Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


def plan_addresses(
    gateways: Iterable[api.ObjectKey],
    known: Assignment,
    block: ipaddress.IPv4Network,
    pools: Sequence[Network] = (),
) -> Assignment:
    """Keep every known address, also of Gateways that are gone (they may come back); new ones get the lowest free.

    Where there are `pools`, addresses are of these: whoever has another one gets a new one.
    """
    plan = {name: address for name, address in known.items() if not pools or _within(address, pools)}
    taken = set(plan.values())
    hosts: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]
    hosts = itertools.chain.from_iterable(pool.hosts() for pool in pools) if pools else _hosts(block)
    free = (str(a) for a in hosts if str(a) not in taken)
    for gateway in sorted(gateways):
        name = "/".join(gateway)
        if name not in plan and (address := next(free, None)) is not None:
            plan[name] = address
    return plan


def _within(address: str, pools: Iterable[Network]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in pool for pool in pools)
    except ValueError:
        return False


def _hosts(block: ipaddress.IPv4Network) -> Iterable[ipaddress.IPv4Address]:
    """More than a /24 holds is taken from the addresses after it."""
    first = int(block.network_address) + 1
    return (ipaddress.IPv4Address(first + n) for n in range(4096))


def assign(
    gateway: api.Gateway,
    assignment: Mapping[str, str],
    port_offset: int,
    usable: Callable[[str], bool],
) -> GatewayAddresses:
    """What a Gateway gets: the addresses it asks for if this machine has them, else its loopback address."""
    requested = tuple(a.value for a in gateway.spec.addresses if (a.type or "IPAddress") == "IPAddress" and a.value)
    if requested:
        good = tuple(a for a in requested if usable(a))
        missing = tuple(a for a in requested if a not in good)
        finding = None
        if missing:
            finding = Finding(
                "Programmed",
                "AddressNotUsable",
                f"no interface of this machine has {', '.join(missing)}: add the address to one, or leave out "
                "spec.addresses to get a loopback address",
                "spec.addresses",
            )
        return GatewayAddresses(addresses=_status(good), bind=good, port_offset=port_offset, finding=finding)
    own = assignment.get("/".join(api.key_of(gateway)))
    if own is None:
        return GatewayAddresses(
            addresses=(),
            bind=(),
            port_offset=port_offset,
            finding=Finding("Programmed", "AddressNotAssigned", "no address is left"),
        )
    return GatewayAddresses(addresses=_status((own,)), bind=(own,), port_offset=port_offset, finding=None)


def _status(addresses: tuple[str, ...]) -> tuple[api.GatewayStatusAddress, ...]:
    return tuple(api.GatewayStatusAddress(type="IPAddress", value=a) for a in addresses)


def machine_has(address: str) -> bool:
    """Whether a socket can be bound to this address here."""
    try:
        ip = ipaddress.ip_address(address)
        with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


class Obstacle(NamedTuple):
    """Why a port cannot be bound."""

    reason: Literal["in use", "not permitted", "no such address"]
    message: str


def port_obstacle(address: str, port: int, transport: str) -> Obstacle | None:
    """Try to bind as a program that shares nothing would: finds ports that others hold, also by SO_REUSEPORT."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "UDP" else socket.SOCK_STREAM
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM}:
                remedy = "run as root, grant cap_net_bind_service, or use --port-offset 8000"
                return Obstacle("not permitted", f"user {os.getuid()} may not bind port {port}: {remedy}")
            if error.errno == errno.EADDRINUSE:
                remedy = "stop the other program, or use --port-offset"
                return Obstacle("in use", f"port {port} of {address} is in use by another program: {remedy}")
            return Obstacle("no such address", f"{address}:{port} cannot be bound: {error.strerror}")
    return None
