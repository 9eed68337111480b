"""A run does not stop while something is left that it could still send, nor wait for what is not its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import events as ev
from ledger.api.gate import Gate
from ledger.orders import Options
from ledger.runner import Runner
from ledger.states import State, StopReason
from ledger.store import inbox
from ledger.store.claims import ClaimRules
from ledger.store.enqueue import Asked
from ledger.store.exposure import Caps
from ledger.store.selection import Selection

CEILING = 1_500_000
DONE = {"status": "completed", "charged_usd": 0.42, "result": {"matched": True}}


def answered(_: Any) -> ev.PostEvent:
    verdict = ev.Verdict(State.MATCHED, True, True, None, 400_000, None, "{}")  # noqa: FBT003 - as the wire has them
    return ev.Answered(verdict, ev.Answer("answered", 200, "{}"))


def test_a_lead_at_its_own_cap_does_not_hide_that_the_money_is_short(bench: Any) -> None:
    """`budget` would end the chain: the next run would have all of --budget again."""
    bench.leads(3)
    bench.run(selection=Selection(lead_ids=(1,)))
    bench.wish("retry", job_ids=(1,))
    bench.ledger.take_inbox()
    bench.provider.posts_say.extend([bench.say.no_money()] * 5)
    bench.provider.balances_say.extend([ev.Balance(100_000, 1, "agent")] * 20)
    caps = Caps(chain_microusd=50_000_000, lead_microusd=1_600_000)
    assert bench.run(caps, balance_microusd=100_000_000) is StopReason.NO_FUNDS
    bench.prepare(caps)
    assert bench.sql("SELECT chain_id FROM runs ORDER BY id DESC LIMIT 2") == [(2,), (2,)]
    bench.ledger.end_run(StopReason.INTERRUPTED)


def test_a_lead_at_its_own_cap_is_looked_at_again_when_money_comes_back(bench: Any) -> None:
    """Its job on one route holds $1.50 of a cap of $2.00 and costs $0.40: then the other route's fits."""
    bench.leads(1)
    first, ledger = bench.prepare(audit=False), bench.ledger

    async def left_waiting() -> None:
        running = asyncio.create_task(first.run())
        await bench.until(lambda: bench.states() == {"waiting": 1})
        first.stop()
        await running

    asyncio.run(left_waiting())
    ledger.end_run(StopReason.INTERRUPTED)
    caps, route = Caps(lead_microusd=2_000_000), "enrich/lead-session"
    ledger.begin_run(origin="http://127.0.0.1:9", settings={}, caps=caps)
    ledger.enqueue(route, "async", Selection(), lambda _, lead: Asked("{}", lead["company"]))
    options = Options(ClaimRules(route, "async", CEILING, caps))
    gate = Gate(bench.clock, 5, chance=lambda: 0.5)
    second = Runner(ledger, bench.provider, gate, clock=bench.clock, policy=bench.policy, options=options)
    assert asyncio.run(second.run()) is StopReason.FINISHED
    ledger.end_run(StopReason.FINISHED)
    assert bench.states() == {"matched": 2}


def test_a_reading_that_fails_once_is_no_shortage(bench: Any) -> None:
    bench.leads(8)
    bench.provider.balances_say.append(ev.BalanceUnknown("http_502"))
    assert bench.run(balance_microusd=1_600_000) is StopReason.FINISHED
    assert bench.states() == {"matched": 8}


def test_a_call_given_up_meanwhile_is_asked_after_until_its_answer_comes(bench: Any) -> None:
    """Unreachable, then written off by a person, then the provider says that it is still at work on it."""
    bench.leads(2)
    provider, look = bench.provider, bench.provider.look
    provider.work_s = 3000.0
    gone = iter([bench.say.gone()] * 5)

    def first_gone(job: Any) -> ev.PollEvent:
        return next(gone, None) or look(job) if job.job_id == 1 else look(job)

    provider.look = first_gone

    async def give_up() -> None:
        await bench.until(lambda: "in_doubt" in bench.states(), 2_000_000)
        body = {"doubts": [[1, 1]], "choice": "write-off"}
        inbox.drop(bench.ledger.path, "resolve", body, now=bench.clock.now())

    bench.run(beside=give_up, audit=False)
    assert bench.sql("SELECT state, reason FROM jobs WHERE id = 1") == [("matched", "late_answer")]


def test_nobody_is_silent_when_nobody_is_asked(bench: Any) -> None:
    """One poll fails, a delivery settles its job: half an hour of answered POSTs is not `unreachable`."""
    bench.leads(60)
    provider = bench.provider
    provider.post_s = 10.0
    provider.polls_say.append(ev.PollFailed("http_502"))
    provider.posts_say.extend([provider.accept, *[answered] * 100])

    async def deliver() -> None:
        await bench.until(lambda: len(provider.polls) >= 1, 200_000)
        bench.deliver(job_id="remote-1-1", **DONE)

    assert bench.run(beside=deliver, concurrency=1, audit=False) is StopReason.FINISHED
    assert bench.states() == {"matched": 60}


def test_a_selective_run_waits_for_no_job_of_others(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say.append(bench.say.throttled(900.0))
    runner = bench.prepare(selection=Selection(lead_ids=(1,)), audit=False)

    async def stopped_early() -> None:
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: bench.provider.posts and not bench.provider.in_air)
        runner.stop()
        await running

    asyncio.run(stopped_early())
    bench.ledger.end_run(StopReason.INTERRUPTED)
    before = bench.clock.monotonic()
    assert bench.run(selection=Selection(lead_ids=(2,))) is StopReason.FINISHED
    assert bench.clock.monotonic() - before < 100


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_limit_holds_whatever_is_queued_meanwhile(bench: Any, verb: str) -> None:
    bench.leads(12)
    if verb == "retry":
        bench.run(selection=Selection(lead_ids=tuple(range(1, 7))))
    bench.prepare()
    bench.ledger.end_run(StopReason.INTERRUPTED)
    if verb == "resume":
        bench.wish("pause", job_ids=tuple(range(3, 13)))
        bench.ledger.take_inbox()
    before = len(bench.provider.posts)
    polled = len(bench.provider.polls)

    async def more() -> None:
        await bench.until(lambda: len(bench.provider.polls) > polled, 200_000)
        bench.wish(verb, job_ids=tuple(range(3, 7)))

    assert bench.run(selection=Selection(limit=2), beside=more) is StopReason.LIMIT
    assert len(bench.provider.posts) - before == 2
