"""The quiet balance audit: what a balance proves about doubts, and what it leaves to a person."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from ledger import events as ev
from ledger.states import StopReason
from ledger.store.exposure import Caps

CEILING = 1_500_000
POST_DEADLINE_S = 60.0


def _doubts(bench: Any, number: int, *, charged_microusd: int = 0, others: int = 0) -> None:
    """A run that leaves `number` doubts, for which the provider took `charged_microusd` together."""
    bench.leads(number + others)
    bench.provider.posts_say = deque([bench.say.unknown()] * number)
    bench.run(audit=False)
    bench.provider.taken_microusd += charged_microusd


def test_without_a_gap_every_doubt_was_free_and_is_sent_again(bench: Any) -> None:
    _doubts(bench, 3, others=2)
    assert bench.states() == {"in_doubt": 3, "matched": 2}
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 5}
    assert len(bench.provider.posts) == 5 + 3
    assert bench.one("SELECT COUNT(*) FROM attempts WHERE outcome = 'proved_free'") == 3
    assert bench.money("hold") == bench.money("charge") + bench.money("release")


def test_the_freeze_is_waited_out_before_the_balance_is_believed(bench: Any) -> None:
    _doubts(bench, 1)
    ended = bench.clock.monotonic()
    assert bench.run() is StopReason.FINISHED
    resent = bench.provider.posted_at[1]
    assert resent - ended >= bench.policy.freeze_s + POST_DEADLINE_S - 1


def test_a_gap_with_one_doubt_is_its_charge_and_its_result_is_lost(bench: Any) -> None:
    _doubts(bench, 1, charged_microusd=700_000, others=3)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"lost": 1, "matched": 3}
    doubt = bench.sql(
        "SELECT c.kind, c.amount_microusd, c.assumed FROM costs c JOIN attempts a ON a.id = c.attempt_id "
        "JOIN jobs j ON j.id = a.job_id WHERE j.state = 'lost' ORDER BY c.id"
    )
    assert doubt == [("hold", CEILING, 0), ("charge", 700_000, 0), ("release", 800_000, 0)]
    assert bench.sql("SELECT reason FROM jobs WHERE state = 'lost'") == [("audit_charged",)]
    assert bench.provider.balances == 2
    assert len(bench.provider.posts) == 4


def test_a_gap_is_not_believed_when_the_second_reading_disagrees(bench: Any) -> None:
    _doubts(bench, 1, charged_microusd=700_000)
    bench.provider.balances_say = deque([ev.Balance(99_000_000, 1), ev.Balance(99_100_000, 1)])
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1}
    assert bench.money("charge") == 0


def test_a_refund_that_comes_late_is_waited_for(bench: Any) -> None:
    _doubts(bench, 1)
    bench.provider.balances_say = deque([ev.Balance(99_000_000, 1)])
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}


def test_exactly_the_ceiling_is_a_pre_charge_still_out_and_no_charge(bench: Any) -> None:
    _doubts(bench, 1, charged_microusd=CEILING)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1}


@pytest.mark.parametrize(("gap", "at_least"), [(700_000, 1), (CEILING + 1, 2), (2 * CEILING, 2)])
def test_a_gap_with_several_doubts_books_nothing_and_says_at_least_how_many(
    bench: Any, gap: int, at_least: int
) -> None:
    _doubts(bench, 3, charged_microusd=gap)
    costs = bench.rows()["costs"]
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 3}
    assert bench.rows()["costs"] == costs
    assert f"at least {at_least} of 3 doubtful calls were charged" in bench.conclusions()[-1]
    assert "at least" in bench.runner.progress.note
    assert bench.one("SELECT gap_microusd FROM balance_checks ORDER BY id DESC LIMIT 1") == gap


def test_a_balance_above_the_books_is_inconclusive_and_asks_for_a_top_up(bench: Any) -> None:
    _doubts(bench, 1, charged_microusd=-5_000_000)
    costs = bench.rows()["costs"]
    assert bench.run() is StopReason.FINISHED
    assert (bench.states(), bench.rows()["costs"]) == ({"in_doubt": 1}, costs)
    assert "leadledger balance --top-up" in bench.conclusions()[-1]
    bench.ledger.top_up(5_000_000)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}


def test_a_balance_without_enough_digits_proves_nothing(bench: Any) -> None:
    bench.provider.digit_microusd = 1_000_000
    _doubts(bench, 1)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1}
    assert "too coarsely" in bench.conclusions()[-1]


def test_a_balance_that_cannot_be_read_leaves_the_doubt(bench: Any) -> None:
    _doubts(bench, 1)
    bench.provider.balances_say = deque([ev.BalanceUnknown("http_500")] * 9)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1}


def test_after_three_proofs_a_job_is_left_to_a_person(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say = deque([bench.say.unknown()] * 99)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"in_doubt": 1}
    assert len(bench.provider.posts) == 1 + bench.policy.proved_free_max
    assert bench.one("SELECT COUNT(*) FROM attempts WHERE outcome = 'proved_free'") == 3


def test_a_stop_ends_the_wait_for_the_freeze(bench: Any) -> None:
    _doubts(bench, 1)

    async def stop() -> None:
        await bench.until(lambda: bench.runner.progress.phase == "audit")
        bench.runner.stop()

    assert bench.run(beside=stop) is StopReason.INTERRUPTED
    assert bench.states() == {"in_doubt": 1}
    assert bench.provider.balances == 0


@pytest.mark.parametrize(
    ("gones", "balance_s"), [(2, 0.0), (24, 100.0)], ids=["in the freeze", "during the second reading"]
)
def test_no_audit_concludes_anything_while_a_job_is_out_again(
    bench: Any, gones: int, balance_s: float
) -> None:
    """Two doubts; one is worked on again: its pre-charge is no gap of the other's."""
    bench.leads(1)
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    bench.run(audit=False)
    assert bench.states() == {"in_doubt": 1}
    bench.leads(1, "second")
    bench.provider.posts_say = deque([bench.say.unknown()])
    bench.provider.polls_say = deque([bench.say.gone()] * gones)
    bench.provider.balance_s = balance_s
    bench.provider.due = dict.fromkeys(bench.provider.due, bench.clock.monotonic() + 4000.0)
    assert bench.run(ceiling=2_000_000, concurrency=1) is StopReason.FINISHED
    assert bench.states() == {"matched": 2}
    # The one reading that counts comes when nothing is out; those before it, if any, were dropped.
    assert bench.sql("SELECT gap_microusd FROM balance_checks WHERE kind = 'audit'") == [(0,)]
    assert bench.provider.balances == (1 if gones == 2 else 3)


def test_a_cap_that_a_settled_doubt_frees_lets_the_run_go_on(bench: Any) -> None:
    bench.leads(1)
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    bench.run(audit=False)
    bench.leads(2, "second")
    bench.provider.polls_say = deque([bench.say.gone()] * 2)
    assert bench.run(Caps(total_microusd=CEILING + 900_000)) is StopReason.FINISHED
    assert bench.states() == {"matched": 3}
