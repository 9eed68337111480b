"""Rules: claims under caps, every way a paid POST comes out, and polls."""

from __future__ import annotations

import pytest
from desk import PICK, Attempt, Desk, Job
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ledger import events as ev
from ledger.errors import StaleWrite
from ledger.states import State
from ledger.store.claims import ClaimRules

CEILING = st.sampled_from((1, 333_333, 1_000_000, 1_500_001))
SHARE = st.none() | st.integers(0, 120)
"""What an answer says it costs, in percent of the hold; None: it does not say."""
SENT_BACK = {
    "not_sent": ev.NotSent("connect_error"),
    "no_money": ev.NoMoney("PAYMENT_REQUIRED", "", ev.Answer("odd", 402, "{}")),
    "not_allowed": ev.NotAllowed(401, "INVALID_TOKEN", "", ev.Answer("odd", 401, "{}")),
    "throttled": ev.Throttled(5.0, ev.Answer("odd", 429, "{}")),
}


class Calls(Desk):
    """What the provider says."""

    @precondition(lambda self: self._any(State.QUEUED))
    @rule(limit=st.integers(1, 4), ceiling=CEILING)
    def claim(self, limit: int, ceiling: int) -> None:
        rules = ClaimRules("enrich/websearch", "async", ceiling, self.caps)
        claimed = self.loop.run_until_complete(self.ledger.claim(rules, limit))
        for call in claimed.calls:
            job = self.jobs[call.job_id]
            assert job.state is State.QUEUED
            assert call.fence == len(job.attempts) + 1
            day = self.clock.now().date().isoformat()
            job.attempts.append(Attempt(job.lead, self.chain, day, ceiling, call.fence))
            self._move(job, State.SUBMITTING, "claimed")
            self._caps_hold(job.last)
        if not claimed.calls and not claimed.blocked_by and not claimed.leads_capped:
            self.seen["nothing to claim"] += 1

    def _caps_hold(self, new: Attempt) -> None:
        """Exposure after this hold, from our own books; later holds of the same claim are not written yet."""
        made = [one for job in self.jobs.values() for one in job.attempts]
        lumped = sum(amount for _, amount in self.lumped)
        own = sum(one.exposure for one in made if one.chain == self.chain)
        own += sum(amount for chain, amount in self.lumped if chain == self.chain)
        own += sum(one.ceiling for one in made if one.chain != self.chain and one.open)
        sums = (
            (own, self.caps.chain_microusd),
            (sum(one.exposure for one in made if one.day == new.day), self.caps.day_microusd),
            (sum(one.exposure for one in made if one.lead == new.lead), self.caps.lead_microusd),
            (sum(one.exposure for one in made) + lumped, self.caps.total_microusd),
        )
        for exposure, cap in sums:
            assert cap is None or exposure <= cap

    @precondition(lambda self: self._any(State.SUBMITTING))
    @rule(pick=PICK, bearer=st.booleans())
    def accepted(self, pick: int, bearer: bool) -> None:
        job = self._pick(pick, State.SUBMITTING)
        self.remote += 1
        job.last.remote = f"remote-{self.remote}"
        secret = ev.Secret("pb-x") if bearer else None
        self._record(job, ev.Accepted(job.last.remote, secret, None, ev.Answer("accepted", 202, "{}")))
        self._move(job, State.WAITING, "accepted")

    @precondition(lambda self: self._any(State.SUBMITTING) and self.remote)
    @rule(pick=PICK, remote=PICK)
    def repeated_remote_id(self, pick: int, remote: int) -> None:
        job = self._pick(pick, State.SUBMITTING)
        known = f"remote-{remote % self.remote + 1}"
        self._record(job, ev.Accepted(known, None, None, ev.Answer("accepted", 202, "{}")))
        self._move(job, State.IN_DOUBT, "repeated remote id")

    @precondition(lambda self: self._any(State.SUBMITTING))
    @rule(pick=PICK, share=SHARE)
    def answered(self, pick: int, share: int | None) -> None:
        job = self._pick(pick, State.SUBMITTING)
        verdict = self._settle(job, share, "answered")
        self._record(job, ev.Answered(verdict, ev.Answer("answered", 200, "{}")))

    def _settle(self, job: Job, share: int | None, why: str) -> ev.Verdict:
        """What a final answer that costs so many percent of the hold will do."""
        ceiling = job.last.ceiling
        cost = None if share is None else ceiling * share // 100
        charge = ceiling if cost is None else min(cost, ceiling)
        state = State.MATCHED if cost else State.NO_MATCH
        state = State.FAILED if share == 13 else state
        self._close(job, charge, 0 if cost is None else cost - charge)
        self._move(job, state, why)
        failed = state is State.FAILED
        return ev.Verdict(state, state is State.MATCHED, None, None, cost, "E" if failed else None, "{}")

    @precondition(lambda self: self._any(State.SUBMITTING))
    @rule(pick=PICK, what=st.sampled_from(sorted(SENT_BACK)))
    def sent_back(self, pick: int, what: str) -> None:
        job = self._pick(pick, State.SUBMITTING)
        self._record(job, SENT_BACK[what])
        self._close(job, 0)
        self._move(job, State.QUEUED, "sent back")

    @precondition(lambda self: self._any(State.SUBMITTING))
    @rule(pick=PICK)
    def refused(self, pick: int) -> None:
        job = self._pick(pick, State.SUBMITTING)
        self._record(job, ev.Refused(422, "BAD", "", ev.Answer("refused", 422, "{}")))
        self._close(job, 0)
        self._move(job, State.FAILED, "refused")

    @precondition(lambda self: self._any(State.SUBMITTING))
    @rule(pick=PICK)
    def unknown(self, pick: int) -> None:
        job = self._pick(pick, State.SUBMITTING)
        self._record(job, ev.Unknown("read_timeout", None, None))
        self._move(job, State.IN_DOUBT, "unknown")

    @precondition(lambda self: self._polled())
    @rule(pick=PICK, share=SHARE)
    def final_poll(self, pick: int, share: int | None) -> None:
        found = self._polled()
        job = found[pick % len(found)]
        verdict = self._settle(job, share, "final poll")
        self._record(job, ev.Finished(verdict, ev.Answer("poll", 200, "{}")))

    def _polled(self, *states: State) -> list[Job]:
        states = states or (State.WAITING, State.IN_DOUBT)
        return [job for job in self._in(*states) if job.last.remote]

    @precondition(lambda self: self._polled())
    @rule(pick=PICK, known=st.booleans())
    def still_running(self, pick: int, known: bool) -> None:
        found = self._polled()
        job = found[pick % len(found)]
        odd = None if known else ev.Answer("odd", 200, "{}")
        self._record(job, ev.StillRunning("running", known, odd))
        self._move(job, State.WAITING, "still running")

    @precondition(lambda self: self._polled())
    @rule(pick=PICK)
    def gone(self, pick: int) -> None:
        found = self._polled()
        assert self._record(found[pick % len(found)], ev.Gone(404, ev.Answer("odd", 404, "{}"))) is None

    @precondition(lambda self: self._any(State.WAITING))
    @rule(pick=PICK)
    def unreachable(self, pick: int) -> None:
        job = self._pick(pick, State.WAITING)
        self._record(job, ev.BecameUnreachable("gone"))
        self._move(job, State.IN_DOUBT, "unreachable")

    @precondition(lambda self: self._polled(State.LOST))
    @rule(pick=PICK, share=SHARE)
    def late_answer(self, pick: int, share: int | None) -> None:
        found = self._polled(State.LOST)
        job = found[pick % len(found)]
        charge = job.last.charge or 0
        cost = None if share is None else job.last.ceiling * share // 100
        state = State.NO_MATCH if cost == 0 else State.MATCHED
        verdict = ev.Verdict(state, None, None, None, cost, None, "{}")
        self._record(job, ev.Finished(verdict, ev.Answer("poll", 200, "{}")))
        self._close(job, charge, 0 if cost is None else cost - charge)
        self._move(job, state, "late answer")

    @precondition(lambda self: any(len(job.attempts) > 1 for job in self.jobs.values()))
    @rule(pick=PICK)
    def too_late(self, pick: int) -> None:
        found = [job for job in self.jobs.values() if len(job.attempts) > 1]
        job = found[pick % len(found)]
        with pytest.raises(StaleWrite):
            self.loop.run_until_complete(
                self.ledger.record(job.id, job.last.number - 1, ev.Unknown("late", None, None))
            )
