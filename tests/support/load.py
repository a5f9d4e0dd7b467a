"""Load on one address, keep-alive and new connections mixed, every failure kept."""

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass, field


@dataclass
class Result:
    """What came back: requests answered with an expected status, and what went wrong with the others."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


class Load:
    """Asks for a path until `stop`, from `keep_alive` lasting connections and `fresh` clients that connect each time.

    Runs in a thread of its own; between `start` and `stop` the test changes things.
    """

    def __init__(
        self,
        address: str,
        port: int,
        host: str,
        path: str = "/",
        *,
        tls: bool = False,
        keep_alive: int = 4,
        fresh: int = 2,
        expected: tuple[int, ...] = (200,),
        pause: float = 0.0,
    ) -> None:
        """`pause`: seconds that a client rests after each answer; 0 asks as fast as it goes."""
        self.address, self.port, self.host, self.path = address, port, host, path
        self.tls, self.keep_alive, self.fresh, self.expected = tls, keep_alive, fresh, expected
        self.pause = pause
        self.result = Result()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def _run(self) -> None:
        context = self._context()
        workers = [self._worker(context, lasting=True) for _ in range(self.keep_alive)]
        workers += [self._worker(context, lasting=False) for _ in range(self.fresh)]
        await asyncio.gather(*workers)

    async def _connect(self, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            self.address, self.port, ssl=context, server_hostname=self.host if context else None
        )

    async def _worker(self, context: ssl.SSLContext | None, *, lasting: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = await asyncio.wait_for(self._connect(context), 10)
                status, closing = await asyncio.wait_for(self._ask(*connection), 10)
                if status in self.expected:
                    self.result.answered += 1
                else:
                    self.result.failures.append(f"status {status}")
                if closing or not lasting:
                    connection[1].close()
                    connection = None
                if self.pause:
                    await asyncio.sleep(self.pause)
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                self.result.failures.append(f"{type(error).__name__}: {error} ({'lasting' if lasting else 'new'})")
                if connection is not None:
                    with contextlib.suppress(OSError):
                        connection[1].close()
                connection = None
                await asyncio.sleep(0.01)
        if connection is not None:
            connection[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), None)
        if length is not None:
            await reader.readexactly(length)
        elif "transfer-encoding: chunked" in head:
            while (size := int((await reader.readline()).strip() or b"0", 16)) > 0:
                await reader.readexactly(size + 2)
            await reader.readline()
        return status, "connection: close" in head
