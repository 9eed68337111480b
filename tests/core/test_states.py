"""The transition table as a graph: every state is reached and ends; only `lost` leaves the end."""

from __future__ import annotations

import pytest

from ledger.states import (
    ANSWERED,
    CHAIN_ENDS,
    FINAL,
    MEANS,
    NEW,
    OPEN,
    STEPS,
    Outcome,
    Reason,
    State,
    StopReason,
    full_route,
)


def reached_from(start: str) -> set[str]:
    seen, edge = {start}, [start]
    while edge:
        at = edge.pop()
        for step in STEPS:
            if step.from_state == at and step.to_state not in seen:
                seen.add(step.to_state)
                edge.append(step.to_state)
    return seen


def test_a_state_is_open_or_final_and_each_has_its_paragraph() -> None:
    assert frozenset(State) == OPEN | FINAL
    assert not OPEN & FINAL
    assert set(MEANS) == set(State)
    assert all(MEANS[state].startswith("Final.") == (state in FINAL) for state in State)


def test_no_step_is_listed_twice() -> None:
    assert len(set(STEPS)) == len(STEPS)


def test_a_job_is_born_queued() -> None:
    assert {step.to_state for step in STEPS if step.from_state == NEW} == {State.QUEUED}


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_reached(state: State) -> None:
    assert state in reached_from(NEW)


@pytest.mark.parametrize("state", sorted(OPEN))
def test_every_open_state_can_reach_an_end(state: State) -> None:
    assert reached_from(state) & FINAL


@pytest.mark.parametrize("state", sorted(FINAL))
def test_only_a_lost_job_leaves_the_end_and_only_by_a_late_answer(state: State) -> None:
    out = {step for step in STEPS if step.from_state == state}
    if state is not State.LOST:
        assert not out
        return
    assert {step.to_state for step in out} == ANSWERED
    assert {step.reason for step in out} == {Reason.LATE_ANSWER}


def test_no_step_leads_to_where_it_came_from() -> None:
    assert all(step.from_state != step.to_state for step in STEPS)


def test_every_reason_is_used() -> None:
    assert {step.reason for step in STEPS} == set(Reason)


def test_nothing_goes_back_to_the_queue_with_its_outcome_unknown() -> None:
    back = {(step.from_state, step.reason) for step in STEPS if step.to_state is State.QUEUED}
    sent = {(at, reason) for at, reason in back if at != NEW}
    assert sent == {
        (State.SUBMITTING, Reason.NOT_SENT),
        (State.SUBMITTING, Reason.THROTTLED),
        (State.SUBMITTING, Reason.NO_MONEY),
        (State.SUBMITTING, Reason.NOT_ALLOWED),
        (State.IN_DOUBT, Reason.PROVED_FREE),
    }


def test_a_crash_never_ends_a_budget_chain() -> None:
    assert {StopReason.FINISHED, StopReason.LIMIT, StopReason.UNTIL, StopReason.BUDGET} == CHAIN_ENDS


def test_a_release_reason_is_spelt_like_its_outcome() -> None:
    for name in ("not_sent", "throttled", "no_money", "not_allowed", "proved_free"):
        assert Outcome(name).value == Reason(name).value


@pytest.mark.parametrize("name", ["lead-session", "enrich/lead-session"])
def test_a_route_may_be_named_in_short(name: str) -> None:
    assert full_route(name) == "enrich/lead-session"
