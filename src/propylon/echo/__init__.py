"""An echo server that tells what it received: stands in for Services without endpoints.

`server` listens and finds out what a connection speaks: HTTP/1.1, WebSocket, HTTP/2, gRPC, TLS around any of them, or
plain bytes; and UDP on the same port number. `process` keeps the servers in a process of their own, which outlives a
crash of its owner.
"""
