"""What the runner makes of each answer to a paid POST, and when it stops."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import Any

import pytest

from ledger import events as ev
from ledger.clock import from_text
from ledger.errors import DiskTrouble
from ledger.states import StopReason
from ledger.store.exposure import Caps
from ledger.store.selection import Selection

CEILING = 1_500_000
OPENING = 100_000_000
COST = 400_000


def test_every_lead_is_sent_once_polled_and_settled(bench: Any) -> None:
    bench.leads(30)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 30}
    assert len(bench.provider.posts) == 30
    assert bench.provider.in_air_max == 5
    assert bench.money("charge") == 30 * COST == bench.provider.taken_microusd
    assert bench.money("hold") == bench.money("charge") + bench.money("release")
    assert bench.one("SELECT COUNT(*) FROM poll_bearers") == 0
    progress = bench.runner.progress
    assert (progress.submitted, dict(progress.final)) == (30, {"matched": 30})
    assert progress.charged_microusd == 30 * COST


def test_the_intent_and_its_hold_are_on_disk_before_the_post_leaves(bench: Any) -> None:
    bench.leads(3)
    seen = []

    def look(call: Any) -> ev.PostEvent:
        seen.append(
            bench.sql(
                "SELECT j.state, a.idempotency_key, c.amount_microusd FROM jobs j JOIN attempts a "
                "ON a.job_id = j.id AND a.number = ? JOIN costs c ON c.attempt_id = a.id WHERE j.id = ?",
                call.fence,
                call.job_id,
            )[0]
            == ("submitting", call.idempotency_key, CEILING)
            and not bench.ledger.books.connection.in_transaction
        )
        return bench.provider.accept(call)

    bench.provider.posts_say = deque([look] * 3)
    bench.run()
    assert seen == [True] * 3


def test_jobs_of_an_earlier_run_are_polled_at_once_and_not_sent_again(bench: Any) -> None:
    bench.leads(4)

    async def stop_when_accepted() -> None:
        await bench.until(lambda: len(bench.provider.due) == 4)
        bench.runner.stop()

    assert bench.run(beside=stop_when_accepted) is StopReason.INTERRUPTED
    assert bench.states() == {"waiting": 4}
    bench.clock.advance(3600)
    polled, started = len(bench.provider.polls), bench.clock.monotonic()
    assert bench.run() is StopReason.FINISHED
    assert bench.provider.polled_at[polled:] == [started] * 4
    assert (len(bench.provider.posts), bench.states()) == (4, {"matched": 4})


# --- 429 ---


def test_no_hold_is_written_while_the_brake_is_on(bench: Any) -> None:
    bench.leads(12)
    bench.provider.posts_say = deque([bench.say.throttled(30.0)])
    assert bench.run(concurrency=2) is StopReason.FINISHED
    throttled_at, went_on = (
        from_text(bench.one("SELECT ended_at FROM attempts WHERE outcome = 'throttled'")),
        timedelta(seconds=30),
    )
    started = [from_text(at) for (at,) in bench.sql("SELECT started_at FROM attempts ORDER BY id")]
    assert sum(at < throttled_at for at in started) == 2
    assert all(at >= throttled_at + went_on for at in started[2:])
    assert bench.states() == {"matched": 12}
    assert bench.attempts() == 13
    assert bench.money("charge") == 12 * COST


def test_a_run_that_ends_by_the_clock_does_not_wait_for_a_long_brake(bench: Any) -> None:
    bench.leads(3)
    bench.provider.posts_say = deque([bench.say.throttled(900.0)])
    until = bench.clock.now() + timedelta(seconds=20)
    assert bench.run(concurrency=1, until=until) is StopReason.UNTIL
    assert bench.clock.now() < until + timedelta(seconds=5)
    assert (len(bench.provider.posts), bench.states()) == (1, {"queued": 3})


# --- money ---


def test_402_with_jobs_out_waits_for_their_refunds_and_goes_on(bench: Any) -> None:
    bench.leads(6)
    bench.provider.posts_say = deque([bench.provider.accept, bench.provider.accept, bench.say.no_money()])
    assert bench.run(concurrency=1) is StopReason.FINISHED
    assert bench.states() == {"matched": 6}
    # The fourth POST waited for the first refund, ten virtual seconds after the first was accepted.
    assert bench.provider.posted_at[2] < 1
    assert bench.provider.posted_at[3] >= 10
    assert bench.attempts() == 7


def test_402_with_nothing_out_stops_and_leaves_the_rest_queued(bench: Any) -> None:
    bench.leads(6)
    bench.provider.taken_microusd = OPENING - CEILING + 400_000
    bench.provider.posts_say = deque([bench.say.no_money()])
    assert bench.run(concurrency=1) is StopReason.NO_FUNDS
    assert bench.states() == {"queued": 6}
    assert (len(bench.provider.posts), bench.money("hold") - bench.money("release")) == (1, 0)
    note = bench.runner.progress.note
    assert "the balance is $1.10 and a job sets $1.50 aside: top up at least $0.40" in note
    assert "$7.90 carries all 6 that wait at once" in note


def test_holds_limit_what_is_in_flight_to_what_the_balance_carries(bench: Any) -> None:
    """floor(B / C), without one 402: as refunds come, more goes out."""
    bench.leads(12)
    start = 4 * CEILING + CEILING - 1
    bench.provider.taken_microusd = OPENING - start
    bench.provider.cost = 100_000
    assert bench.run(concurrency=8, balance_microusd=start) is StopReason.FINISHED
    assert bench.states() == {"matched": 12}
    assert (bench.provider.open_max, bench.attempts()) == (4, 12)


def test_a_balance_that_carries_nothing_sends_nothing_until_it_is_topped_up(bench: Any) -> None:
    bench.leads(3)
    bench.provider.taken_microusd = OPENING - CEILING + 1
    assert bench.run(balance_microusd=CEILING - 1) is StopReason.NO_FUNDS
    assert (bench.states(), bench.attempts()) == ({"queued": 3}, 0)
    bench.provider.taken_microusd -= 3 * CEILING
    assert bench.run(balance_microusd=4 * CEILING - 1) is StopReason.FINISHED
    assert (bench.states(), bench.attempts()) == ({"matched": 3}, 3)


def test_refunds_that_come_late_are_waited_for_before_the_money_is_called_short(bench: Any) -> None:
    bench.leads(2)
    carries_one, short = ev.Balance(CEILING + 5, 1), ev.Balance(CEILING - 400_000, 1)
    bench.provider.balances_say = deque([short, short, carries_one])
    assert bench.run(concurrency=1, balance_microusd=CEILING) is StopReason.FINISHED
    assert (bench.states(), bench.attempts()) == ({"matched": 2}, 2)
    assert bench.provider.balances == 3


def test_a_balance_that_is_shown_but_cannot_be_spent_is_believed_once(bench: Any) -> None:
    bench.leads(3)
    bench.provider.posts_say = deque([bench.say.no_money(), bench.say.no_money()])
    assert bench.run(concurrency=1, balance_microusd=OPENING) is StopReason.NO_FUNDS
    assert (len(bench.provider.posts), bench.states()) == (2, {"queued": 3})
    assert "answers 402" in bench.runner.progress.note


def test_a_finished_run_is_finished_whatever_the_balance(bench: Any) -> None:
    bench.leads(2)
    bench.provider.cost = CEILING
    assert bench.run(balance_microusd=2 * CEILING) is StopReason.FINISHED
    assert bench.states() == {"matched": 2}


@pytest.mark.parametrize("cap", ["chain_microusd", "day_microusd", "total_microusd"])
def test_each_cap_stops_with_budget_at_the_last_micro_dollar(bench: Any, cap: str) -> None:
    bench.leads(8)
    bench.provider.cost = CEILING
    assert bench.run(Caps(**{cap: 3 * CEILING + CEILING - 1})) is StopReason.BUDGET
    assert bench.states() == {"matched": 3, "queued": 5}
    assert len(bench.provider.posts) == 3


@pytest.mark.parametrize("cap", ["chain_microusd", "day_microusd", "total_microusd"])
def test_releases_let_a_capped_run_go_on_until_the_cap_is_really_spent(bench: Any, cap: str) -> None:
    bench.leads(10)
    cap_microusd = 2 * CEILING
    assert bench.run(Caps(**{cap: cap_microusd})) is StopReason.BUDGET
    # 400,000 each: the fifth would lift 1,600,000 + 1,500,000 above the cap.
    assert bench.states() == {"matched": 4, "queued": 6}
    assert bench.provider.open_max == 2
    assert (
        bench.one(
            "SELECT MAX(total) FROM (SELECT SUM(CASE kind WHEN 'release' THEN -amount_microusd "
            "WHEN 'hold' THEN amount_microusd ELSE 0 END) OVER (ORDER BY id) AS total FROM costs)"
        )
        <= cap_microusd
    )


def test_the_cap_of_a_lead_stops_with_budget_and_passes_that_lead_over(bench: Any) -> None:
    bench.leads(3)
    assert bench.run(Caps(lead_microusd=CEILING - 1)) is StopReason.BUDGET
    assert (bench.provider.posts, bench.states()) == ([], {"queued": 3})
    assert bench.run(Caps(lead_microusd=CEILING)) is StopReason.FINISHED
    assert bench.states() == {"matched": 3}


# --- refusals ---


def test_a_refused_key_stops_the_run_and_the_rest_stays_queued(bench: Any) -> None:
    bench.leads(9)
    bench.provider.posts_say = deque([bench.say.not_allowed()])
    assert bench.run(concurrency=1) is StopReason.NOT_ALLOWED
    assert (len(bench.provider.posts), bench.states()) == (1, {"queued": 9})
    assert bench.runner.progress.note == "no such token"


def test_the_twentieth_refusal_with_one_code_stops_the_run(bench: Any) -> None:
    bench.leads(30)
    bench.provider.posts_say = deque([bench.say.refused()] * 30)
    assert bench.run(concurrency=1) is StopReason.REFUSED
    assert bench.states() == {"failed": 20, "queued": 10}
    assert bench.money("release") == 20 * CEILING


@pytest.mark.parametrize("which", ["another code", "an answer before"])
def test_refusals_among_other_answers_do_not_stop_the_run(bench: Any, which: str) -> None:
    bench.leads(30)
    first = bench.say.refused("OTHER") if which == "another code" else bench.provider.accept
    rest = [bench.say.refused("CODE")] * 29
    bench.provider.posts_say = deque([first, *rest])
    assert bench.run(concurrency=1) is StopReason.FINISHED


# --- no connection ---


def test_not_sent_wakes_one_prober_and_writes_no_attempt_per_retry(bench: Any) -> None:
    bench.leads(20)
    bench.provider.posts_say = deque([ev.NotSent("connect_error")] * 5)
    bench.provider.balance_s = 12.0  # a connection that times out, longer than the prober's own pause
    bench.provider.balances_say = deque([ev.BalanceUnknown("connect_timeout")] * 4)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 20}
    assert bench.provider.balances == 5
    assert bench.attempts() == 25
    assert bench.one("SELECT COUNT(*) FROM attempts WHERE outcome = 'not_sent'") == 5


def test_when_the_provider_is_back_polls_go_on_at_once(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say = deque([bench.provider.accept, ev.NotSent("connect_error")])
    bench.provider.balances_say = deque([ev.BalanceUnknown("connect_error")] * 2)
    assert bench.run(concurrency=1) is StopReason.FINISHED
    assert bench.states() == {"matched": 2}
    # Due after five seconds, braked until the third reading after seven.
    assert 6 < bench.provider.polled_at[0] < 10


def test_a_provider_that_stays_away_ends_the_run_after_the_bound(bench: Any) -> None:
    bench.leads(20)
    bench.provider.posts_say = deque([ev.NotSent("connect_error")] * 20)
    bench.provider.balances_say = deque([ev.BalanceUnknown("connect_error")] * 1000)
    assert bench.run() is StopReason.UNREACHABLE
    assert bench.policy.unreachable_after_s <= bench.clock.monotonic() < 400
    assert (bench.attempts(), bench.states()) == (5, {"queued": 20})
    assert bench.money("hold") == bench.money("release")


def test_polls_that_nobody_answers_end_the_run_too(bench: Any) -> None:
    bench.leads(2)
    bench.provider.polls_say = deque([ev.PollFailed("connect_error")] * 1000)
    assert bench.run() is StopReason.UNREACHABLE
    assert bench.states() == {"waiting": 2}


def test_an_unknown_outcome_is_held_in_doubt_and_never_sent_again(bench: Any) -> None:
    bench.leads(4)
    bench.provider.posts_say = deque([bench.say.unknown(), bench.provider.accept])
    assert bench.run(audit=False) is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1, "matched": 3}
    for _ in range(2):
        assert bench.run(audit=False) is StopReason.FINISHED
    assert len(bench.provider.posts) == 4
    assert bench.money("hold") - bench.money("charge") - bench.money("release") == CEILING


# --- how a run ends ---


def test_a_limited_run_sends_so_many_and_stops_as_limit(bench: Any) -> None:
    bench.leads(10)
    assert bench.run(selection=Selection(limit=4)) is StopReason.LIMIT
    assert (len(bench.provider.posts), bench.states()) == (4, {"matched": 4})
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 10}


def test_nothing_is_claimed_from_the_appointed_time_on(bench: Any) -> None:
    bench.leads(50)
    until = bench.clock.now() + timedelta(seconds=2)
    assert bench.run(until=until, concurrency=1) is StopReason.UNTIL
    starts = [from_text(at) for (at,) in bench.sql("SELECT started_at FROM attempts")]
    assert 0 < len(starts) < 50
    assert max(starts) < until
    assert not {"submitting", "in_doubt"} & bench.states().keys()


def test_stop_awaits_the_posts_in_the_air(bench: Any) -> None:
    bench.leads(20)
    bench.provider.post_s = 30.0

    async def stop() -> None:
        await bench.until(lambda: bench.provider.in_air == 5)
        bench.runner.stop()

    assert bench.run(beside=stop) is StopReason.INTERRUPTED
    assert bench.states() == {"waiting": 5, "queued": 15}
    assert bench.one("SELECT COUNT(*) FROM poll_bearers") == 5


def test_a_slot_that_comes_with_the_stop_is_not_used(bench: Any) -> None:
    bench.leads(5)

    def stop_and_accept(call: Any) -> ev.PostEvent:
        bench.runner.stop()
        return bench.provider.accept(call)

    bench.provider.posts_say = deque([stop_and_accept])
    assert bench.run(concurrency=1) is StopReason.INTERRUPTED
    assert (len(bench.provider.posts), bench.gate.in_use) == (1, 0)


def test_abandon_leaves_at_once_and_what_was_in_the_air_is_in_doubt(bench: Any) -> None:
    bench.leads(20)
    bench.provider.post_s = 30.0

    async def stop_twice() -> None:
        await bench.until(lambda: bench.provider.in_air == 5)
        bench.runner.stop()
        await asyncio.sleep(0)
        bench.runner.abandon()

    assert bench.run(beside=stop_twice) is StopReason.INTERRUPTED
    assert bench.clock.monotonic() < 30
    assert bench.states() == {"in_doubt": 5, "queued": 15}
    assert bench.sql("SELECT DISTINCT error FROM attempts") == [("cancelled",)]


def test_an_answer_that_had_come_when_the_run_was_abandoned_is_kept(bench: Any) -> None:
    bench.leads(1)

    class Struck(type(bench.provider)):  # type: ignore[misc] # the fixture's own class
        async def submit(self, call: Any) -> ev.PostEvent:
            try:
                return await super().submit(call)
            except asyncio.CancelledError as cancelled:
                cancelled.args = (self.accept(call),)
                raise

    bench.provider = Struck(bench.clock, post_s=30.0)

    async def stop() -> None:
        await bench.until(lambda: bench.provider.in_air == 1)
        bench.runner.abandon()

    bench.run(beside=stop)
    assert bench.states() == {"waiting": 1}


def test_a_disk_that_will_not_take_the_answer_stops_paying_at_once(bench: Any) -> None:
    bench.leads(20)
    runner = bench.prepare(concurrency=2)

    def full(call: Any) -> ev.PostEvent:
        bench.ledger.group._broken = DiskTrouble("The ledger cannot be written: disk is full.")
        return bench.provider.accept(call)

    bench.provider.posts_say = deque([full, bench.provider.accept])
    with pytest.raises(DiskTrouble, match="disk is full"):
        asyncio.run(runner.run())
    assert len(bench.provider.posts) == 2


def test_a_disk_that_will_not_take_the_intent_means_nothing_is_sent(bench: Any) -> None:
    bench.leads(3)
    runner = bench.prepare()
    bench.ledger.group._broken = DiskTrouble("The ledger cannot be written: disk is full.")
    with pytest.raises(DiskTrouble):
        asyncio.run(runner.run())
    assert (bench.provider.posts, bench.states()) == ([], {"queued": 3})


def test_a_finished_ledger_has_nothing_to_do_and_a_run_writes_no_row_but_its_own(bench: Any) -> None:
    bench.leads(5)
    bench.run()
    assert not bench.ledger.anything_to_do("enrich/websearch", Selection())
    before, paid = bench.rows(), len(bench.provider.posts)
    assert bench.run() is StopReason.FINISHED
    after = bench.rows()
    own = {"runs": 1, "balance_checks": 1}
    # AUTOINCREMENT's own table counts tables, not rows of ours.
    assert {name: after[name] - before[name] for name in before if after[name] != before[name]} == own
    assert len(bench.provider.posts) == paid


def test_a_run_over_a_ledger_in_doubt_is_something_to_do(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say = deque([bench.say.unknown()])
    bench.run(audit=False)
    assert bench.ledger.anything_to_do("enrich/websearch", Selection())
