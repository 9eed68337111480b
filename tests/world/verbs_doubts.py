"""Rules: the balance, what an audit concludes, and what a person decides."""

from __future__ import annotations

import pytest
from desk import AMOUNT, PICK, Desk
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ledger import events as ev
from ledger.errors import UsageProblem
from ledger.states import State


class Doubts(Desk):
    """How doubts end."""

    @rule(amount=AMOUNT, opening=st.booleans())
    def look_at_balance(self, amount: int, opening: bool) -> None:
        opening = opening and self.ledger.may_rebase()
        self.ledger.note_balance("opening" if opening else "reading", ev.Balance(amount, 1))

    @precondition(lambda self: self._any(State.IN_DOUBT))
    @rule(amount=AMOUNT)
    def prove_free(self, amount: int) -> None:
        self.ledger.prove_free(ev.Balance(amount, 1), "audit: no gap")
        for job in self._in(State.IN_DOUBT):
            if sum(one.free for one in job.attempts) < 3:
                job.last.free = True
                self._close(job, 0)
                self._move(job, State.QUEUED, "proved free")

    @precondition(lambda self: len(self._in(State.IN_DOUBT)) == 1)
    @rule(amount=AMOUNT, share=st.integers(1, 99))
    def prove_charged(self, amount: int, share: int) -> None:
        job, doubt = self._in(State.IN_DOUBT)[0], self.ledger.doubts()[0]
        charge = doubt.ceiling_microusd * share // 100
        self.ledger.prove_charged(ev.Balance(amount, 1), doubt, charge, "audit: a gap")
        self._close(job, charge)
        self._move(job, State.LOST, "audit charged")

    @precondition(lambda self: self._any(State.IN_DOUBT))
    @rule(amount=AMOUNT)
    def audit_finds_a_gap(self, amount: int) -> None:
        self.ledger.note_balance("audit", ev.Balance(amount, 1), "a person decides")
        self.seen["audit with a gap"] += self.ledger.audited_gap() is not None

    @rule(amount=AMOUNT)
    def top_up(self, amount: int) -> None:
        self.ledger.top_up(amount)

    @precondition(lambda self: self._any(State.IN_DOUBT))
    @rule(pick=PICK, everything=st.booleans(), resend=st.booleans())
    def write_off(self, pick: int, everything: bool, resend: bool) -> None:
        missing = self.ledger.audited_gap()
        doubts = self.ledger.doubts()
        found = doubts if everything else [doubts[pick % len(doubts)]]
        spent = self.ledger.write_off(found, resend=resend)
        whole = len(found) == len(doubts)
        expected = 0
        for doubt in found:
            job = self.jobs[doubt.job_id]
            charge = job.last.ceiling if missing is None else 0 if whole else min(job.last.ceiling, missing)
            self._close(job, charge)
            self._move(job, State.LOST, "resent or written off")
            expected += charge
            if resend:
                self._new_job(job.lead)
        if whole and missing is not None:
            self.lumped.append((self.chain, missing))
            self.seen["lumped"] += 1
            expected += missing
        assert spent == expected

    @precondition(lambda self: self._any(State.IN_DOUBT))
    @rule(pick=PICK, fresh=st.booleans())
    def accept(self, pick: int, fresh: bool) -> None:
        doubts = self.ledger.doubts()
        doubt = doubts[pick % len(doubts)]
        job = self.jobs[doubt.job_id]
        self.remote += fresh
        remote = f"remote-{self.remote}"
        taken = any(
            one.remote == remote and one is not job.last for j in self.jobs.values() for one in j.attempts
        )
        if job.last.remote not in (None, remote) or taken or not self.remote:
            if self.remote:
                with pytest.raises(UsageProblem):
                    self.ledger.accept(doubt, remote, None)
            return
        self.ledger.accept(doubt, remote, ev.Secret("pb-y"))
        job.last.remote = remote
        self._move(job, State.WAITING, "accepted by a person")
