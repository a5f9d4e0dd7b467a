"""`python -m propylon.echo --control SOCKET`: the echo servers as a process of their own. Started by `EchoProcess`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from propylon.echo.control import serve


def main() -> int:
    """Parse the command line and serve; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m propylon.echo", description="Echo servers, told what to do over a socket."
    )
    parser.add_argument("--control", type=Path, required=True, help="path of the Unix socket to be controlled by")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    arguments = parser.parse_args()
    return serve(arguments.control, arguments.host)


if __name__ == "__main__":
    sys.exit(main())
