"""What the suite claims features for and does not test: addresses by routability (the scenarios of GEP-5093,
"Conformance test scenarios"), and that a Gateway is reached from within the cluster by its Service.

Ready for a controller of any mode; Services must work (``ServiceProxy``).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

import httpx

from . import netns
from .api import Api, ApiError, Object, wait_until

NAMESPACE = "beyond"
CLUSTER = "Cluster"
SENTINEL = "testing.x-k8s.io/sentinel"
CHOSEN = netns.SERVICE_RANGE.replace(".0.0/16", ".77.7")
OUTSIDE = "198.51.100.9"
_GROUP = "gateway.networking.k8s.io"
_SECONDS = 30

Addresses = list[tuple[str, str | None]]


class Beyond:
    """One run of all checks. Raises TimeoutError, naming what never came true, or ApiError."""

    def __init__(self, api: Api, gateway_class: str, say: Callable[[str], None], check: Callable[[], None]) -> None:
        self._api = api
        self._class = gateway_class
        self._say = say
        self._check = check

    async def run(self) -> None:
        """Everything, in a namespace of its own that is deleted at the end."""
        await self._api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        checks = (
            self._validation,
            self._default,
            self._cluster_ip,
            self._both,
            self._chosen,
            self._outside,
            self._partly,
            self._sentinel,
            self._unknown,
            self._reached_by_name,
        )
        for each in checks:
            await each()
            self._say(f"PASS  {(each.__doc__ or '').rstrip('.')}")
        await self._api.delete(f"/api/v1/namespaces/{NAMESPACE}")

    # -- checks ------------------------------------------------------------------------------------------------------

    async def _validation(self) -> None:
        """The API takes routabilities of the known forms and refuses the others."""
        for good in ("", CLUSTER, SENTINEL, "example.com/a/b"):
            await self._gateway("valid", {"routability": good})
        for bad in ("External", "example.com/", "/x", "-bad.example/x", "k8s.io/x", "a.k8s.io/x"):
            try:
                await self._gateway("valid", {"routability": bad})
            except ApiError as error:
                if error.status != 422:
                    raise
            else:
                raise ValueError(f"the API took routability {bad!r}")
        await self._gone("valid")

    async def _default(self) -> None:
        """Without a request every address says where it is reachable from, and they count as assigned."""
        path = await self._gateway("default")
        found = await self._settled(path, "True", "AddressesAssigned")
        self._expect(found, all(r in {"", CLUSTER} for _, r in found), "every address has a routability")
        self._expect(found, all((r == CLUSTER) == _inside(a) for a, r in found), "cluster IPs are reported as such")
        await self._answers(found)
        await self._gone("default")

    async def _cluster_ip(self) -> None:
        """A request for a cluster IP alone is answered by one, and it leads to the Gateway."""
        found = await self._settled(
            await self._gateway("inside", {"routability": CLUSTER}), "True", "AddressesAssigned"
        )
        self._expect(found, [(r, _inside(a)) for a, r in found] == [(CLUSTER, True)], "one cluster IP")
        await self._answers(found)
        services = (await self._api.get(f"/api/v1/namespaces/{NAMESPACE}/services"))["items"]
        types = {item["spec"]["type"] for item in services if item["metadata"]["name"].startswith("inside-")}
        self._expect(
            found, types == {"ClusterIP"}, f"nothing is shown to the world, but the Service is of type {types}"
        )
        await self._gone("inside")

    async def _both(self) -> None:
        """One of each, in either order."""
        for requests in (({}, {"routability": CLUSTER}), ({"routability": CLUSTER}, {})):
            found = await self._settled(await self._gateway("both", *requests), "True", "AddressesAssigned")
            inside = [_inside(address) for address, routability in found if routability == CLUSTER]
            self._expect(found, len(found) == 2 and all(inside) and bool(inside), "two addresses, one a cluster IP")
            await self._answers(found)
            await self._gone("both")

    async def _chosen(self) -> None:
        """A cluster IP of one's own choice."""
        requests = {"routability": CLUSTER, "value": CHOSEN}
        found = await self._settled(await self._gateway("chosen", requests), "True", "AddressesAssigned")
        self._expect(found, found == [(CHOSEN, CLUSTER)], f"just {CHOSEN}")
        await self._answers(found)
        await self._gone("chosen")

    async def _outside(self) -> None:
        """An address outside the range of Services is no cluster IP: nothing is assigned, nothing is programmed."""
        path = await self._gateway("outside", {"routability": CLUSTER, "value": OUTSIDE})
        found = await self._settled(path, "False", "NotAssigned")
        self._expect(found, found == [], "no address")
        await self._condition(path, "Programmed", "False", "AddressNotAssigned")
        await self._gone("outside")

    async def _partly(self) -> None:
        """Together with a request that can be answered, the Gateway is served there."""
        path = await self._gateway("partly", {"routability": CLUSTER, "value": OUTSIDE}, {})
        found = await self._settled(path, "False", "PartiallyAssigned")
        self._expect(found, len(found) == 1 and found[0][0] != OUTSIDE, "one address")
        await self._condition(path, "Programmed", "True", "Programmed")
        await self._answers(found)
        await self._gone("partly")

    async def _sentinel(self) -> None:
        """The value that is reserved for tests is reported as it was asked for."""
        found = await self._settled(
            await self._gateway("sentinel", {"routability": SENTINEL}), "True", "AddressesAssigned"
        )
        self._expect(found, [r for _, r in found] == [SENTINEL], "that routability")
        await self._gone("sentinel")

    async def _unknown(self) -> None:
        """A routability that nobody knows is not answered by another one."""
        path = await self._gateway("unknown", {"routability": "testing.x-k8s.io/other"})
        found = await self._settled(path, "False", "NotAssigned")
        self._expect(found, found == [], "no address")
        await self._condition(path, "Programmed", "False", "AddressNotAssigned")
        await self._gone("unknown")

    async def _reached_by_name(self) -> None:
        """The Service of a Gateway leads to it, comes back when it is deleted, and goes with it."""
        path = await self._gateway("named")
        await self._settled(path, "True", "AddressesAssigned")
        service = f"/api/v1/namespaces/{NAMESPACE}/services/named-{self._class}"
        before = await self._api.get(service)
        await self._answers([(before["spec"]["clusterIP"], CLUSTER)])
        await self._api.delete(service)

        async def again() -> bool:
            found = await self._api.find(service)
            return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

        await wait_until("the Service is there again", again, seconds=_SECONDS, check=self._check)
        await self._answers([((await self._api.get(service))["spec"]["clusterIP"], CLUSTER)])
        await self._api.delete(path)

        async def gone() -> bool:
            return await self._api.find(service) is None

        await wait_until("the Service goes with its Gateway", gone, seconds=_SECONDS, check=self._check)

    # -- pieces ------------------------------------------------------------------------------------------------------

    async def _gateway(self, name: str, *requests: dict[str, str]) -> str:
        document: Object = {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "gatewayClassName": self._class,
                "addresses": [{"type": "IPAddress", **request} for request in requests],
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        }
        await self._api.apply(document)
        return await self._api.path_of(document)

    async def _gone(self, name: str) -> None:
        await self._api.delete(f"/apis/{_GROUP}/v1/namespaces/{NAMESPACE}/gateways/{name}")

    async def _settled(self, path: str, status: str, reason: str) -> Addresses:
        """The addresses, once AddressesAssigned says this."""
        found = await self._condition(path, "AddressesAssigned", status, reason)
        addresses = (found.get("status") or {}).get("addresses") or []
        return [(address["value"], address.get("routability")) for address in addresses]

    async def _condition(self, path: str, kind: str, status: str, reason: str) -> Object:
        last: list[Object] = []

        async def holds() -> bool:
            last[:] = [await self._api.get(path)]
            generation = last[0]["metadata"]["generation"]
            return any(
                (c["type"], c["status"], c["reason"], c.get("observedGeneration")) == (kind, status, reason, generation)
                for c in (last[0].get("status") or {}).get("conditions") or []
            )

        try:
            await wait_until(f"{kind}={status}/{reason} at {path}", holds, seconds=_SECONDS, check=self._check)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its status: {last[0].get('status') if last else None}") from None
        return last[0]

    async def _answers(self, addresses: Addresses) -> None:
        """Envoy answers at every address: 404, as there are no routes."""
        for address, _ in addresses:
            await wait_until(f"{address} answers", lambda a=address: _not_found(a), seconds=_SECONDS, check=self._check)  # type: ignore[misc]

    def _expect(self, found: Addresses, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"expected {what}, found {found}")


def _inside(address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(netns.SERVICE_RANGE)


def _not_found(address: str) -> Awaitable[bool]:
    def ask() -> bool:
        try:
            return httpx.get(f"http://{address}/", timeout=3, trust_env=False).status_code == 404
        except httpx.HTTPError:
            return False

    return asyncio.to_thread(ask)
