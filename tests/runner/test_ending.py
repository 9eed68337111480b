"""However a run ends, what was paid for is on disk and counted, and nothing stays `submitting`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import events as ev
from ledger.states import StopReason


@pytest.mark.parametrize(("turns", "leave"), [(0, 0), (1, 0), (10, 3)])
def test_a_call_that_has_not_left_when_the_run_is_abandoned_is_no_doubt(
    bench: Any, turns: int, leave: int
) -> None:
    """Some loop turns after the claim: what has left is in doubt, what has not goes back to the queue."""
    bench.leads(3)
    bench.provider.post_s = 30.0
    runner = bench.prepare(audit=False)

    async def night() -> StopReason:
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.progress.submitted == 3)
        for _ in range(turns):
            await asyncio.sleep(0)
        runner.abandon()
        return await running

    assert asyncio.run(night()) is StopReason.INTERRUPTED
    bench.ledger.end_run(StopReason.INTERRUPTED)
    assert len(bench.provider.posts) == leave
    assert bench.states() == ({"in_doubt": 3} if leave else {"queued": 3})
    assert bench.clock.monotonic() < 30


def test_an_error_in_the_loop_lets_what_is_in_the_air_come_in(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.leads(8)
    bench.provider.post_s = 5.0

    def broken() -> str:
        raise ZeroDivisionError

    runner = bench.prepare(audit=False)
    monkeypatch.setattr(runner, "_why_not_sending", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(runner.run())
    assert bench.states() == {"waiting": 5, "queued": 3}
    assert bench.one("SELECT COUNT(*) FROM poll_bearers") == 5
    bench.ledger.end_run(StopReason.DISK)


def test_an_answer_that_is_being_written_when_the_run_stops_is_counted(bench: Any) -> None:
    bench.leads(5)
    record = bench.ledger.record

    async def stop_and_record(job_id: int, fence: int, event: Any, **rest: Any) -> Any:
        if isinstance(event, ev.Finished):
            bench.runner.stop()
            for _ in range(20):  # the loop wakes, ends and cancels the polls while this is written
                await asyncio.sleep(0)
        return await record(job_id, fence, event, **rest)

    bench.ledger.record = stop_and_record
    assert bench.run(audit=False) is StopReason.INTERRUPTED
    matched = bench.states()["matched"]
    assert matched >= 1
    assert dict(bench.runner.progress.final) == {"matched": matched}
    assert bench.runner.progress.charged_microusd == bench.money("charge")


def test_what_the_audit_closes_is_counted(bench: Any) -> None:
    """One call was charged and its answer lost: the run says so, and what it cost."""
    bench.leads(2)
    bench.with_policy(freeze_s=10.0, refund_settle_s=5.0)

    def charged_and_lost(_: Any) -> ev.PostEvent:
        bench.provider.taken_microusd += 300_000
        return bench.say.unknown()

    bench.provider.posts_say.append(charged_and_lost)
    assert bench.run(concurrency=1) is StopReason.FINISHED
    assert bench.states() == {"lost": 1, "matched": 1}
    assert dict(bench.runner.progress.final) == {"lost": 1, "matched": 1}
    assert bench.runner.progress.charged_microusd == bench.money("charge") == 300_000 + bench.provider.cost


def test_leads_that_opted_out_since_are_counted_as_skipped(bench: Any) -> None:
    bench.leads(3)
    runner = bench.prepare(audit=False)
    bench.ledger.books.connection.execute("UPDATE leads SET suppressed = 1 WHERE id = 2")
    asyncio.run(runner.run())
    assert dict(runner.progress.final) == {"skipped": 1, "matched": 2}
    bench.ledger.end_run(StopReason.FINISHED)
