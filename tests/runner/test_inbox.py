"""A run and its inbox: what comes in while it is busy, while it waits, and just before it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import events as ev
from ledger.states import StopReason
from ledger.store import inbox
from ledger.store.claims import ClaimRules, claim
from ledger.store.exposure import Caps

DONE = {"status": "completed", "charged_usd": 0.42, "result": {"matched": True}}


def empty(bench: Any) -> bool:
    return inbox.waiting(bench.ledger.path) == []


def test_what_lies_there_at_the_start_is_done_first(bench: Any) -> None:
    bench.leads(3)
    runner = bench.prepare()
    bench.wish("cancel", lead_ids=(1,))
    assert asyncio.run(runner.run()) is StopReason.FINISHED
    assert bench.states() == {"cancelled": 1, "matched": 2}
    assert [call.job_id for call in bench.provider.posts] == [2, 3]
    assert empty(bench)


def test_a_pause_holds_before_the_next_claim_and_a_resume_makes_the_run_go_on(bench: Any) -> None:
    bench.leads(20)
    bench.provider.work_s = 30

    async def beside() -> None:
        await bench.until(lambda: len(bench.provider.posts) >= 5)
        sent = len(bench.provider.posts)
        bench.wish("pause")
        await bench.clock.sleep(3)
        assert len(bench.provider.posts) <= sent + 5, "at most the claim that was on its way"
        paused = bench.one("SELECT COUNT(*) FROM jobs WHERE paused_at IS NOT NULL")
        assert paused == 20 - len(bench.provider.posts)
        bench.wish("resume")

    assert bench.run(beside=beside, concurrency=5) is StopReason.FINISHED
    assert bench.states() == {"matched": 20}
    assert empty(bench)


def test_a_cancel_in_the_middle_of_the_run(bench: Any) -> None:
    bench.leads(50)

    async def beside() -> None:
        await bench.until(lambda: len(bench.provider.posts) >= 5)
        bench.wish("cancel")

    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.states()["cancelled"] + bench.states()["matched"] == 50
    assert bench.states()["cancelled"] > 30
    assert bench.states()["matched"] == len(bench.provider.posts)


def test_a_retry_that_comes_while_the_last_job_is_polled_makes_it_go_on(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say.append(bench.say.refused())
    bench.provider.work_s = 60

    async def beside() -> None:
        await bench.until(lambda: bench.states().get("failed", 0) == 1)
        await bench.clock.sleep(5)
        bench.wish("retry")

    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.states() == {"failed": 1, "matched": 2}
    assert empty(bench)


def test_a_retry_that_comes_with_the_last_answer_is_not_left_behind(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say.append(bench.say.refused())

    def last(job: Any) -> Any:
        answer = bench.provider.look(job)
        if isinstance(answer, ev.Finished) and not bench.sql("SELECT * FROM intents"):
            bench.wish("retry")
        return answer

    bench.provider.polls_say.extend([last] * 50)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"failed": 1, "matched": 2}
    assert empty(bench)


def test_what_comes_while_a_stopped_run_drains_is_carried_out_before_it_ends(bench: Any) -> None:
    bench.leads(5)
    bench.provider.post_s = 20

    async def beside() -> None:
        await bench.until(lambda: len(bench.provider.posts) >= 2)
        bench.runner.stop()
        await bench.clock.sleep(5)
        bench.wish("cancel")

    assert bench.run(beside=beside, concurrency=2) is StopReason.INTERRUPTED
    assert bench.states() == {"waiting": 2, "cancelled": 3}
    assert empty(bench)


def test_a_delivery_settles_a_waiting_job_without_a_poll(bench: Any) -> None:
    bench.leads(1)
    bench.provider.work_s = 10_000

    async def beside() -> None:
        await bench.until(lambda: bench.states().get("waiting", 0) == 1)
        bench.deliver(job_id="remote-1-1", **DONE)

    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.states() == {"matched": 1}
    assert bench.runner.progress.charged_microusd == 420_000
    assert bench.runner.progress.final == {"matched": 1}
    assert bench.runner.poller.waiting == 0
    assert bench.clock.monotonic() < 60


def test_a_delivery_without_a_result_makes_the_poller_ask_at_once(bench: Any) -> None:
    bench.leads(1)
    bench.provider.work_s = 100
    at = []

    async def beside() -> None:
        await bench.until(lambda: bench.states().get("waiting", 0) == 1)
        await bench.clock.sleep(101)
        at.append(bench.clock.monotonic())
        bench.deliver(job_id="remote-1-1")

    bench.with_policy(poll_min_s=1_000.0, poll_max_s=1_000.0)
    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.clock.monotonic() - at[0] < 5, "not at the pace of a thousand seconds"


def test_a_delivery_that_comes_while_its_job_is_polled_is_settled_once(bench: Any) -> None:
    bench.leads(1)
    bench.provider.poll_s = 30

    async def beside() -> None:
        await bench.until(lambda: bench.provider.polling == 1)
        bench.deliver(job_id="remote-1-1", **DONE)

    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.money("charge") == 420_000
    assert bench.one("SELECT COUNT(*) FROM results") == 1


def test_a_delivery_revives_a_doubt_and_the_audit_need_not_wait(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())

    async def beside() -> None:
        await bench.until(lambda: bench.states().get("in_doubt", 0) == 1)
        key = bench.one("SELECT idempotency_key FROM attempts")
        bench.provider.due["remote-9"] = bench.clock.monotonic() + 10
        bench.deliver(job_id="remote-9", source_ref=key)

    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.states() == {"matched": 1}
    assert bench.clock.monotonic() < 1_000, "the freeze alone is 1,200 s"
    assert len(bench.provider.posts) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_the_one_unknown_job_ends_the_one_doubt_only_where_the_balance_is_ours_alone(
    bench: Any, alone: bool
) -> None:
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())

    async def beside() -> None:
        await bench.until(lambda: bench.states().get("in_doubt", 0) == 1)
        bench.deliver(job_id="remote-9", **DONE)

    assert bench.run(beside=beside, alone=alone) is StopReason.FINISHED
    assert bench.one("SELECT COUNT(*) FROM transitions WHERE reason = 'delivery_evidence'") == alone
    assert len(bench.provider.posts) == (1 if alone else 2), "else the audit decides"


def test_a_person_who_gives_up_a_doubt_during_the_audit_makes_the_balance_prove_nothing(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say.extend([bench.say.unknown(), bench.say.unknown()])
    bench.with_policy(freeze_s=5.0)

    async def beside() -> None:
        await bench.until(lambda: bench.provider.balances == 1)  # the first of two readings
        body = {"doubts": [[1, 1]], "choice": "write-off"}
        inbox.drop(bench.ledger.path, "resolve", body, now=bench.clock.now())

    opening = ev.Balance(99_000_000, 1, "agent")  # a gap of one dollar: a second reading follows
    bench.provider.balances_say.extend([opening, ev.Balance(100_000_000, 1, "agent")])
    assert bench.run(beside=beside) is StopReason.FINISHED
    assert bench.states() == {"lost": 1, "in_doubt": 1}, "else the other one would be proved free"


def test_deliveries_in_a_flood_do_not_keep_the_run_from_its_work(bench: Any) -> None:
    bench.leads(3)
    for number in range(inbox.AT_ONCE_MAX + 50):
        bench.deliver(job_id=f"stranger-{number}", **DONE)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 3}
    assert bench.one("SELECT COUNT(*) FROM deliveries") == inbox.AT_ONCE_MAX + 50
    assert empty(bench)


def test_a_run_that_finds_nothing_in_its_inbox_writes_nothing(bench: Any) -> None:
    bench.leads(1)
    bench.run()
    commits = bench.rows()
    assert bench.ledger.take_inbox() == []
    assert bench.rows() == commits
    assert not inbox.inbox_path(bench.ledger.path).exists()


@pytest.mark.parametrize("came", ["before", "after"])
def test_a_verified_answer_in_the_inbox_is_not_paid_for_again(bench: Any, came: str) -> None:
    """A person's `--resend` is carried out before or after the first call's delivery was dropped."""
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())
    bench.run(audit=False)
    assert bench.states() == {"in_doubt": 1}
    sent = bench.one("SELECT idempotency_key FROM attempts")
    decision = {"doubts": [[1, 1]], "choice": "resend"}
    if came == "before":
        bench.deliver(job_id="r1", source_ref=sent, **DONE)
    inbox.drop(bench.ledger.path, "resolve", decision, now=bench.clock.now())
    bench.ledger.take_inbox()
    if came == "after":
        bench.deliver(job_id="r1", source_ref=sent, **DONE)
    bench.run(audit=False)
    assert len(bench.provider.posts) == 1
    assert bench.states() == ({"matched": 1} if came == "before" else {"matched": 1, "queued": 1})
    assert bench.money("charge") + bench.money("adjust") == 420_000


def test_an_answer_kept_before_the_crash_leaves_the_audit_one_doubt(bench: Any) -> None:
    """Two POSTs in the air, one's delivery is kept; then a command without a profile recovers."""
    bench.leads(2)
    bench.with_policy(freeze_s=5.0)
    bench.prepare()
    ledger = bench.ledger
    rules = ClaimRules("enrich/websearch", "async", 1_500_000, Caps())
    with ledger.books.transaction():
        claim(ledger.books, rules, 2)
    bench.deliver(job_id="r1", source_ref=bench.one("SELECT idempotency_key FROM attempts"), **DONE)
    ledger.take_inbox()
    reads, ledger.books.read_delivery = ledger.books.read_delivery, None
    ledger.books.exposure = ledger.books.run_id = None
    ledger.recover()
    assert bench.states() == {"in_doubt": 2}
    ledger.books.read_delivery = reads
    bench.provider.taken_microusd = 420_000
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 2}, "the other one was proved free and asked again"
    assert len(bench.provider.posts) == 1
