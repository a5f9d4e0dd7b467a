"""Backends that say what reached them, many ports in one thread: in a header over HTTP/1.1 and HTTP/2, to a TLS
handshake and to a datagram with their number alone.
"""

import asyncio
import json
import socket
import threading

import h2.config
import h2.connection
import h2.events


class EchoPorts:
    """So many listening ports on loopback; each answers with its number and what it received."""

    def __init__(self, count):
        self._loop = asyncio.new_event_loop()
        pairs = [_both() for _ in range(count)]
        self._sockets, self._datagrams = ([pair[kind] for pair in pairs] for kind in (0, 1))
        self.ports = [each.getsockname()[1] for each in self._sockets]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        for number, each in enumerate(self._sockets):
            self._loop.run_until_complete(self._loop.create_server(lambda n=number: _Echo(n), sock=each))
        for number, each in enumerate(self._datagrams):
            endpoint = self._loop.create_datagram_endpoint(lambda n=number: _EchoDatagrams(n), sock=each)
            self._loop.run_until_complete(endpoint)
        self._loop.run_forever()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        for each in (*self._sockets, *self._datagrams):
            each.close()


def _both():
    """A listening socket, and one for datagrams of the same number."""
    while True:
        stream = socket.create_server(("127.0.0.1", 0), backlog=256)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setblocking(False)
        try:
            datagrams.bind(stream.getsockname())
        except OSError:  # somebody has that number for datagrams
            stream.close()
            datagrams.close()
        else:
            return stream, datagrams


class _EchoDatagrams(asyncio.DatagramProtocol):
    def __init__(self, number):
        self.number = number

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(b"%d %s" % (self.number, data), addr)


class _Echo(asyncio.Protocol):
    def __init__(self, number):
        self.number = number
        self.buffer = b""
        self.http2 = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.http2 is None and not self.buffer and data.startswith(b"\x16"):
            self.transport.write(b"ECHO %d\n" % self.number)
            self.transport.close()
            return
        if self.http2 is None and not self.buffer and data.startswith(b"PRI "):
            self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            self.http2.initiate_connection()
        if self.http2 is not None:
            self._frames(data)
            return
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
            length = int(dict(headers).get("content-length", 0))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            told = self._told(method, target, dict(headers).get("host", ""), headers)
            self.transport.write(f"HTTP/1.1 200 OK\r\nx-echo: {told}\r\ncontent-length: 0\r\n\r\n".encode())

    def _frames(self, data):
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = [(_text(k), _text(v)) for k, v in event.headers]
                pseudo = dict(headers)
                told = self._told(pseudo[":method"], pseudo[":path"], pseudo[":authority"], headers)
                self.http2.send_headers(event.stream_id, [(":status", "200"), ("x-echo", told)], end_stream=True)
        self.transport.write(self.http2.data_to_send())

    def _told(self, method, target, host, headers):
        kept = [pair for pair in headers if pair[0].startswith("x-t")]
        return json.dumps({"backend": self.number, "method": method, "target": target, "host": host, "headers": kept})


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
