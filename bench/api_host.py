"""The embedded API alone, without the control plane of `propylon up`: python -m bench.api_host DIRECTORY."""

import signal
import sys
import threading
from pathlib import Path

from propylon.server.service import ApiServer
from propylon.store import LocalStore


def main() -> None:
    """Serve until told to end."""
    directory = Path(sys.argv[1])
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with LocalStore(directory) as store:
        server = ApiServer(store, directory)
        server.start()
        server.wait_ready()
        ended.wait()
        server.stop()


if __name__ == "__main__":
    main()
