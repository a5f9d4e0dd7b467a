"""`--echo`: which Services the echo server stands in for, kept in step with the Graph."""

from collections.abc import Callable

from propylon.app.controller import Controller
from propylon.echo.answer import EchoIdentity
from propylon.echo.process import EchoProcess
from propylon.graph.model import BackendKey, Endpoint


class EchoBackends:
    """Has an echo server answer for every Service port that is referred to and has no endpoints of its own.

    `ring` is called whenever endpoints changed.
    """

    def __init__(self, controller: Controller, echo: EchoProcess, ring: Callable[[], None]) -> None:
        self._controller = controller
        self._echo = echo
        self._ring = ring
        self._served: dict[BackendKey, EchoIdentity] = {}

    async def follow(self) -> None:
        """Start and release servers as the Graph says now. Raises EchoError."""
        wanted = set(self._controller.graph.unserved)
        for key in sorted(wanted - set(self._served)):
            identity = EchoIdentity(key.namespace, key.name, key.port)
            self._place(key, *await self._echo.ensure(identity))
            self._served[key] = identity
        for key in sorted(set(self._served) - wanted):
            identity = self._served.pop(key)
            self._controller.sources.fallback_endpoints.remove(key)
            self._ring()
            if identity not in self._served.values():  # a TCP and a UDP port may share a number, and a server
                await self._echo.release(identity)

    def moved(self, identity: EchoIdentity, host: str, port: int) -> None:
        """The echo process was replaced, and another program had taken this port meanwhile."""
        for key in [key for key, served in self._served.items() if served == identity]:
            self._place(key, host, port)

    def _place(self, key: BackendKey, host: str, port: int) -> None:
        self._controller.sources.fallback_endpoints.set(key, (Endpoint(host, port),))
        self._ring()
