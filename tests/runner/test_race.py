"""A job that goes back to the queue and is claimed again in the same commit has two POSTs to account for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import events as ev
from ledger.states import State


@pytest.mark.parametrize("turns", range(12))
def test_nothing_is_in_the_air_when_a_run_ends(bench: Any, turns: int) -> None:
    """Job 1 is sent back some loop turns after job 2 was answered: whenever the claims meet, all drains."""
    bench.leads(2)
    runner = bench.prepare(concurrency=2, audit=False)
    provider = bench.provider
    answered = asyncio.Event()
    verdict = ev.Verdict(State.MATCHED, None, None, None, cost_microusd=1_500_000, error_code=None, body="{}")
    full_price = ev.Answered(verdict, ev.Answer("answered", 200, "{}"))

    async def submit(call: Any) -> ev.PostEvent:
        provider.in_air += 1
        try:
            if call.fence > 1:
                await bench.clock.sleep(30)
                return full_price
            if call.job_id == 2:
                await bench.clock.sleep(0.01)
                answered.set()
                return full_price
            await answered.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            return bench.say.no_money()
        finally:
            provider.in_air -= 1

    provider.submit = submit

    async def whole_run() -> Any:
        reason = await runner.run()
        # Here and not after the loop has ended, which cancels whatever was forgotten.
        assert provider.in_air == 0
        assert bench.sql("SELECT COUNT(*) FROM jobs WHERE state = 'submitting'") == [(0,)]
        return reason

    bench.ledger.end_run(asyncio.run(whole_run()))


def test_twenty_calls_in_a_row_without_an_answer_stop_the_run(bench: Any) -> None:
    bench.leads(60)
    bench.provider.posts_say.extend([bench.say.unknown()] * 60)
    assert bench.run(audit=False, concurrency=2) == "unreachable"
    assert 20 <= len(bench.provider.posts) <= 21, "before the whole list is in doubt"
    assert bench.gate.limit <= 2


def test_a_call_without_an_answer_does_not_raise_the_concurrency(bench: Any) -> None:
    bench.leads(10)
    bench.provider.posts_say.append(bench.say.throttled(1.0))
    bench.provider.posts_say.extend([bench.say.unknown()] * 9)
    bench.run(audit=False, concurrency=4)
    assert bench.gate.limit == 2
