"""What the model found (docs/model.md), as runs: balances that seem to prove something and do not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from ledger import events as ev
from ledger.quiet import QuietAudit

CEILING = 1_500_000
OPENING = 100_000_000


def test_two_readings_agree_on_nothing_when_a_poll_booked_something_between_them(bench: Any) -> None:
    """Doubt A is settled by a poll during the wait, its refund still out; the gap seems to fit doubt B."""
    bench.leads(2)
    runner, ledger = bench.prepare(), bench.ledger

    async def night() -> int:
        first, second = (await ledger.claim(runner.options.rules, 2)).calls
        accepted = ev.Accepted("r1", ev.Secret("x"), "virtual_balance", ev.Answer("accepted", 202, "{}"))
        await ledger.record(first.job_id, first.fence, accepted)
        await ledger.record(first.job_id, first.fence, ev.BecameUnreachable("gone"))
        await ledger.record(second.job_id, second.fence, bench.say.unknown())
        bench.provider.balances_say.extend([ev.Balance(OPENING - CEILING, 1, "agent")] * 2)
        audit = QuietAudit(
            ledger,
            bench.provider,
            clock=bench.clock,
            policy=bench.policy,
            post_deadline_s=60,
            smallest_price_microusd=50_000,
        )

        async def settle() -> None:
            await bench.clock.sleep(bench.policy.freeze_s + 60 + bench.policy.refund_settle_s / 2)
            assert bench.provider.balances == 1, "the poll must come between the readings"
            await ledger.record(first.job_id, first.fence, bench.say.finished(400_000))

        poll = asyncio.create_task(settle())
        closed = await audit.run(asyncio.Event, lambda _: None)
        await poll
        assert bench.provider.balances == 2
        return closed

    assert asyncio.run(night()) == []
    assert bench.states() == {"matched": 1, "in_doubt": 1}


def give_up_then_doubt_again(bench: Any, *, audit_first: bool) -> None:
    """Call a is taken silently and given up; its pre-charge comes back when call b is taken silently."""
    provider, ledger = bench.provider, bench.ledger

    def taken_silently(call: Any) -> ev.PostEvent:
        provider.taken_microusd += call.ceiling_microusd
        return bench.say.unknown()

    def taken_while_a_is_refunded(call: Any) -> ev.PostEvent:
        provider.taken_microusd -= CEILING
        return taken_silently(call)

    bench.leads(1, "a")
    provider.posts_say.append(taken_silently)
    bench.run(audit=audit_first)
    ledger.write_off(ledger.doubts(), resend=False)
    bench.leads(1, "b")
    provider.posts_say.append(taken_while_a_is_refunded)
    bench.run()


def test_the_refund_of_a_group_written_off_at_its_gap_proves_nothing(bench: Any) -> None:
    give_up_then_doubt_again(bench, audit_first=True)
    assert len(bench.provider.posts) == 2, "b was sent again though the provider had taken it"
    assert bench.states() == {"lost": 1, "in_doubt": 1}


def test_an_opening_read_while_a_given_up_call_may_be_refunded_proves_nothing(bench: Any) -> None:
    give_up_then_doubt_again(bench, audit_first=False)
    assert len(bench.provider.posts) == 2, "b was sent again though the provider had taken it"
    assert bench.states() == {"lost": 1, "in_doubt": 1}


def test_an_opening_is_not_read_while_the_last_refund_may_still_be_on_its_way(bench: Any) -> None:
    bench.leads(1)
    bench.run()
    assert not bench.ledger.may_rebase()
    bench.clock.start = bench.clock.start.replace(year=bench.clock.start.year + 1)
    assert bench.ledger.may_rebase()


def test_the_balance_proves_nothing_about_jobs_that_are_not_paid_from_it(bench: Any) -> None:
    def on_chain(call: Any) -> ev.PostEvent:
        event = bench.provider.accept(call)
        return ev.Accepted(event.remote_job_id, event.bearer, "x402_upto", event.answer)

    bench.leads(2)
    bench.provider.posts_say.extend([on_chain, bench.say.unknown()])
    bench.run()
    assert bench.states() == {"matched": 1, "in_doubt": 1}


def test_another_agents_balance_proves_nothing(bench: Any) -> None:
    """The key was changed between two runs: what the new one shows is no evidence for the old one's calls."""
    bench.leads(2)
    bench.provider.posts_say.extend([bench.say.unknown()] * 2)
    assert bench.run(audit=False, concurrency=1) == "finished"
    bench.provider.balances_say.append(ev.Balance(OPENING, 1, "another"))
    assert bench.run() == "finished"
    assert bench.states() == {"in_doubt": 2}
    assert bench.conclusions() == [
        "This is the balance of another; the opening was that of agent. A person decides."
    ]
    # The same agent's balance, the same amount: a proof.
    assert bench.run() == "finished"
    assert bench.states() == {"matched": 2}


def test_a_wall_clock_that_jumps_ahead_ends_no_freeze(bench: Any) -> None:
    """A call lands late, within the freeze; meanwhile the machine's clock was set two hours ahead."""
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())
    landed: list[float] = []

    async def clock_is_set() -> None:
        await bench.until(lambda: bench.states() == {"in_doubt": 1})
        bench.clock.start += timedelta(hours=2)
        await bench.clock.sleep(bench.policy.freeze_s - 60)
        bench.provider.taken_microusd += CEILING
        landed.append(bench.clock.monotonic())

    assert bench.run(beside=clock_is_set) == "finished"
    assert landed
    assert bench.states() == {"in_doubt": 1}, "it was not proved free and sent again"
    assert len(bench.provider.posts) == 1


def test_the_freeze_of_an_earlier_runs_doubt_goes_on_where_it_was(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())
    assert bench.run(audit=False) == "finished"
    bench.clock.advance(bench.policy.freeze_s / 2)
    before = bench.clock.monotonic()
    assert bench.run(post_deadline_s=60.0) == "finished"
    sent_again = bench.provider.posted_at[1] - before
    assert bench.policy.freeze_s / 2 + 50 < sent_again < bench.policy.freeze_s / 2 + 70
