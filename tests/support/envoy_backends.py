"""Backends that tell what reached them: HTTP/1.1, bytes and datagrams."""

import json
import socket
import socketserver
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class HttpBackend:
    """HTTP/1.1 on an ephemeral port: answers with JSON about the request.

    Query parameters: `status`, `delay` (seconds), `fail` (so many requests of that `id` answer `status` first),
    `header` (Name:Value). A WebSocket upgrade is accepted and echoes raw bytes.
    `requests` keeps (method, path, headers).
    """

    def __init__(self, name, context: ssl.SSLContext | None = None):
        self.name = name
        self.requests = []
        self.seen = {}
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self):
                backend.serve(self)

            def log_message(self, *_):
                pass

        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
            setattr(Handler, f"do_{method}", Handler.answer)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = super().get_request()
                if context is not None:
                    connection.settimeout(5)
                    connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                return connection, address

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def serve(self, handler):
        length = int(handler.headers.get("content-length") or 0)
        body = handler.rfile.read(length).decode() if length else ""
        headers = {}
        for key, value in handler.headers.items():
            headers[key.lower()] = f"{headers[key.lower()]},{value}" if key.lower() in headers else value
        self.requests.append((handler.command, handler.path, headers))
        if headers.get("upgrade", "").lower() == "websocket":
            self.upgrade(handler)
            return
        query = {k: v[-1] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        if "delay" in query:
            time.sleep(float(query["delay"]))
        status = int(query.get("status", 200))
        if "fail" in query:
            count = self.seen[query["id"]] = self.seen.get(query["id"], 0) + 1
            status = status if count <= int(query["fail"]) else 200
        tls = handler.connection if isinstance(handler.connection, ssl.SSLSocket) else None
        answer = {
            "backend": self.name,
            "method": handler.command,
            "path": handler.path,
            "headers": headers,
            "body": body,
            "alpn": tls.selected_alpn_protocol() if tls else None,
            "client": bool(tls.getpeercert()) if tls else None,
        }
        data = b"" if status in {204, 304} else json.dumps(answer).encode()
        handler.send_response_only(status)
        handler.send_header("content-length", str(len(data)))
        handler.send_header("server", "test-backend")
        handler.send_header("x-backend", self.name)
        if "header" in query:
            handler.send_header(*query["header"].split(":", 1))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def upgrade(self, handler):
        handler.send_response_only(101)
        handler.send_header("upgrade", "websocket")
        handler.send_header("connection", "upgrade")
        handler.end_headers()
        handler.close_connection = True
        while data := handler.connection.recv(4096):
            handler.connection.sendall(data)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class TcpBackend:
    """Says its name and a newline, then echoes; over TLS if given a context."""

    def __init__(self, name, context: ssl.SSLContext | None = None):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                connection = self.request
                try:
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.sendall(f"{name}\n".encode())
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class UdpBackend:
    """Answers every datagram with its name."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.name = name
        self.received = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                _, address = self.socket.recvfrom(4096)
                self.received += 1
                self.socket.sendto(self.name.encode(), address)
            except OSError:
                return

    def close(self):
        self.socket.close()
