"""A wire to the API server that can be cut: TCP passed on as it comes."""

import contextlib
import socket
import struct
import threading

_LINGER_NONE = struct.pack("ii", 1, 0)


class Wire:
    """Listens on an address of its own and passes everything on to the target, until it is cut."""

    def __init__(self, target: tuple[str, int], ip: str) -> None:
        self._target = target
        self._listener = socket.create_server((ip, 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self.cuts = 0
        """Connections that were cut."""

    def __enter__(self) -> "Wire":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # What waits in accept() is not woken by close().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """End every connection there is by a reset, as a machine in between that forgot them does; how many it were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair.ends:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads
                end.close()
        self.cuts += len(pairs)
        return len(pairs)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            pair = _Pair(near, far)
            with self._lock:
                self._pairs.add(pair)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(pair, one, other), daemon=True).start()

    def _pass_on(self, pair: "_Pair", one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        with self._lock:
            pair.directions -= 1
            if not pair.directions:
                self._pairs.discard(pair)
                for end in pair.ends:
                    end.close()


class _Pair:
    """The two connections that are one."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ends = (near, far)
        self.directions = 2
        """How many still pass something on."""
