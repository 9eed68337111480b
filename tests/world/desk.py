"""An open ledger, and beside it a bookkeeping of our own: what every job and attempt should be by now."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from ledger import events as ev
from ledger.api.delivery import read_delivery
from ledger.api.profile import Profile
from ledger.migrations.migrations import migrations
from ledger.states import State
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.testing import FakeClock
from ledger.transition import Transition

AMOUNT = st.integers(1, 9_000_000)
PICK = st.integers(0, 1 << 20)
PROFILE = Profile.load()


@dataclass
class Attempt:
    """What we expect to be booked for one POST."""

    lead: int
    chain: int
    day: str
    ceiling: int
    number: int
    remote: str | None = None
    charge: int | None = None
    adjust: int = 0
    free: bool = False

    @property
    def open(self) -> bool:
        return self.charge is None

    @property
    def exposure(self) -> int:
        return self.ceiling if self.charge is None else self.charge + self.adjust


@dataclass
class Job:
    """What we expect of one job."""

    id: int
    lead: int
    state: State = State.QUEUED
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]


class Desk(RuleBasedStateMachine):
    """The state that all rules share. A test sets `folder` and `template` (an empty, closed ledger)."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    seen: ClassVar[Counter[str]] = Counter()
    """How often each thing happened in all examples together: a rule that never ran has shown nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(auto=False)
        self.place = Path(tempfile.mkdtemp(dir=self.folder))
        self.life = 0
        shutil.copyfile(self.template, self.path)
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[int, Job] = {}
        self.leads: list[int] = []
        self.lumped: list[tuple[int, int]] = []
        self.chain = 0
        self.caps = Caps()
        self.remote = 0
        self.ledger = self._open()

    @property
    def path(self) -> Path:
        return self.place / f"leads-{self.life}.db"

    def _open(self) -> Ledger:
        read = partial(read_delivery, PROFILE)
        ledger = Ledger(self.path, "test", clock=self.clock, migrations=migrations, read_delivery=read)
        ledger.books.connection.execute("PRAGMA synchronous = OFF")  # nothing here cuts the power
        return ledger

    def teardown(self) -> None:
        self.ledger.close()
        self.loop.close()
        shutil.rmtree(self.place)

    def _in(self, *states: State) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in states]

    def _pick(self, pick: int, *states: State) -> Job:
        found = self._in(*states)
        return found[pick % len(found)]

    def _any(self, *states: State) -> bool:
        return bool(self._in(*states))

    def _record(self, job: Job, event: ev.Event) -> Transition | None:
        return self.loop.run_until_complete(self.ledger.record(job.id, job.last.number, event))

    def _move(self, job: Job, state: State, why: str) -> None:
        job.state = state
        self.seen[why] += 1

    def _close(self, job: Job, charge: int, adjust: int = 0) -> None:
        job.last.charge, job.last.adjust = charge, adjust

    def sql(self, query: str) -> list[tuple[object, ...]]:
        return self.ledger.books.connection.execute(query).fetchall()

    def _new_job(self, lead: int) -> None:
        number = len(self.jobs) + 1
        self.jobs[number] = Job(number, lead)
