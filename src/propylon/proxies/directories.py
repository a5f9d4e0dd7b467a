"""Where a proxy's files are.

Two places. The data directory keeps what people read and what survives a reboot: bootstraps and logs. Sockets live in
a run directory of their own, because the path of a Unix socket must fit into 108 bytes (unix(7), `sun_path`) and data
directories are as long as their users like. The run directory is `$XDG_RUNTIME_DIR/propylon/<hash of the data
directory>`, else `/tmp/propylon-<uid>/<hash>`; it belongs to the user alone. The choice is recorded as the symbolic
link `run` in the data directory: a second start from another session (another XDG_RUNTIME_DIR) must find the sockets
that a running proxy reconnects to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from pathlib import Path

from propylon.proxies.settings import DirectoryRefusedError

LONGEST_SOCKET_PATH = 107
"""`sun_path` has 108 bytes, one of them the terminating zero."""
_LONGEST_RELATIVE = len("0123456789/hr_udp_parent_42949672950")
_NODE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def own_directory(path: Path) -> Path:
    """Create `path` for the user alone (mode 0700), or make sure that it is so.

    Raises `DirectoryRefusedError` if it is a symbolic link, not a directory, or somebody else's: in /tmp anyone may
    have come first.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise DirectoryRefusedError(f"{path} is not a directory. Remove it and start again.")
    if found.st_uid != os.geteuid():
        raise DirectoryRefusedError(f"{path} belongs to user {found.st_uid}, not to us ({os.geteuid()}).")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _candidates(data: Path) -> list[tuple[Path, ...]]:
    """Chains of directories to create, best first: each is the parent of the next, the last is the run directory."""
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    chains: list[tuple[Path, ...]] = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_absolute():
        chains.append((Path(runtime) / "propylon", Path(runtime) / "propylon" / name))
    base = Path("/tmp") / f"propylon-{os.geteuid()}"
    chains.append((base, base / name))
    return chains


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory)) + 1 + _LONGEST_RELATIVE <= LONGEST_SOCKET_PATH


def run_directory(data: Path) -> Path:
    """The run directory of a data directory, created if need be; the same one at every call.

    Raises `DirectoryRefusedError` if no candidate is both short enough and ours.
    """
    data = data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    link = data / "run"
    if link.is_symlink():
        recorded = link.readlink()
        chain = next((c for c in _candidates(data) if c[-1] == recorded), None)
        with contextlib.suppress(DirectoryRefusedError, OSError):
            if chain is not None:
                for each in chain:
                    own_directory(each)
                return recorded
            return own_directory(recorded)
    reasons = []
    for chain in _candidates(data):
        if not _fits(chain[-1]):
            reasons.append(f"{chain[-1]} is too long for a socket")
            continue
        try:
            for each in chain:
                own_directory(each)
        except (DirectoryRefusedError, OSError) as error:
            reasons.append(str(error))
            continue
        temporary = data / f".run-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(chain[-1])
        temporary.replace(link)
        return chain[-1]
    raise DirectoryRefusedError("No directory for sockets: " + "; ".join(reasons))


class ProxyFiles:
    """The paths of one proxy. Making one touches nothing; `create` does."""

    def __init__(self, data: Path, run: Path, node: str) -> None:
        namespace, slash, name = node.partition("/")
        if not slash or not _NODE.fullmatch(namespace) or not _NODE.fullmatch(name):
            raise ValueError(f"{node!r} is not NAMESPACE/NAME")
        self.node = node
        # Nested, because namespace and name together may be longer than a file name may be.
        self.directory = data.resolve() / "proxies" / namespace / name
        self.run = run / hashlib.sha256(node.encode()).hexdigest()[:10]
        self.log = self.directory / "envoy.log"
        self.base_id = self.directory / "base-id"
        self.admin_socket = self.run / "admin.sock"
        self.hot_restart_socket = self.run / "hr"

    def bootstrap(self, fingerprint: str) -> Path:
        """The bootstrap file of a fingerprint: its name, on a process's command line, tells what that process runs
        with.
        """
        return self.directory / f"bootstrap-{fingerprint}.json"

    def create(self) -> None:
        """Make both directories. Raises `DirectoryRefusedError` or OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        own_directory(self.run)

    def forget_sockets(self) -> None:
        """Remove sockets and the shared memory that a process left behind.

        Only when none of this node runs any more.
        """
        shutil.rmtree(self.run, ignore_errors=True)
        base_id = self.read_base_id()
        if base_id is not None:
            with contextlib.suppress(OSError):
                # Envoy leaves ten names to every base id, for that many epochs; the first one holds the memory.
                Path(f"/dev/shm/envoy_shared_memory_{base_id}0").unlink()
            self.base_id.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove everything, logs too: the Gateway is gone."""
        self.forget_sockets()
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # other Gateways of the namespace
            self.directory.parent.rmdir()

    def read_base_id(self) -> int | None:
        """Envoy's base id as its first process wrote it; None if there is none (yet)."""
        try:
            return int(self.base_id.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
