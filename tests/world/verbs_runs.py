"""Rules: files, runs with their caps and chains, crashes, a second process, the time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from desk import Desk
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ledger.errors import LedgerBusy
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.states import CHAIN_ENDS, State, StopReason
from ledger.store.enqueue import Asked
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

ROUTE = "enrich/websearch"
ORIGIN = "http://127.0.0.1:9"
NUMBERS = st.lists(st.integers(1, 12), min_size=1, max_size=4)
CAP = st.sampled_from((None, None, None, 1_400_000, 3_000_001, 9_000_000))
CAPS = st.builds(Caps, CAP, CAP, CAP, CAP)
ENDS = st.sampled_from([reason for reason in StopReason if reason is not StopReason.DIED])


def build(_route: str, lead: Mapping[str, str]) -> Asked:
    return Asked(json.dumps({"company": lead["company"]}), lead["company"])


class Runs(Desk):
    """What surrounds the paid calls."""

    @initialize()
    def begin(self) -> None:
        self.take_in(range(1, 6), 1)
        self.start_run(StopReason.FINISHED, Caps(), new_budget=False)
        self.enqueue()

    @rule(numbers=NUMBERS, file=st.integers(2, 4))
    def import_file(self, numbers: list[int], file: int) -> None:
        self.take_in(numbers, file)

    @rule()
    def import_again(self) -> None:
        assert self.take_in(range(1, 6), 1) == 0

    def take_in(self, numbers: Sequence[int], file: int) -> int:
        rows = []
        for line, number in enumerate(numbers, 2):
            name = f"company {number}"
            fields = tuple(name if field == "company" else None for field in LEAD_FIELDS)
            rows.append(SourceRow(line, json.dumps({"Company": name}), fields, Keys(None, None, name, None)))
        sha = f"{file}-{list(numbers)}"
        facts = FileFacts(f"{file}.csv", sha, "file", {}, (), "utf-8", ",")
        new = len(set(numbers) - set(self.leads))
        report = self.ledger.import_rows(facts, rows)
        self.leads += [number for number in dict.fromkeys(numbers) if number not in self.leads]
        assert self.sql("SELECT COUNT(*) FROM leads") == [(len(self.leads),)]
        assert report.leads_new == new
        return new

    @rule()
    def enqueue(self) -> None:
        asked = {job.lead for job in self.jobs.values()}
        done = self.ledger.enqueue(ROUTE, "async", Selection(), build)
        fresh = [lead for lead in range(1, len(self.leads) + 1) if lead not in asked]
        assert done.queued == len(fresh)
        for lead in fresh:
            self._new_job(lead)

    @precondition(lambda self: not self._any(State.SUBMITTING))
    @rule(reason=ENDS, caps=CAPS, new_budget=st.booleans())
    def next_run(self, reason: StopReason, caps: Caps, new_budget: bool) -> None:
        self.ledger.end_run(reason)
        self.seen["run ended"] += 1
        self.start_run(reason, caps, new_budget=new_budget)

    def start_run(self, before: StopReason, caps: Caps, *, new_budget: bool) -> None:
        self.ledger.recover()
        self.caps = caps
        run = self.ledger.begin_run(origin=ORIGIN, settings={}, caps=caps, new_budget=new_budget)
        if new_budget or before in CHAIN_ENDS:
            self.chain = run

    @rule(caps=CAPS, new_budget=st.booleans())
    def crash(self, caps: Caps, new_budget: bool) -> None:
        """Kill -9: the files as they are now, and a new process on the copy."""
        dead, ledger = self.path, self.ledger
        self.life += 1
        for suffix in ("", "-wal", ".reserve"):
            if Path(f"{dead}{suffix}").exists():
                shutil.copyfile(f"{dead}{suffix}", f"{self.path}{suffix}")
        ledger.close()
        self.ledger = self._open()
        self.seen["crashed"] += 1
        caught = self._in(State.SUBMITTING)
        assert self.ledger.recover().new_doubts == len(caught)
        assert self.ledger.recover().new_doubts == 0
        for job in caught:
            self._move(job, State.IN_DOUBT, "found at start")
        self.start_run(StopReason.DIED, caps, new_budget=new_budget)

    @rule()
    def second_runner(self) -> None:
        with pytest.raises(LedgerBusy):
            Ledger(self.path, "second", clock=self.clock, migrations=migrations)

    @rule(hours=st.sampled_from((0.01, 5, 24)))
    def time_passes(self, hours: float) -> None:
        self.clock.start += timedelta(hours=hours)
