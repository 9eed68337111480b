"""Every state times every event: a step of the table whose money adds up, nothing, or IllegalEvent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import events as ev
from ledger.errors import Bug, IllegalEvent
from ledger.machine import decide
from ledger.policy import Policy
from ledger.states import STEPS, Outcome, Reason, State
from ledger.transition import Job, Money, settle_money

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOLD = 1_500_000
POLICY = Policy()
ANSWER = ev.Answer("poll", 200, "{}")
DELIVERY = ev.Answer("delivery", None, "{}")


def verdict(state: State, cost: int | None) -> ev.Verdict:
    return ev.Verdict(state, state is State.MATCHED, None, None, cost, None, "{}")


MATCHED, NO_MATCH, FAILED = (
    verdict(State.MATCHED, 420_000),
    verdict(State.NO_MATCH, 0),
    verdict(State.FAILED, 0),
)
UNPRICED = verdict(State.MATCHED, None)
EVENTS: dict[str, ev.Event] = {
    "Accepted": ev.Accepted("r-1", ev.Secret("pb"), "virtual_balance", ev.Answer("accepted", 202, "{}")),
    "Answered matched": ev.Answered(MATCHED, ANSWER),
    "Answered no_match": ev.Answered(NO_MATCH, ANSWER),
    "Answered failed": ev.Answered(FAILED, ANSWER),
    "NotSent": ev.NotSent("connect_error"),
    "Refused": ev.Refused(422, "BAD_INPUT", "no", ANSWER),
    "NotAllowed": ev.NotAllowed(401, "BAD_KEY", "no", ANSWER),
    "NoMoney": ev.NoMoney("INSUFFICIENT", "no", ANSWER),
    "Throttled": ev.Throttled(30.0, ANSWER),
    "Unknown": ev.Unknown("read_timeout", None, None),
    "StillRunning": ev.StillRunning("running", known=True, answer=None),
    "Finished matched": ev.Finished(MATCHED, ANSWER),
    "Finished no_match": ev.Finished(NO_MATCH, ANSWER),
    "Finished failed": ev.Finished(FAILED, ANSWER),
    "Gone": ev.Gone(404, ANSWER),
    "PollFailed": ev.PollFailed("read_error"),
    "Delivered matched": ev.Delivered("r-1", MATCHED, DELIVERY, "delivery 1"),
    "Delivered no_match": ev.Delivered("r-1", NO_MATCH, DELIVERY, "delivery 1"),
    "Delivered failed": ev.Delivered("r-1", FAILED, DELIVERY, "delivery 1"),
    "Delivered unpriced": ev.Delivered("r-1", UNPRICED, DELIVERY, "delivery 1"),
    "Delivered sync": ev.Delivered(None, MATCHED, DELIVERY, "delivery 1"),
    "Delivered bare": ev.Delivered("r-1", None, DELIVERY, "delivery 1"),
    "Delivered nothing": ev.Delivered(None, None, DELIVERY, "delivery 1"),
    "Claimed": ev.Claimed(),
    "FoundAtStart": ev.FoundAtStart(),
    "BecameUnreachable": ev.BecameUnreachable("gone five times"),
    "SameKeyResend": ev.SameKeyResend(),
    "ProvedFree": ev.ProvedFree("audit"),
    "AuditCharged": ev.AuditCharged(420_000, "audit"),
    "WrittenOff": ev.WrittenOff(HOLD, assumed=True, evidence="person"),
    "WrittenOff resend": ev.WrittenOff(HOLD, assumed=True, evidence="person", resend=True),
    "AcceptedByPerson": ev.AcceptedByPerson("r-1", None, "person"),
    "Skip suppressed": ev.Skip("suppressed"),
    "Skip lacks_fields": ev.Skip("lacks_fields"),
    "Cancel": ev.Cancel(),
}

# state | event | to | reason | outcome of the attempt | charge release adjust (- the hold stays as it is)
EXPECTED = """
queued     | Claimed           | submitting | claimed             | -           | -
queued     | Skip suppressed   | skipped    | suppressed          | -           | -
queued     | Skip lacks_fields | skipped    | lacks_fields        | -           | -
queued     | Cancel            | cancelled  | cancelled_by_person | -           | -
submitting | Accepted          | waiting    | accepted            | accepted    | -
submitting | Answered matched  | matched    | answered            | answered    | 420000 1080000 0
submitting | Answered no_match | no_match   | answered            | answered    | 0 1500000 0
submitting | Answered failed   | failed     | provider_failed     | answered    | 0 1500000 0
submitting | NotSent           | queued     | not_sent            | not_sent    | 0 1500000 0
submitting | Refused           | failed     | refused             | refused     | 0 1500000 0
submitting | NotAllowed        | queued     | not_allowed         | not_allowed | 0 1500000 0
submitting | NoMoney           | queued     | no_money            | no_money    | 0 1500000 0
submitting | Throttled         | queued     | throttled           | throttled   | 0 1500000 0
submitting | Unknown           | in_doubt   | outcome_unknown     | in_doubt    | -
submitting | FoundAtStart      | in_doubt   | found_at_start      | in_doubt    | -
waiting    | Finished matched  | matched    | completed           | accepted    | 420000 1080000 0
waiting    | Finished no_match | no_match   | completed           | accepted    | 0 1500000 0
waiting    | Finished failed   | failed     | provider_failed     | accepted    | 0 1500000 0
waiting    | BecameUnreachable | in_doubt   | unreachable         | in_doubt    | -
waiting    | Delivered matched  | matched   | delivery_evidence   | accepted    | 420000 1080000 0
waiting    | Delivered no_match | no_match  | delivery_evidence   | accepted    | 0 1500000 0
waiting    | Delivered failed   | failed    | delivery_evidence   | accepted    | 0 1500000 0
waiting    | Delivered sync     | matched   | delivery_evidence   | answered    | 420000 1080000 0
in_doubt   | Delivered matched  | matched   | delivery_evidence   | accepted    | 420000 1080000 0
in_doubt   | Delivered no_match | no_match  | delivery_evidence   | accepted    | 0 1500000 0
in_doubt   | Delivered failed   | failed    | delivery_evidence   | accepted    | 0 1500000 0
in_doubt   | Delivered unpriced | matched   | delivery_evidence   | accepted    | 1500000 0 0
in_doubt   | Delivered sync     | matched   | delivery_evidence   | answered    | 420000 1080000 0
in_doubt   | Delivered bare     | waiting   | delivery_evidence   | accepted    | -
lost       | Delivered matched  | matched   | late_answer         | accepted    | 0 0 -1080000
lost       | Delivered no_match | no_match  | late_answer         | accepted    | 0 0 -1500000
lost       | Delivered failed   | failed    | late_answer         | accepted    | 0 0 -1500000
lost       | Delivered unpriced | matched   | late_answer         | accepted    | 0 0 0
lost       | Delivered sync     | matched   | late_answer         | answered    | 0 0 -1080000
in_doubt   | Finished matched  | matched    | poll_evidence       | accepted    | 420000 1080000 0
in_doubt   | Finished no_match | no_match   | poll_evidence       | accepted    | 0 1500000 0
in_doubt   | Finished failed   | failed     | poll_evidence       | accepted    | 0 1500000 0
in_doubt   | StillRunning      | waiting    | poll_evidence       | accepted    | -
in_doubt   | SameKeyResend     | submitting | same_key_resend     | -           | -
in_doubt   | ProvedFree        | queued     | proved_free         | proved_free | 0 1500000 0
in_doubt   | AuditCharged      | lost       | audit_charged       | lost        | 420000 1080000 0
in_doubt   | WrittenOff        | lost       | written_off         | lost        | 1500000 0 0
in_doubt   | WrittenOff resend | lost       | resent_by_person    | lost        | 1500000 0 0
in_doubt   | AcceptedByPerson  | waiting    | accepted_by_person  | accepted    | -
lost       | Finished matched  | matched    | late_answer         | accepted    | 0 0 -1080000
lost       | Finished no_match | no_match   | late_answer         | accepted    | 0 0 -1500000
lost       | Finished failed   | failed     | late_answer         | accepted    | 0 0 -1500000
"""
# Events that change nothing: a poll that says nothing new, or that comes after the matter was closed.
POLLS = {name for name in EVENTS if name.split()[0] in {"StillRunning", "Finished", "Gone", "PollFailed"}}
DELIVERIES = {name for name in EVENTS if name.startswith("Delivered")}
ANSWERED = POLLS | DELIVERIES | {"BecameUnreachable"}
NOTHING: dict[State, set[str]] = {
    State.QUEUED: POLLS | DELIVERIES,
    State.SUBMITTING: DELIVERIES,
    State.WAITING: {
        *("StillRunning", "Gone", "PollFailed"),
        *("Delivered unpriced", "Delivered bare", "Delivered nothing"),
    },
    State.IN_DOUBT: {"Gone", "PollFailed", "Delivered nothing"},
    State.MATCHED: ANSWERED,
    State.NO_MATCH: ANSWERED,
    State.FAILED: ANSWERED,
    State.SKIPPED: POLLS | DELIVERIES,
    State.CANCELLED: POLLS | DELIVERIES,
    State.LOST: {"StillRunning", "Gone", "PollFailed", "Delivered bare", "Delivered nothing"},
}
CASES = [(state, name) for state in State for name in EVENTS]


def expected() -> dict[tuple[str, str], tuple[str, ...]]:
    rows = [tuple(cell.strip() for cell in line.split("|")) for line in EXPECTED.strip().splitlines()]
    return {(row[0], row[1]): row[2:] for row in rows}


def job(state: State, **rest: int) -> Job:
    """A job of `state`, with the open hold or the booked charge that this state has."""
    hold = HOLD if state in {State.SUBMITTING, State.WAITING, State.IN_DOUBT} else 0
    known = {"attempt": 1, "hold_microusd": hold, "charged_microusd": HOLD if state is State.LOST else 0}
    return Job(id=7, state=state, **(known | rest))


def test_every_event_class_has_a_representative() -> None:
    assert {type(event) for event in EVENTS.values()} == set(get_args(ev.Event))


@pytest.mark.parametrize(("state", "name"), CASES)
def test_each_state_and_event_does_what_the_table_says(state: State, name: str) -> None:
    row = expected().get((state, name))
    if row is None and name in NOTHING.get(state, ()):
        assert decide(job(state), EVENTS[name], NOW, POLICY) is None
        return
    if row is None:
        with pytest.raises(IllegalEvent, match=type(EVENTS[name]).__name__):
            decide(job(state), EVENTS[name], NOW, POLICY)
        return
    step = decide(job(state), EVENTS[name], NOW, POLICY)
    assert step is not None
    money = step.money
    booked = (
        "-" if money is None else f"{money.charge_microusd} {money.release_microusd} {money.adjust_microusd}"
    )
    assert (step.to_state, step.reason, step.outcome or "-", booked) == row
    assert (step.job_id, step.fence, step.from_state) == (7, 1, state)
    assert (step.from_state, step.to_state, step.reason) in STEPS


def test_the_expected_table_names_only_known_states_and_events() -> None:
    assert {state for state, _ in expected()} <= set(State)
    assert {name for _, name in expected()} <= set(EVENTS)


@given(hold=st.integers(1, 10**10), share=st.fractions(0, 2), silent=st.booleans())
def test_a_settled_hold_is_charge_plus_release(hold: int, share: object, silent: bool) -> None:
    cost = None if silent else int(hold * share)  # type: ignore[operator]
    money = settle_money(hold, verdict(State.MATCHED, cost))
    assert money.charge_microusd + money.release_microusd == hold
    assert min(money.charge_microusd, money.release_microusd) >= 0
    if cost is None:
        assert money == Money(hold, 0, 0, assumed=True)
        return
    assert not money.assumed
    assert money.charge_microusd + money.adjust_microusd == cost
    assert money.adjust_microusd == max(0, cost - hold)


def test_only_a_cost_that_is_not_said_is_assumed() -> None:
    assert settle_money(HOLD, verdict(State.MATCHED, None)) == Money(HOLD, 0, 0, assumed=True)
    assert settle_money(HOLD, verdict(State.MATCHED, 0)) == Money(0, HOLD)
    assert settle_money(HOLD, verdict(State.MATCHED, HOLD)) == Money(HOLD)
    assert settle_money(HOLD, verdict(State.MATCHED, HOLD + 1)) == Money(HOLD, 0, 1)


@pytest.mark.parametrize(("before", "moves"), [(0, True), (2, True), (3, False), (4, False)])
def test_a_fourth_proof_that_it_was_free_is_left_to_a_person(before: int, moves: bool) -> None:
    step = decide(job(State.IN_DOUBT, proved_free_before=before), EVENTS["ProvedFree"], NOW, POLICY)
    assert (step is not None) == moves


@given(charged=st.integers(0, 10**9), cost=st.none() | st.integers(0, 10**9))
def test_a_late_answer_corrects_what_was_booked(charged: int, cost: int | None) -> None:
    late = ev.Finished(verdict(State.MATCHED, cost), ANSWER)
    step = decide(job(State.LOST, charged_microusd=charged), late, NOW, POLICY)
    assert step is not None
    assert step.money is not None
    assert charged + step.money.adjust_microusd == (charged if cost is None else cost)


@pytest.mark.parametrize(
    ("asked_s", "waits_s"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (30.0, 30.0), (900.0, 900.0)]
)
def test_a_throttled_job_waits_what_was_asked_but_at_least_a_second(
    asked_s: float | None, waits_s: float
) -> None:
    step = decide(job(State.SUBMITTING), ev.Throttled(asked_s, ANSWER), NOW, POLICY)
    assert step is not None
    assert step.not_before is not None
    assert (step.not_before - NOW).total_seconds() == waits_s


def test_only_a_throttled_job_gets_a_time() -> None:
    for name in ("NotSent", "NoMoney", "NotAllowed"):
        step = decide(job(State.SUBMITTING), EVENTS[name], NOW, POLICY)
        assert step is not None
        assert step.not_before is None


@pytest.mark.parametrize("charge", [-1, HOLD + 1])
def test_a_charge_that_does_not_fit_the_hold_is_a_bug(charge: int) -> None:
    for event in (ev.AuditCharged(charge, "audit"), ev.WrittenOff(charge, assumed=False, evidence="person")):
        with pytest.raises(Bug, match="does not fit"):
            decide(job(State.IN_DOUBT), event, NOW, POLICY)


@pytest.mark.parametrize(
    ("charge", "assumed", "booked"),
    [
        (HOLD, True, Money(HOLD, 0, assumed=True)),
        (HOLD, False, Money(HOLD, 0)),
        (0, True, Money(0, HOLD)),
        (1, True, Money(1, HOLD - 1, assumed=True)),
    ],
)
def test_writing_off_books_the_charge_and_releases_the_rest(
    charge: int, assumed: bool, booked: Money
) -> None:
    event = ev.WrittenOff(charge, assumed=assumed, evidence="person")
    step = decide(job(State.IN_DOUBT), event, NOW, POLICY)
    assert step is not None
    assert step.money == booked


def test_a_skip_for_a_reason_that_is_no_skip_is_a_bug() -> None:
    with pytest.raises(Bug, match="not in the table"):
        decide(job(State.QUEUED), ev.Skip(Reason.THROTTLED), NOW, POLICY)


def test_what_the_provider_said_travels_with_the_step() -> None:
    step = decide(job(State.SUBMITTING), EVENTS["Accepted"], NOW, POLICY)
    assert step is not None
    assert (step.remote_job_id, step.billing_mode, step.http_status) == ("r-1", "virtual_balance", 202)
    assert step.bearer == ev.Secret("pb")
    refused = decide(job(State.SUBMITTING), EVENTS["Refused"], NOW, POLICY)
    assert refused is not None
    assert (refused.error, refused.http_status, refused.answer) == ("BAD_INPUT", 422, ANSWER)
    assert refused.outcome is Outcome.REFUSED
