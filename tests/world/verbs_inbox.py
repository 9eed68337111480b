"""Rules: deliveries of every kind for jobs in every state, and a person's wishes, through the real inbox."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from desk import PICK, Desk, Job
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ledger.clock import to_text
from ledger.states import FINAL, State
from ledger.store import inbox
from ledger.store.control import Chosen

SHARE = st.integers(0, 120)
_NAMED = (State.WAITING, State.IN_DOUBT, State.LOST)


class Inbox(Desk):
    """What comes in from outside."""

    delivered = 0

    def _deliver(self, job: Job, said: dict[str, Any], *, by_key: bool, again: bool) -> None:
        last = job.last
        key = self.sql(
            f"SELECT idempotency_key FROM attempts WHERE job_id = {job.id} AND number = {last.number}"
        )[0][0]
        if by_key or last.remote is None:
            said = {**said, "source_ref": key}
        if last.remote is None:
            self.remote += 1
            last.remote = f"remote-{self.remote}"
        type(self).delivered += 1
        document = {"id": self.delivered, "event_type": "x", "job_id": last.remote, **said}
        body = inbox.delivery(json.dumps(document).encode(), received_at=self.clock.now(), delivery_id=None)
        for _ in range(1 + again):
            inbox.drop(self.path, "delivery", body, now=self.clock.now())
        self.ledger.take_inbox()

    @precondition(lambda self: self._any(*_NAMED))
    @rule(pick=PICK, share=SHARE, by_key=st.booleans(), again=st.booleans())
    def a_result_is_delivered(self, pick: int, share: int, by_key: bool, again: bool) -> None:
        job = self._pick(pick, *_NAMED)
        cost = job.last.ceiling * share // 100
        late = job.state is State.LOST
        said = {
            "status": "completed",
            "charged_usd": str(Decimal(cost).scaleb(-6)),
            "result": {"matched": cost > 0},
        }
        self._deliver(job, said, by_key=by_key, again=again)
        charge = (job.last.charge or 0) if late else min(cost, job.last.ceiling)
        self._close(job, charge, cost - charge)
        why = "delivered late" if late else "delivered"
        self._move(job, State.MATCHED if cost else State.NO_MATCH, why)

    @precondition(lambda self: self._any(State.WAITING, State.IN_DOUBT))
    @rule(pick=PICK, by_key=st.booleans(), again=st.booleans())
    def an_event_without_a_result(self, pick: int, by_key: bool, again: bool) -> None:
        job = self._pick(pick, State.WAITING, State.IN_DOUBT)
        self._deliver(job, {}, by_key=by_key, again=again)
        self._move(job, State.WAITING, "delivered bare")

    @precondition(lambda self: any(job.state in FINAL and job.attempts for job in self.jobs.values()))
    @rule(pick=PICK)
    def one_about_a_settled_job_changes_nothing(self, pick: int) -> None:
        found = [job for job in self._in(State.MATCHED, State.NO_MATCH) if job.last.remote]
        if found:
            self._deliver(found[pick % len(found)], {"status": "running"}, by_key=False, again=True)

    @rule(number=st.integers(1, 3))
    def one_about_somebody_elses_job_changes_nothing(self, number: int) -> None:
        said = {"job_id": f"stranger-{number}", "status": "completed", "result": {"matched": True}}
        body = inbox.delivery(json.dumps(said).encode(), received_at=self.clock.now(), delivery_id=None)
        inbox.drop(self.path, "delivery", body, now=self.clock.now())
        self.ledger.take_inbox()

    # --- wishes ---

    def _wish(self, kind: str, job: Job) -> None:
        body = Chosen(job_ids=(job.id,), as_of=to_text(self.clock.now())).to_json()
        inbox.drop(self.path, kind, body, now=self.clock.now())
        self.ledger.take_inbox()

    @precondition(lambda self: self._any(State.QUEUED))
    @rule(pick=PICK)
    def a_person_cancels(self, pick: int) -> None:
        job = self._pick(pick, State.QUEUED)
        self._wish("cancel", job)
        self._move(job, State.CANCELLED, "cancelled")

    @precondition(lambda self: self._any(State.QUEUED))
    @rule(pick=PICK, resumed=st.booleans())
    def a_person_pauses(self, pick: int, resumed: bool) -> None:
        job = self._pick(pick, State.QUEUED)
        self._wish("pause", job)
        assert self.sql(f"SELECT paused_at IS NOT NULL FROM jobs WHERE id = {job.id}") == [(1,)]
        if resumed:
            self._wish("resume", job)
        self.seen["paused"] += 1

    @precondition(lambda self: self._any(*FINAL))
    @rule(pick=PICK)
    def a_person_retries(self, pick: int) -> None:
        job = self._pick(pick, *FINAL)
        newest = max(other.id for other in self.jobs.values() if other.lead == job.lead)
        self._wish("retry", job)
        if newest == job.id:
            self._new_job(job.lead)
            self.seen["retried"] += 1
