"""What every writing verb works with: the connection, the clock, the policy, and the run that pays."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from ledger import events as ev
from ledger.clock import Clock
from ledger.errors import DiskTrouble
from ledger.policy import Policy
from ledger.store.connect import Connection, is_disk_trouble, transaction
from ledger.store.exposure import Exposure
from ledger.store.selection import Selection

T = TypeVar("T")
ReadDelivery = Callable[[str, int | None, tuple[str, ...]], ev.Delivery]
"""`(raw text, the attempt's ceiling in micro-dollars, its secrets) -> what it says`: the profile's business,
handed in so that the store knows no wire."""


def _random_key() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class Books:
    """The writer's open ledger."""

    connection: Connection
    clock: Clock
    policy: Policy = field(default_factory=Policy)
    run_id: int | None = None
    exposure: Exposure | None = None
    """Running totals of the current run; None outside a run."""
    selective: bool = False
    """True while the run may claim only jobs in `temp.selected`."""
    selection: Selection = field(default_factory=Selection)
    """What the current run was asked to select: decides whether a job a person queues belongs to it."""
    read_delivery: ReadDelivery | None = None
    """None: deliveries stay in the inbox for somebody who knows the provider's profile."""
    new_key: Callable[[], str] = _random_key
    """Makes an attempt's idempotency key: a random UUID, derived from no person."""

    @property
    def now(self) -> datetime:
        """The clock's time."""
        return self.clock.now()

    def tried(self, work: Callable[[], T]) -> T | Exception:
        """What `work` returns; or what it raised, and then nothing of it stays, running totals included.

        A savepoint in the caller's transaction.

        Raises:
            DiskTrouble: It could not be written: that is everybody's trouble (so is SQLite's own error).
        """
        before = None if self.exposure is None else self.exposure.copy()
        self.connection.execute("SAVEPOINT tried")
        try:
            result: T | Exception = work()
        except Exception as error:
            if isinstance(error, DiskTrouble | MemoryError) or is_disk_trouble(error):
                raise
            self.exposure = before
            self.connection.execute("ROLLBACK TO tried")
            result = error
        self.connection.execute("RELEASE tried")
        return result

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that moves money: rolled back, the running totals go back with it.

        Raises:
            DiskTrouble: It could not be written.
        """
        before = None if self.exposure is None else self.exposure.copy()
        try:
            with transaction(self.connection):
                yield
        except BaseException:
            self.exposure = before
            raise
