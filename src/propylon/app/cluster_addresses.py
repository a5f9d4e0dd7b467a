"""Addresses of Gateways in a cluster whose proxies run as processes: from pools, or those that a Gateway asks for.

What a Gateway has stays its own, also over a restart: it is read back from the Gateway's status.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from propylon import api
from propylon.graph import GatewayAddresses
from propylon.graph.assignment import can_be_answered, canonical
from propylon.graph.model import Finding

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_pool(text: str) -> Network:
    """Read one `--address-pool` value. Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


class AddressBook:
    """Who has which address. `usable` tells whether an address can be bound here."""

    def __init__(self, pools: Sequence[Network], usable: Callable[[str], bool]) -> None:
        self._pools = tuple(pools)
        self._usable = usable
        self._pooled: dict[api.ObjectKey, str] = {}
        """Gateways that have an address of a pool."""
        self._requested: dict[api.ObjectKey, tuple[str, ...]] = {}
        self._used: dict[str, None] = {}
        """Addresses that were handed out and given back, the longest unused first."""

    def place(self, pending: Mapping[api.ObjectKey, api.Gateway | None]) -> dict[api.ObjectKey, GatewayAddresses]:
        """Addresses of the Gateways that came or changed; None stands for one that is gone or not ours (any more).

        Claims come before wishes: whoever has an address keeps it before a newcomer can be given it.
        """
        for key, gateway in pending.items():
            self._requested.pop(key, None)
            if gateway is None or not _wants_pooled(gateway):
                self._release(key)
            if gateway is not None:
                self._requested[key] = _requested(gateway)
        living = {key: gateway for key, gateway in pending.items() if gateway is not None}
        newcomers = [key for key, gateway in living.items() if _wants_pooled(gateway) and key not in self._pooled]
        for key in sorted(newcomers):
            if (address := self._known(living[key])) is not None:
                self._give(key, address)
        taken = self._taken()
        for key in sorted(key for key in newcomers if key not in self._pooled):
            if (address := self._next(taken)) is not None:
                self._give(key, address)
                taken.add(address)
        return {key: self._answer(key, gateway) for key, gateway in living.items()}

    def _taken(self) -> set[str]:
        return {*self._pooled.values(), *(address for requested in self._requested.values() for address in requested)}

    def _known(self, gateway: api.Gateway) -> str | None:
        """The address of a pool that the Gateway's status names, if nobody else has it."""
        addresses = [canonical(a.value) for a in gateway.status.addresses if a.type == "IPAddress"]
        taken = self._taken()
        return next((a for a in addresses if a not in taken and self._in_pools(a)), None)

    def _in_pools(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in pool for pool in self._pools)

    def _next(self, taken: set[str]) -> str | None:
        """The lowest address that nobody ever had, else the one that was given back the longest ago.

        A proxy that is drained holds its address for a while after its Gateway is gone.
        """
        fresh = (a for pool in self._pools for a in _hosts(pool) if a not in taken and a not in self._used)
        address = next(fresh, None)
        return address if address is not None else next((a for a in self._used if a not in taken), None)

    def _give(self, key: api.ObjectKey, address: str) -> None:
        self._used.pop(address, None)
        self._pooled[key] = address

    def _release(self, key: api.ObjectKey) -> None:
        address = self._pooled.pop(key, None)
        if address is not None:
            self._used[address] = None

    def _answer(self, key: api.ObjectKey, gateway: api.Gateway) -> GatewayAddresses:
        requested = self._requested[key]
        good = tuple(a for a in requested if self._usable(a))
        finding = None
        if bad := [a for a in requested if a not in good]:
            message = f"{', '.join(bad)} cannot be bound where the proxies run: ask for another address, or for none"
            finding = Finding("Programmed", "AddressNotUsable", message, "spec.addresses")
        elif _wants_pooled(gateway):
            address = self._pooled.get(key)
            if address is None:
                finding = Finding("Programmed", "AddressNotAssigned", self._nothing_left())
            else:
                good = (*good, address)
        return GatewayAddresses(
            addresses=tuple(api.GatewayStatusAddress(type="IPAddress", value=a) for a in good),
            bind=good,
            finding=finding,
        )

    def _nothing_left(self) -> str:
        if not self._pools:
            return "there is no --address-pool, and the Gateway asks for no address of its own"
        return f"no address is left in {', '.join(map(str, self._pools))}: add an --address-pool"


def _wants_pooled(gateway: api.Gateway) -> bool:
    """Whether an address is to be chosen: nothing is asked for, an address without a value, or a cluster IP, which has
    to lead somewhere.
    """
    wishes = [a for a in gateway.spec.addresses if can_be_answered(a)]
    return not gateway.spec.addresses or any(not a.value or a.wants_cluster_ip for a in wishes)


def _requested(gateway: api.Gateway) -> tuple[str, ...]:
    wishes = (a for a in gateway.spec.addresses if can_be_answered(a) and not a.wants_cluster_ip)
    return tuple(dict.fromkeys(canonical(a.value) for a in wishes if a.value))


def _hosts(pool: Network) -> Iterator[str]:
    """Every address but those that name the network and everybody in it; a /31, /32, /127 or /128 is used whole."""
    hosts: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address] = pool.hosts()
    return (str(a) for a in hosts)
