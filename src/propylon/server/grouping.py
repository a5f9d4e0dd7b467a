"""Group commit: writes that come at the same time are one transaction, and wait for the disk once.

Each write is still all or nothing by itself, and is answered only when it is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from propylon.store import LocalStore, StoreUnavailable

T = TypeVar("T")


class _Write(Generic[T]):
    """One write, and whoever waits for it."""

    def __init__(self, write: Callable[[], T], done: asyncio.Future[T]) -> None:
        self._write = write
        self._done = done
        self._result: T | None = None
        self._refusal: Exception | None = None

    def run(self) -> None:
        """Do it. Raises StoreUnavailable, after which nothing of the transaction can be kept."""
        try:
            self._result = self._write()
        except StoreUnavailable:
            raise
        except Exception as error:
            if isinstance(error.__cause__, StoreUnavailable):
                raise error.__cause__ from error
            self._refusal = error

    def tell(self, failure: Exception | None) -> None:
        """Say how it went; `failure` is that of the whole transaction."""
        if self._done.done():  # the client has left
            return
        error = self._refusal or failure
        if error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(self._result)  # type: ignore[arg-type]


class GroupCommit:
    """Collects the writes of one event loop's turn."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._waiting: list[_Write[object]] = []

    async def run(self, write: Callable[[], T]) -> T:
        """What `write` returns, once that is durable. Raises what `write` raises, and then nothing of it is kept.

        `write` must do all its writing in a transaction of its own, so that its failure undoes nothing of others.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit)
        self._waiting.append(_Write(write, done))  # type: ignore[arg-type]
        return await done

    def _commit(self) -> None:
        group, self._waiting = self._waiting, []
        failure: Exception | None = None
        try:
            with self._store.transaction():
                for write in group:
                    write.run()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            failure = error
        for write in group:
            write.tell(failure)
