"""The store's verbs in any order, with crashes, against a bookkeeping of our own (hypothesis).

`LEADLEDGER_EXAMPLES` and `LEADLEDGER_STEPS` make a campaign of it: 50000 and 50, for instance.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import verdicts
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from verbs_calls import Calls
from verbs_doubts import Doubts
from verbs_inbox import Inbox
from verbs_runs import CAPS, ENDS, Runs
from world import make_template

from ledger import machine
from ledger.states import State, StopReason
from ledger.store import lock, reserve
from ledger.store.audit import INVARIANTS
from ledger.store.exposure import Caps, Exposure
from ledger.transition import Transition

EXAMPLES = int(os.environ.get("LEADLEDGER_EXAMPLES", "150"))
STEPS = int(os.environ.get("LEADLEDGER_STEPS", "30"))
HAPPENS = {
    *("crashed", "run ended", "found at start", "accepted", "answered", "refused", "sent back", "unknown"),
    *("final poll", "proved free", "resent or written off"),
    *("delivered", "delivered bare", "delivered late", "cancelled", "paused", "retried"),
}


class Verbs(Runs, Calls, Doubts, Inbox):
    """One ledger, one person, and a provider that says anything."""

    @precondition(lambda self: self._any(State.IN_DOUBT) and not self._any(State.SUBMITTING))
    @rule(reason=ENDS, caps=CAPS, resend=st.booleans())
    def a_person_decides_between_runs(self, reason: StopReason, caps: Caps, resend: bool) -> None:
        self.ledger.end_run(reason)
        self.ledger.close()
        self.ledger = self._open()
        self.write_off(0, everything=True, resend=resend)
        self.start_run(reason, caps, new_budget=False)

    @invariant()
    def the_ledger_says_what_we_say(self) -> None:
        assert self.sql("SELECT id, lead_id, state, attempt FROM jobs ORDER BY id") == [
            (job.id, job.lead, job.state, len(job.attempts)) for job in self.jobs.values()
        ]
        booked = self.sql(
            "SELECT a.job_id, a.number, SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' "
            "THEN c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END) "
            "FROM attempts a JOIN costs c ON c.attempt_id = a.id GROUP BY 1, 2 ORDER BY 1, 2"
        )
        assert booked == [
            (job.id, one.number, one.exposure) for job in self.jobs.values() for one in job.attempts
        ]

    @invariant()
    def the_books_hold_together(self) -> None:
        connection = self.ledger.books.connection
        assert verdicts.caps_kept(connection) == []
        assert verdicts.history_replays(connection) == []
        assert verdicts.money_adds_up(verdicts.attempts(connection)) == []
        for check in INVARIANTS:
            assert connection.execute(check.sql).fetchmany(3) == [], check.sentence


@pytest.fixture
def verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Verbs]:
    Verbs.folder = tmp_path
    Verbs.template = make_template(tmp_path)
    Verbs.seen.clear()
    # A process that finds the lock taken looks again for a fifth of a second; nobody here lets go.
    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=lambda _seconds: None))
    monkeypatch.setattr(reserve, "SIZE", 65_536)
    return Verbs


def play(
    verbs: type[Verbs], examples: int, steps: int, *, shrink: bool = True, repeatable: bool = False
) -> None:
    chosen = settings(
        derandomize=repeatable,
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if shrink or phase is Phase.generate],
        report_multiple_bugs=shrink,
    )
    run_state_machine_as_test(verbs, settings=chosen)


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_the_verbs_keep_the_books_in_any_order(verbs: type[Verbs]) -> None:
    """Half of the stories are the same every time, so that what they meet is no matter of chance."""
    play(verbs, EXAMPLES // 2, STEPS)
    verbs.seen.clear()
    play(verbs, EXAMPLES // 2, STEPS, repeatable=True)
    missing = HAPPENS - set(verbs.seen)
    assert not missing, f"never happened: {sorted(missing)}; {verbs.seen}"


def test_a_forgotten_cap_is_caught(verbs: type[Verbs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exposure, "blocked_by", lambda *_: None)
    with pytest.raises(AssertionError):
        play(verbs, 200, STEPS, shrink=False)


def test_a_doubt_taken_for_nothing_is_caught(verbs: type[Verbs], monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(*_: object) -> Transition | None:
        return None

    monkeypatch.setattr(machine, "_doubt", forget)
    with pytest.raises(AssertionError):
        play(verbs, 200, STEPS, shrink=False)


def test_what_is_written_off_between_two_runs_still_counts_against_their_budget(verbs: type[Verbs]) -> None:
    desk = verbs()
    try:
        desk.begin()
        caps = Caps(chain_microusd=3_000_002)
        desk.next_run(StopReason.FINISHED, caps, new_budget=False)
        desk.look_at_balance(9_000_000, opening=True)
        desk.claim(2, 1_500_001)
        for _ in range(2):
            desk.unknown(0)
        desk.audit_finds_a_gap(5_999_998)
        desk.a_person_decides_between_runs(StopReason.INTERRUPTED, caps, resend=True)
        desk.claim(2, 1_500_001)
        assert not desk._any(State.SUBMITTING)
        desk.the_ledger_says_what_we_say()
    finally:
        desk.teardown()
