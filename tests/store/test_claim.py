"""Conformance: intent and hold are written first, in order, and never above a cap, not by a micro-dollar."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ledger.errors import Bug
from ledger.events import NotSent
from ledger.states import State, StopReason
from ledger.store.claims import ClaimRules
from ledger.store.exposure import Caps
from ledger.store.selection import Selection

CENT = 10_000


def jobs_of(claim: Any) -> list[int]:
    return [call.job_id for call in claim.calls]


def test_intent_hold_state_and_step_are_on_disk_before_the_call_is_handed_out(desk: Any) -> None:
    desk.ready(1)
    (call,) = desk.claim().calls
    assert (call.job_id, call.fence, call.route, call.mode) == (1, 1, desk.route, "async")
    assert (call.request, call.ceiling_microusd) == ('{"company": "company 1"}', desk.ceiling)
    assert uuid.UUID(call.idempotency_key).version == 4
    intent = (
        "SELECT job_id, number, run_id, idempotency_key, ceiling_microusd, started_at, outcome FROM attempts"
    )
    assert desk.elsewhere(intent) == [(1, 1, 1, call.idempotency_key, desk.ceiling, desk.now(), None)]
    assert desk.elsewhere("SELECT kind, amount_microusd, run_id FROM costs") == [("hold", desk.ceiling, 1)]
    assert desk.elsewhere("SELECT state, attempt, reason FROM jobs") == [("submitting", 1, "claimed")]
    assert desk.steps(1)[-1] == ("queued", "submitting", "claimed")


def test_the_most_important_goes_first_then_the_oldest(desk: Any) -> None:
    desk.ready(5)
    desk.sql("UPDATE jobs SET priority = 5 WHERE id IN (3, 5)")
    assert jobs_of(desk.claim(2)) == [3, 5]
    assert jobs_of(desk.claim(10)) == [1, 2, 4]
    assert jobs_of(desk.claim(10)) == []


def test_what_is_paused_or_on_another_route_or_not_queued_stays(desk: Any) -> None:
    desk.ready(4)
    desk.enqueue(route="enrich/phone")
    desk.sql("UPDATE jobs SET paused_at = 'x' WHERE id = 1")
    assert jobs_of(desk.claim(10)) == [2, 3, 4]
    assert jobs_of(desk.claim(10, route="enrich/phone")) == [5, 6, 7, 8]


def test_a_job_waits_for_its_time(desk: Any) -> None:
    desk.ready(2)
    desk.claim(1)
    desk.record(1, desk.throttled(30))
    assert desk.ledger.next_due(desk.route) == "2026-03-02T09:00:30.000000Z"
    assert desk.ledger.next_due("enrich/phone") is None
    assert jobs_of(desk.claim(10)) == [2]
    desk.clock.advance(29.999999)
    assert jobs_of(desk.claim(10)) == []
    desk.clock.advance(0.000001)
    (call,) = desk.claim(10).calls
    assert (call.job_id, call.fence) == (1, 2)
    assert desk.ledger.next_due(desk.route) is None


def test_only_what_was_selected_is_claimed_in_its_order(desk: Any) -> None:
    desk.ready(6)
    desk.sql("UPDATE jobs SET priority = 1 WHERE id = 5")
    desk.enqueue(Selection(lead_ids=(1, 2, 5, 6), limit=3))
    assert jobs_of(desk.claim(10)) == [5, 1, 2]
    assert jobs_of(desk.claim(10)) == []


def test_a_selected_job_that_comes_back_joins_the_selection_again_at_its_end(desk: Any) -> None:
    desk.ready(4)
    desk.enqueue(Selection(limit=2))
    assert jobs_of(desk.claim(1)) == [1]
    desk.record(1, NotSent("connect_error"))
    assert jobs_of(desk.claim(10)) == [2, 1]
    assert jobs_of(desk.claim(10)) == []


def test_the_mode_and_the_ceiling_are_the_runs_own(desk: Any) -> None:
    desk.ready(1)
    (call,) = desk.claim(mode="sync", ceiling=7).calls
    assert (call.mode, call.ceiling_microusd) == ("sync", 7)
    assert desk.sql("SELECT mode FROM jobs") == [("sync",)]


def test_a_claim_without_a_run_is_a_bug_and_writes_nothing(desk: Any) -> None:
    desk.leads(1)
    desk.enqueue()
    with pytest.raises(Bug, match="needs a run"):
        desk.claim()
    assert desk.state(1) == "queued"


@pytest.mark.parametrize(
    ("cap", "blocked_by"), [("chain", "budget"), ("day", "budget_day"), ("total", "budget_total")]
)
@pytest.mark.parametrize("ceiling", [1_500_000, 333_337])
def test_a_cap_holds_exactly(desk: Any, cap: str, blocked_by: str, ceiling: int) -> None:
    desk.ready(4, Caps(**{f"{cap}_microusd": 3 * ceiling - 1}))
    claim = desk.claim(4, ceiling)
    assert (jobs_of(claim), claim.blocked_by) == ([1, 2], blocked_by)
    desk.caps = Caps(**{f"{cap}_microusd": 3 * ceiling})
    claim = desk.claim(4, ceiling)
    assert (jobs_of(claim), claim.blocked_by) == ([3], blocked_by)
    assert desk.one("SELECT SUM(amount_microusd) FROM costs") == 3 * ceiling


def test_the_tightest_cap_counts(desk: Any) -> None:
    desk.ready(
        2, Caps(chain_microusd=9 * desk.ceiling, day_microusd=desk.ceiling, total_microusd=desk.ceiling)
    )
    claim = desk.claim(2)
    assert (jobs_of(claim), claim.blocked_by) == ([1], "budget_day")


def test_what_is_released_may_be_held_again_and_what_is_charged_may_not(desk: Any) -> None:
    desk.ready(4, Caps(chain_microusd=desk.ceiling + 420_000))
    desk.claim()
    desk.record(1, desk.accepted())
    assert desk.claim().blocked_by == "budget"
    desk.record(1, desk.finished(420_000))
    assert jobs_of(desk.claim()) == [2]
    desk.record(2, desk.accepted())
    desk.record(2, desk.finished(1))
    assert desk.claim().blocked_by == "budget"


def test_an_excess_counts_against_the_cap(desk: Any) -> None:
    desk.ready(2, Caps(chain_microusd=2 * desk.ceiling))
    desk.claim()
    desk.record(1, desk.accepted())
    desk.record(1, desk.finished(desk.ceiling + 1))
    assert desk.costs(1) == [("hold", desk.ceiling), ("charge", desk.ceiling), ("adjust", 1)]
    assert desk.claim().blocked_by == "budget"


def test_one_lead_is_not_paid_for_above_its_own_cap_over_the_ledgers_life(desk: Any) -> None:
    desk.ready(3, Caps(lead_microusd=desk.ceiling + CENT - 1))
    desk.claim(2)
    for job_id, cost in ((1, CENT), (2, CENT - 1)):
        desk.record(job_id, desk.accepted())
        desk.record(job_id, desk.finished(cost))
    desk.ledger.end_run(StopReason.FINISHED)
    desk.begin(Caps(lead_microusd=desk.ceiling + CENT - 1))
    desk.enqueue(route="enrich/phone")
    claim = desk.claim(3, route="enrich/phone")
    assert [desk.one("SELECT lead_id FROM jobs WHERE id = ?", job) for job in jobs_of(claim)] == [2, 3]
    assert (claim.blocked_by, claim.leads_capped) == (None, 1)
    assert desk.state(4) == "queued"
    again = desk.claim(3, route="enrich/phone")
    assert (jobs_of(again), again.leads_capped) == ([], 0)


def test_the_day_cap_is_that_of_the_utc_day_in_which_the_hold_was_written(desk: Any) -> None:
    desk.clock.start = datetime(2026, 3, 2, 23, 59, 59, 999_999, tzinfo=UTC)
    desk.ready(5, Caps(day_microusd=2 * desk.ceiling))
    desk.claim(1)
    desk.record(1, desk.accepted())
    desk.claim(1)
    assert desk.claim().blocked_by == "budget_day"
    desk.clock.advance(0.000001)
    assert jobs_of(desk.claim(2)) == [3, 4]
    assert desk.claim().blocked_by == "budget_day"
    desk.record(1, desk.finished(0, State.NO_MATCH))  # yesterday's hold: makes no room today
    assert desk.claim().blocked_by == "budget_day"
    desk.record(3, NotSent("connect_error"))
    assert jobs_of(desk.claim()) == [3]
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_wall_clock_that_steps_back_over_midnight_makes_no_room(desk: Any) -> None:
    desk.clock.start = datetime(2026, 3, 3, 0, 0, 1, tzinfo=UTC)
    desk.ready(3, Caps(day_microusd=desk.ceiling))
    desk.claim()
    desk.clock.start -= timedelta(seconds=2)
    assert desk.claim().blocked_by == "budget_day"
    desk.record(1, NotSent("connect_error"))
    assert len(desk.claim(9).calls) == 1
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_claim_reads_the_day_of_its_holds_once(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by tests/campaigns/clock_steps.py: the totals and the intent were of two different days."""
    desk.clock.start = datetime(2026, 3, 3, 0, 0, 1, tzinfo=UTC)
    desk.ready(1)
    true = desk.clock.now
    readings = count()
    back = timedelta(seconds=2)
    monkeypatch.setattr(desk.clock, "now", lambda: true() - (back if next(readings) else timedelta()))
    assert len(desk.claim().calls) == 1
    assert next(readings) > 1, "the clock must be read again after its step"
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_claim_that_fails_half_way_writes_nothing(desk: Any) -> None:
    desk.ready(2)
    keys = iter(["same", "same"])
    desk.ledger.books.new_key = lambda: next(keys)
    with pytest.raises(Exception, match="what was sent never changes"):
        desk.claim(2)
    assert desk.sql("SELECT state FROM jobs") == [("queued",), ("queued",)]
    assert desk.one("SELECT COUNT(*) FROM costs") == 0
    assert desk.ledger.books.exposure.total_microusd == 0


def test_claims_of_one_turn_never_take_the_same_job_nor_pass_a_cap_together(desk: Any) -> None:
    desk.ready(10, Caps(chain_microusd=7 * desk.ceiling))
    rules = ClaimRules(desk.route, "async", desk.ceiling, desk.caps)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(desk.ledger.claim(rules, 2) for _ in range(8)))

    claims = desk.run(all_at_once())
    taken = [job for claim in claims for job in jobs_of(claim)]
    assert sorted(taken) == list(range(1, 8))


def test_a_lead_that_opts_out_while_its_job_is_queued_is_never_sent(desk: Any) -> None:
    desk.ready(3)
    desk.take(desk.row(9, company="company 2", suppressed=True))
    claim = desk.claim(10)
    assert jobs_of(claim) == [1, 3]
    assert (claim.passed_over, claim.leads_capped) == (1, 0)
    assert desk.state(2) == "skipped"
    assert desk.steps(2)[-1] == ("queued", "skipped", "suppressed")
    assert desk.costs(2) == []


def test_a_claim_needs_a_run_but_no_selection(desk: Any) -> None:
    desk.leads(1)
    desk.begin()
    assert jobs_of(desk.claim(5)) == []
