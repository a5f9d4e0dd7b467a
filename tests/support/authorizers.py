"""An external authorization service that speaks HTTP, and filters that ask it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from propylon import api
from propylon.graph.model import ExternalAuth
from support.envoy_world import ref


class HttpAuthorizer:
    """Allows what has `X-Pass: yes`; says what it was asked in `x-asked` and who it is in `x-user`."""

    def __init__(self):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode()
                headers = {k.lower(): v for k, v in self.headers.items()}
                asked.append((self.command, self.path, headers, body))
                allow = headers.get("x-pass") == "yes" or headers.get("authorization") == "yes"
                self.send_response_only(200 if allow else 401)
                self.send_header("x-user", "somebody")
                self.send_header("x-other", "1")
                self.send_header("set-cookie", "login=1")
                data = b"" if allow else b"who are you"
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        Handler.do_POST = Handler.do_GET
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def external(name, protocol="HTTP", port_protocol="HTTP", body=None, **config):
    key = {"HTTP": "http", "GRPC": "grpc"}[protocol]
    kind = {"HTTP": api.HTTPAuthConfig, "GRPC": api.GRPCAuthConfig}[protocol]
    auth = api.HTTPExternalAuthFilter(
        protocol=protocol,
        backend_ref=api.BackendObjectReference(name=name or "gone"),
        forward_body=None if body is None else api.ForwardBodyConfig(max_size=body),
        **{key: kind(**config)},
    )
    return ExternalAuth(auth, ref(name, protocol=port_protocol))
