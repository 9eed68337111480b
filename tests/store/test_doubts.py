"""Conformance: a doubt ends by evidence or by a person, and the books are compared with the balance."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.clock import from_text
from ledger.errors import UsageProblem
from ledger.events import AuditCharged, Balance, Secret
from ledger.states import State, StopReason

HUNDRED = 100_000_000


def balance(microusd: int, digit: int = 1) -> Balance:
    return Balance(microusd, digit)


def doubtful(desk: Any, number: int) -> None:
    """`number` doubts in a run whose opening balance was a hundred dollars."""
    desk.ready(number)
    desk.ledger.note_balance("opening", balance(HUNDRED))
    desk.claim(number)
    for job_id in range(1, number + 1):
        desk.doubt(job_id)


def settle(desk: Any, job_id: int, cost: int | None) -> None:
    desk.record(job_id, desk.accepted())
    desk.record(job_id, desk.finished(cost))


def test_without_an_opening_there_is_nothing_to_compare(desk: Any) -> None:
    found = desk.ledger.balance_gap(balance(HUNDRED))
    assert (found.expected_microusd, found.gap_microusd) == (None, None)


def test_the_gap_is_what_is_expected_less_what_is_seen(desk: Any) -> None:
    desk.ready(3)
    desk.ledger.note_balance("opening", balance(HUNDRED))
    desk.claim(3)
    settle(desk, 1, 420_000)
    settle(desk, 2, 1_500_001)
    desk.doubt(3)
    desk.ledger.top_up(5_000_000)
    expected = HUNDRED - 420_000 - 1_500_001 + 5_000_000  # a doubt's hold is not subtracted
    found = desk.ledger.balance_gap(balance(expected - 7))
    assert (found.expected_microusd, found.gap_microusd, found.assumed_charges) == (expected, 7, 0)


def test_an_assumed_charge_counts_as_nothing_and_is_counted(desk: Any) -> None:
    desk.ready(1)
    desk.ledger.note_balance("opening", balance(HUNDRED))
    desk.claim()
    settle(desk, 1, None)
    found = desk.ledger.balance_gap(balance(HUNDRED - 9))
    assert (found.gap_microusd, found.assumed_charges) == (9, 1)


def test_a_late_answer_turns_an_assumed_charge_into_what_it_was(desk: Any) -> None:
    doubtful(desk, 1)
    desk.ledger.write_off(desk.ledger.doubts(), resend=False)
    assert desk.ledger.balance_gap(balance(HUNDRED)).assumed_charges == 1
    desk.record(1, desk.finished(420_000))
    found = desk.ledger.balance_gap(balance(HUNDRED - 420_000))
    assert (found.gap_microusd, found.assumed_charges) == (0, 0)


def test_a_late_answer_about_money_taken_before_the_opening_moves_nothing(desk: Any) -> None:
    doubtful(desk, 1)
    desk.ledger.write_off(desk.ledger.doubts(), resend=False)
    desk.ledger.note_balance("opening", balance(HUNDRED - 420_000))
    desk.record(1, desk.finished(420_000))
    assert desk.ledger.balance_gap(balance(HUNDRED - 420_000)).gap_microusd == 0


def test_a_new_opening_forgets_what_came_before_it(desk: Any) -> None:
    desk.ready(2)
    desk.ledger.note_balance("opening", balance(HUNDRED))
    desk.claim(2)
    settle(desk, 1, 420_000)
    noted = desk.ledger.note_balance("opening", balance(50))
    assert noted.gap_microusd == HUNDRED - 420_000 - 50  # shown, never booked
    settle(desk, 2, 40)
    assert desk.ledger.balance_gap(balance(10)).gap_microusd == 0


def test_the_digit_is_the_finest_that_any_reading_has_shown(desk: Any) -> None:
    assert desk.ledger.note_balance("opening", balance(HUNDRED, 10_000)).digit_microusd == 10_000
    assert desk.ledger.note_balance("reading", balance(HUNDRED, 100)).digit_microusd == 100
    assert desk.ledger.balance_gap(balance(HUNDRED, 1_000_000)).digit_microusd == 100


def test_each_look_at_the_balance_is_on_record(desk: Any) -> None:
    run = desk.begin()
    desk.ledger.note_balance("opening", balance(HUNDRED))
    desk.ledger.note_balance("reading", balance(HUNDRED - 3), "too early")
    columns = "run_id, kind, observed_microusd, expected_microusd, gap_microusd, conclusion"
    assert desk.sql(f"SELECT {columns} FROM balance_checks") == [
        (run, "opening", HUNDRED, None, None, None),
        (run, "reading", HUNDRED - 3, HUNDRED, 3, "too early"),
    ]


def test_the_freeze_counts_from_the_end_of_the_last_doubtful_post(desk: Any) -> None:
    assert desk.ledger.freeze_ends(1200) is None
    desk.ready(2)
    desk.claim(2)
    desk.doubt(1)
    desk.clock.advance(100)
    desk.doubt(2)
    last = from_text(desk.now()).timestamp()
    assert desk.ledger.freeze_ends(1200) == last + 1200


def test_proved_free_sends_every_doubt_back_and_releases_its_hold(desk: Any) -> None:
    doubtful(desk, 2)
    steps = desk.ledger.prove_free(balance(HUNDRED), "audit: gap 0")
    assert [(step.job_id, step.to_state) for step in steps] == [(1, State.QUEUED), (2, State.QUEUED)]
    assert desk.costs(1) == [("hold", desk.ceiling), ("release", desk.ceiling)]
    assert desk.sql("SELECT outcome, evidence FROM attempts WHERE id = 1") == [
        ("proved_free", "audit: gap 0")
    ]
    assert desk.sql("SELECT kind, gap_microusd, conclusion FROM balance_checks")[-1] == (
        "audit",
        0,
        "audit: gap 0",
    )
    assert [call.job_id for call in desk.claim(9).calls] == [1, 2]
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_job_proved_free_three_times_waits_for_a_person(desk: Any) -> None:
    doubtful(desk, 1)
    for _ in range(3):
        assert len(desk.ledger.prove_free(balance(HUNDRED), "audit")) == 1
        desk.claim()
        desk.doubt(1)
    assert desk.ledger.prove_free(balance(HUNDRED), "audit") == []
    assert (desk.state(1), desk.one("SELECT attempt FROM jobs")) == ("in_doubt", 4)
    assert desk.costs(1)[-1] == ("hold", desk.ceiling)


def test_proved_free_drops_the_bearer(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    (doubt,) = desk.ledger.doubts()
    desk.ledger.accept(doubt, "r-1", Secret("pb-1"))
    assert desk.one("SELECT COUNT(*) FROM poll_bearers") == 1
    desk.sql("UPDATE jobs SET state = 'in_doubt', reason = 'unreachable' WHERE id = 1")
    desk.ledger.prove_free(balance(HUNDRED), "audit")
    assert desk.one("SELECT COUNT(*) FROM poll_bearers") == 0


def test_what_the_audit_found_charged_is_lost_and_on_the_claims_list(desk: Any) -> None:
    doubtful(desk, 1)
    desk.record(1, AuditCharged(420_000, "audit: gap 0.42"))
    assert desk.costs(1) == [("hold", desk.ceiling), ("charge", 420_000), ("release", desk.ceiling - 420_000)]
    assert desk.sql("SELECT job_id, state, charged_usd, evidence FROM claims") == [
        (1, "lost", 0.42, "audit: gap 0.42")
    ]


def test_writing_off_charges_the_whole_hold_and_says_that_it_is_assumed(desk: Any) -> None:
    doubtful(desk, 3)
    assert desk.ledger.write_off(desk.ledger.doubts(2), resend=False) == desk.ceiling
    assert [desk.state(job) for job in (1, 2, 3)] == ["in_doubt", "lost", "in_doubt"]
    assert desk.sql("SELECT amount_microusd, assumed FROM costs WHERE kind = 'charge'") == [(desk.ceiling, 1)]
    assert desk.steps(2)[-1] == ("in_doubt", "lost", "written_off")
    assert desk.ledger.write_off(desk.ledger.doubts(), resend=False) == 2 * desk.ceiling
    assert desk.ledger.doubts() == []
    desk.ledger.end_run(StopReason.FINISHED)


def audited(desk: Any, doubts: int, gap: int) -> None:
    """Doubts of which an audit has found `gap` charged, without knowing which."""
    doubtful(desk, doubts)
    desk.ledger.note_balance("audit", balance(HUNDRED - gap), "a person decides")


def test_an_audited_gap_holds_until_something_is_booked(desk: Any) -> None:
    assert desk.ledger.audited_gap() is None
    audited(desk, 2, 420_000)
    assert desk.ledger.audited_gap() == 420_000
    desk.ledger.top_up(1)
    assert desk.ledger.audited_gap() is None
    for nothing in (HUNDRED + 1, HUNDRED + 2):
        desk.ledger.note_balance("audit", balance(nothing))
        assert desk.ledger.audited_gap() is None


def test_a_group_written_off_after_an_audit_books_its_gap_once(desk: Any) -> None:
    audited(desk, 3, 900_000)
    assert desk.ledger.write_off(desk.ledger.doubts(), resend=False) == 900_000
    for job in (1, 2, 3):
        assert (desk.state(job), desk.costs(job)[1:]) == ("lost", [("release", desk.ceiling)])
    assert desk.sql("SELECT amount_microusd, attempt_id FROM costs WHERE kind = 'unattributed'") == [
        (900_000, None)
    ]
    assert desk.ledger.balance_gap(balance(HUNDRED - 900_000)).gap_microusd == 0
    assert desk.ledger.books.exposure.chain_microusd == 900_000
    desk.ledger.end_run(StopReason.FINISHED)


@pytest.mark.parametrize(("gap", "charge"), [(420_000, 420_000), (1_500_001, 1_500_000)])
def test_one_of_a_group_written_off_after_an_audit_costs_the_gap_at_most_its_hold(
    desk: Any, gap: int, charge: int
) -> None:
    audited(desk, 2, gap)
    assert desk.ledger.write_off(desk.ledger.doubts(1), resend=False) == charge
    assert desk.sql("SELECT amount_microusd, assumed FROM costs WHERE kind = 'charge'") == [(charge, 1)]
    assert desk.state(2) == "in_doubt"
    desk.ledger.end_run(StopReason.FINISHED)


def test_some_of_a_group_share_the_audited_gap(desk: Any) -> None:
    audited(desk, 3, 2_000_000)
    assert desk.ledger.write_off(desk.ledger.doubts()[:2], resend=False) == 2_000_000
    assert [desk.costs(job)[1] for job in (1, 2)] == [("charge", 1_500_000), ("charge", 500_000)]


def test_the_one_doubt_that_an_audit_found_charged_is_lost_at_the_gap(desk: Any) -> None:
    doubtful(desk, 1)
    (doubt,) = desk.ledger.doubts()
    (step,) = desk.ledger.prove_charged(balance(HUNDRED - 420_000), doubt, 420_000, "audit")
    assert (step.to_state, desk.state(1)) == (State.LOST, "lost")
    assert desk.sql("SELECT kind, gap_microusd FROM balance_checks")[-1] == ("audit", 420_000)
    assert desk.ledger.balance_gap(balance(HUNDRED - 420_000)).gap_microusd == 0
    desk.ledger.end_run(StopReason.FINISHED)


def test_resend_closes_the_doubt_and_asks_anew_as_the_next_generation(desk: Any) -> None:
    doubtful(desk, 1)
    desk.ledger.write_off(desk.ledger.doubts(), resend=True)
    assert desk.steps(1)[-1] == ("in_doubt", "lost", "resent_by_person")
    assert desk.sql("SELECT generation, state, reason, attempt, request, lead_id FROM jobs WHERE id = 2") == [
        (2, "queued", "resent", 0, '{"company": "company 1"}', 1)
    ]
    assert desk.steps(2) == [("new", "queued", "resent")]
    desk.claim()
    desk.doubt(2)
    desk.ledger.write_off(desk.ledger.doubts(2), resend=True)
    assert desk.one("SELECT generation FROM jobs WHERE id = 3") == 3


def test_writing_off_is_all_or_nothing_also_in_the_running_totals(desk: Any) -> None:
    doubtful(desk, 2)
    desk.ledger.end_run(StopReason.INTERRUPTED)
    desk.begin(new_budget=True)
    found = desk.ledger.doubts()
    desk.ledger.accept(found[1], "r-1", None)
    with pytest.raises(Exception, match="cannot happen"):
        desk.ledger.write_off(found, resend=True)
    assert [desk.state(1), desk.state(2)] == ["in_doubt", "waiting"]
    assert desk.one("SELECT COUNT(*) FROM jobs") == 2
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_person_names_the_providers_job_id(desk: Any) -> None:
    doubtful(desk, 1)
    (doubt,) = desk.ledger.doubts(1)
    desk.ledger.accept(doubt, "r-1", Secret("pb-1"))
    assert desk.steps(1)[-1] == ("in_doubt", "waiting", "accepted_by_person")
    (job,) = desk.ledger.open_jobs()
    assert (job.remote_job_id, job.bearer, job.in_doubt) == ("r-1", Secret("pb-1"), False)
    assert desk.costs(1) == [("hold", desk.ceiling)]


def test_an_id_that_is_somebody_elses_is_refused(desk: Any) -> None:
    doubtful(desk, 2)
    one, two = desk.ledger.doubts()
    desk.ledger.accept(one, "r-1", None)
    with pytest.raises(UsageProblem, match=r"already the remote id of .* job 1"):
        desk.ledger.accept(two, "r-1", Secret("pb"))
    assert desk.state(2) == "in_doubt"
    assert desk.one("SELECT COUNT(*) FROM poll_bearers") == 0


def test_the_id_of_an_earlier_attempt_of_the_same_job_is_refused(desk: Any) -> None:
    doubtful(desk, 1)
    desk.ledger.accept(desk.ledger.doubts()[0], "r-1", None)
    desk.sql("UPDATE jobs SET state = 'in_doubt', reason = 'unreachable' WHERE id = 1")
    desk.ledger.prove_free(balance(HUNDRED), "audit")
    desk.claim()
    desk.doubt(1)
    with pytest.raises(UsageProblem, match="another attempt, of job 1"):
        desk.ledger.accept(desk.ledger.doubts()[0], "r-1", None)


def test_an_attempt_that_has_an_id_takes_no_other(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1"))
    desk.sql("UPDATE jobs SET state = 'in_doubt', reason = 'unreachable' WHERE id = 1")
    (doubt,) = desk.ledger.doubts()
    with pytest.raises(UsageProblem, match="already known to the provider as r-1"):
        desk.ledger.accept(doubt, "r-2", None)
    desk.ledger.accept(doubt, "r-1", None)
    assert desk.state(1) == "waiting"


@pytest.mark.parametrize(("job_id", "said"), [(1, "queued, not in doubt"), (9, "not in this ledger")])
def test_only_a_doubt_can_be_resolved(desk: Any, job_id: int, said: str) -> None:
    desk.ready(1)
    with pytest.raises(UsageProblem, match=said):
        desk.ledger.doubts(job_id)
