"""Runs data planes: what a proxy is started with, who watches it, and how it is drained, replaced and adopted.

`process` runs one Envoy process per node on this machine. A proxy outlives the program that started it: it lives in a
session of its own, writes to files, and reconnects to the same Unix socket, so a program that comes back takes it
over as it is.
"""
