"""What only the real provider can answer, played both ways: the answer we assume, and the other one.

`docs/reliability.md` lists these with what each costs if it is wrong. Where an assumption is wrong money can
be lost, but never unseen: the comparison with the balance names the amount to the micro-dollar.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from nights import LEADS, Night, settings

from ledger import events as ev
from ledger.api.profile import Profile
from ledger.states import StopReason
from ledger.store.disputes import compared
from ledger.store.ledger import Ledger
from ledger.testing import FakeClock

FREEZE_S = 1200.0


def profile(folder: Path, text: str) -> Profile:
    path = folder / "profile.toml"
    path.write_text(text, encoding="utf-8")
    return Profile.load(path)


def gap(night: Night) -> int:
    """What the provider has taken and our books do not know, once its books stand still."""
    night.clock.advance(3 * FREEZE_S)
    night.sandbox.provider.catch_up()
    shown = ev.Balance(night.sandbox.provider.books.balance_microusd, 1)
    found = compared(night.ledger.books.connection, shown)
    assert found.gap_microusd is not None
    return found.gap_microusd


def unknown_charges(night: Night) -> int:
    """What the provider charged for calls that it never told us of."""
    known = {remote for (remote,) in night.sql("SELECT remote_job_id FROM attempts")}
    return sum(
        one["charged_microusd"]
        for one in night.books()["submissions"]
        if one["remote_job_id"] not in known and one["mode"] == "async"
    )


def charged_twice(night: Night) -> int:
    return sum(group["charged"] - 1 for group in night.books()["duplicates"] if group["charged"] > 1)


# --- how long may a received POST still act? (freeze_s) ---


@pytest.mark.parametrize(("late_s", "twice"), [(FREEZE_S / 2, False), (FREEZE_S * 3, True)])
def test_a_post_that_lands_late(ledger: Ledger, clock: FakeClock, late_s: float, *, twice: bool) -> None:
    """Within the freeze nothing is paid twice. Later than the freeze it is, and the balance says so."""
    night = Night(ledger, clock, settings(faults={"late_accept": 0.2}, late_accept_s=late_s))
    night.run()
    night.run()
    assert night.books()["faults"]["late_accept"] > 0
    found = gap(night)
    assert (charged_twice(night) > 0) is twice
    if twice:
        assert found == unknown_charges(night) > 0


# --- can a 4xx or a 429 cost money? ---


@pytest.mark.parametrize("fault", ["refuse_charged", "throttle_charged"])
def test_a_refusal_that_costs_is_a_gap_to_the_micro_dollar(
    ledger: Ledger, clock: FakeClock, fault: str
) -> None:
    night = Night(ledger, clock, settings(faults={fault: 0.3}, fault_limits={fault: 3}))
    assert night.run() is StopReason.FINISHED
    assert night.books()["faults"] == {fault: 3}
    assert gap(night) == unknown_charges(night) > 0
    # A request that was refused is not sent again; one that was throttled is, and so may be paid twice.
    assert (charged_twice(night) > 0) is (fault == "throttle_charged")


@pytest.mark.parametrize("fault", ["throttle", "no_money"])
def test_a_refusal_that_costs_nothing_leaves_no_gap(ledger: Ledger, clock: FakeClock, fault: str) -> None:
    night = Night(ledger, clock, settings(faults={fault: 0.2}))
    night.run()
    assert (gap(night), charged_twice(night)) == (0, 0)


# --- is a repeated question free? ---


@pytest.mark.parametrize("cache", ["off", "free", "billed"])
def test_a_question_asked_again(ledger: Ledger, clock: FakeClock, cache: str) -> None:
    """After a proof that a call cost nothing it goes out again: whatever the cache, both books agree."""
    night = Night(ledger, clock, settings(cache=cache, faults={"error_500_before": 0.3}))
    assert night.run() is StopReason.FINISHED
    night.check()
    again = ledger.books.connection.execute("SELECT COUNT(*) FROM attempts").fetchone()[0]
    assert again > LEADS
    assert (gap(night), charged_twice(night)) == (0, 0)


# --- are idempotency keys honoured? ---


@pytest.mark.parametrize("honours", [True, False])
def test_keys_that_the_profile_takes_for_honoured(
    ledger: Ledger, clock: FakeClock, tmp_path: Path, *, honours: bool
) -> None:
    """The profile says that keys are honoured. Where they are not, that setting pays twice, and is seen."""
    told = profile(tmp_path, "honours_idempotency_key = true\n")
    sandbox = settings(honours_keys=honours, faults={"lose_answer": 0.2})
    night = Night(ledger, clock, sandbox, profile=told)
    night.run()
    assert night.books()["faults"]["lose_answer"] > 0
    assert (charged_twice(night) > 0) is (not honours)
    assert (gap(night) > 0) is (not honours)


# --- may the account's key poll? ---


@pytest.mark.parametrize("may", [True, False])
def test_polls_without_a_bearer(ledger: Ledger, clock: FakeClock, *, may: bool) -> None:
    """A 202 without a bearer is polled with the account's key; where that may not, it ends in doubt."""
    night = Night(ledger, clock, settings(account_key_polls=may, faults={"missing_bearer": 0.2}))
    night.run()
    states = dict(night.sql("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
    assert (states.get("in_doubt", 0) + states.get("lost", 0) > 0) is (not may)
    assert charged_twice(night) == 0
    night.check()


# --- is the balance ours alone? ---


@pytest.mark.parametrize("spent", [0, 700_000])
def test_somebody_else_spends_from_the_balance(
    ledger: Ledger, clock: FakeClock, tmp_path: Path, spent: int
) -> None:
    """It looks like the charge of some doubt: nothing is proved free then, and nothing is sent again."""
    shared = profile(tmp_path, "balance_exclusive = false\n")
    night = Night(ledger, clock, settings(faults={"error_500_before": 0.2}), profile=shared)
    night.run()
    doubts = "SELECT COUNT(*) FROM jobs WHERE state = 'in_doubt'"
    ((before,),) = night.sql(doubts)
    assert before > 1, "where the balance is shared the audit is off"
    night.sandbox.provider.books.balance_microusd -= spent
    night.sandbox.provider.faults.rates = {}
    night.profile = Profile.load()
    night.run()
    assert night.sql(doubts) == [(before if spent else 0,)]
    assert charged_twice(night) == 0
