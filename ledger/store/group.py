"""Group commit: whatever has gathered goes to disk in one transaction, and each caller waits for its own.

One process, one connection, one event loop. A caller hands in a plain function; it runs inside
`BEGIN IMMEDIATE … COMMIT` together with all others that became ready in the same turn of the loop, each in
a savepoint of its own, so that one refusal does not roll back the rest. The caller goes on only when the
COMMIT (with `synchronous=FULL`: the sync) has succeeded. Nothing awaits inside the transaction.

A failed BEGIN or COMMIT, or an I/O error inside, fails every caller and closes the door: paying stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ledger.errors import DiskTrouble
from ledger.store.books import Books
from ledger.store.connect import is_disk_trouble, transaction

T = TypeVar("T")
GROUP_MAX = 500
"""Writes in one transaction: bounds how long one commit keeps the event loop."""


@dataclass(slots=True)
class _Entry:
    work: Callable[[Books], Any]
    future: asyncio.Future[Any]


class GroupCommit:
    """The one writer. `commits` and `writes` count what went to disk."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.commits = 0
        self.writes = 0
        self._waiting: list[_Entry] = []
        self._scheduled = False
        self._broken: DiskTrouble | None = None

    async def write(self, work: Callable[[Books], T]) -> T:
        """Run `work` in the next group and return its value once it is on disk.

        A cancelled caller does not undo its write: it may already be in the group.

        Raises:
            DiskTrouble: The group could not be written; nothing of it is on disk.
            LedgerError: Whatever `work` raised; its savepoint was rolled back, the rest of the group stands.
        """
        if self._broken is not None:
            raise self._broken
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Entry(work, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return cast("T", await asyncio.shield(future))

    def _flush(self) -> None:
        group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._flush)
        if self._broken is not None:
            _fail(group, self._broken)
            return
        before = None if self.books.exposure is None else self.books.exposure.copy()
        try:
            with transaction(self.books.connection):
                outcomes = [self._one(entry.work) for entry in group]
        except DiskTrouble as trouble:
            self.books.exposure = before
            self._broken = trouble
            _fail(group, trouble)
            return
        self.commits += 1
        self.writes += len(group)
        for entry, (value, error) in zip(group, outcomes, strict=True):
            if entry.future.cancelled():
                continue
            if error is None:
                entry.future.set_result(value)
            else:
                entry.future.set_exception(error)

    def _one(self, work: Callable[[Books], Any]) -> tuple[Any, Exception | None]:
        """One caller's write in a savepoint; its own error is its own, an I/O error is everybody's."""
        connection = self.books.connection
        before = None if self.books.exposure is None else self.books.exposure.copy()
        connection.execute("SAVEPOINT one")
        try:
            value = work(self.books)
        except Exception as error:
            if is_disk_trouble(error):
                raise
            self.books.exposure = before
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            return None, error
        connection.execute("RELEASE one")
        return value, None


def _fail(group: list[_Entry], error: DiskTrouble) -> None:
    for entry in group:
        if not entry.future.cancelled():
            entry.future.set_exception(error)
