"""One proxy with one HTTP port, and what tests ask of it."""

import http.client
import itertools
import json
from typing import NamedTuple

from support.envoy_backends import HttpBackend
from support.envoy_proxy import Proxy, free_port
from support.envoy_world import World, listener, ref


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def seen(self):
        """What the backend says it received."""
        return json.loads(self.body)


class Site:
    """An HTTP listener for every host, three backends (a, b, c), a proxy that serves them."""

    def __init__(self, settings=None):
        self.world = World(settings)
        self.port = free_port()
        self.listener = listener("http", "HTTP", self.port)
        self.world.port(self.listener)
        self.backends = {name: HttpBackend(name) for name in "abc"}
        for name, backend in self.backends.items():
            self.world.backend(name, backend.port)
        self.proxy = Proxy()
        self._names = itertools.count()

    def serve(self, *entries, host=None, **more):
        """A hostname under which these entries answer."""
        host = host or f"host-{next(self._names)}.test"
        self.world.host(self.listener, host, *entries, **more)
        self.proxy.apply(self.world)
        return host

    def ask(self, host, path="/", method="GET", headers=(), body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            pairs = list(headers.items() if isinstance(headers, dict) else headers)
            for key, value in [("Host", host), *pairs]:
                connection.putheader(key, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            found = {}
            for key, value in response.getheaders():
                found[key.lower()] = f"{found[key.lower()]}, {value}" if key.lower() in found else value
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def counts(self, host, times, path="/"):
        """How often each backend, or status if not 200, answered."""
        out = {}
        for _ in range(times):
            answer = self.ask(host, path)
            who = answer.headers["x-backend"] if answer.status == 200 else answer.status
            out[who] = out.get(who, 0) + 1
        return out

    def close(self):
        self.proxy.close()
        for backend in self.backends.values():
            backend.close()


a, b, c, nowhere = ref("a"), ref("b"), ref("c"), ref(None)
