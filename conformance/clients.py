"""client-go's informers, unchanged, against the embedded API: ``python conformance/clients.py`` (``make clients``).

Builds `go/informer` and runs it against an API server in this process, whose change log is kept short so that a watch
falls behind and is answered with 410.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import build  # noqa: E402

from propylon.server.machine import MachineStore  # noqa: E402
from propylon.server.service import ApiServer  # noqa: E402

RETAINED = 50
_SECONDS = 180


def main() -> int:
    """Returns the exit code: that of the Go program, 2 if it cannot be built."""
    try:
        program = build.build_informer()
    except build.BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="clients-") as directory:
        data = Path(directory)
        with MachineStore(data, retained_changes=RETAINED) as store:
            server = ApiServer(store, data, port=0)
            server.start()
            try:
                server.wait_ready()
                # More than are retained, and a tenth more than that is what the log may hold before it is cut.
                command = [str(program), "--kubeconfig", str(server.kubeconfig), "--changes", str(3 * RETAINED)]
                return subprocess.run(command, check=False, timeout=_SECONDS).returncode
            finally:
                server.stop()


if __name__ == "__main__":
    sys.exit(main())
