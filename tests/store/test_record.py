"""Conformance: what one event writes, all of it in one transaction, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger import events as ev
from ledger.errors import IllegalEvent, StaleWrite
from ledger.states import State

ODD = ev.Answer("odd", 503, "<html>busy</html>")
ATTEMPT = (
    "SELECT outcome, http_status, error, remote_job_id, billing_mode, polls, evidence, ended_at IS NOT NULL "
    "FROM attempts WHERE job_id = 1"
)
BEARERS = "SELECT attempt_id, bearer FROM poll_bearers"

Make = Callable[[Any], ev.Event]
# What comes back for the POST | state | attempt: outcome, status, error | costs after the hold | answers kept
POSTS: list[tuple[Make, str, tuple[Any, ...], list[tuple[str, int]], list[str]]] = [
    (lambda desk: desk.accepted("r-1"), "waiting", ("accepted", 202, None), [], ["accepted"]),
    (
        lambda desk: ev.Answered(desk.verdict(420_000), ev.Answer("answered", 200, "{}")),
        "matched",
        ("answered", 200, None),
        [("charge", 420_000), ("release", 1_080_000)],
        ["answered"],
    ),
    (
        lambda desk: ev.Answered(desk.verdict(None, State.NO_MATCH), ev.Answer("answered", 200, "{}")),
        "no_match",
        ("answered", 200, None),
        [("charge", 1_500_000)],
        ["answered"],
    ),
    (
        lambda desk: ev.Answered(desk.verdict(0, State.FAILED), ev.Answer("answered", 200, "{}")),
        "failed",
        ("answered", 200, "PROVIDER_FAILED"),
        [("release", 1_500_000)],
        ["answered"],
    ),
    (lambda _: ev.NotSent("dns"), "queued", ("not_sent", None, "dns"), [("release", 1_500_000)], []),
    (
        lambda desk: desk.refused(),
        "failed",
        ("refused", 422, "BAD_INPUT"),
        [("release", 1_500_000)],
        ["refused"],
    ),
    (
        lambda _: ev.NotAllowed(401, "BAD_KEY", "no", ODD),
        "queued",
        ("not_allowed", 401, "BAD_KEY"),
        [("release", 1_500_000)],
        ["odd"],
    ),
    (
        lambda _: ev.NoMoney("INSUFFICIENT", "no", ODD),
        "queued",
        ("no_money", 402, "INSUFFICIENT"),
        [("release", 1_500_000)],
        ["odd"],
    ),
    (
        lambda desk: desk.throttled(),
        "queued",
        ("throttled", 429, "throttled"),
        [("release", 1_500_000)],
        ["odd"],
    ),
    (lambda _: ev.Unknown("http_503", 503, ODD), "in_doubt", ("in_doubt", 503, "http_503"), [], ["odd"]),
    (lambda desk: desk.unknown(), "in_doubt", ("in_doubt", None, "read_timeout"), [], []),
]


@pytest.mark.parametrize(("make", "state", "attempt", "costs", "answers"), POSTS)
def test_how_a_post_came_out_is_written_whole(
    desk: Any, make: Make, state: str, attempt: tuple[Any, ...], costs: list[Any], answers: list[str]
) -> None:
    desk.ready(1)
    desk.claim()
    step = desk.record(1, make(desk))
    assert (desk.state(1), str(step.to_state)) == (state, state)
    assert desk.sql(ATTEMPT)[0][:3] == attempt
    assert desk.sql(ATTEMPT)[0][-1] == 1
    assert desk.costs(1) == [("hold", 1_500_000), *costs]
    assert [row[0] for row in desk.sql("SELECT kind FROM answers ORDER BY id")] == answers
    assert desk.steps(1)[-1] == ("submitting", state, step.reason)
    finished = desk.one("SELECT finished_at FROM jobs")
    assert finished == (desk.now() if state in {"matched", "no_match", "failed"} else None)
    has_result = state in {"matched", "no_match"} or attempt[0] == "answered"
    assert desk.one("SELECT COUNT(*) FROM results") == has_result
    assert len(desk.sql(BEARERS)) == (state == "waiting")


def test_acceptance_is_one_commit_of_state_remote_id_and_bearer(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1", "pb-1"))
    accepted = "SELECT state, remote_job_id, billing_mode FROM jobs JOIN attempts ON job_id = jobs.id"
    assert desk.elsewhere(accepted) == [("waiting", "r-1", "virtual_balance")]
    assert desk.elsewhere(BEARERS) == [(1, "pb-1")]


def test_acceptance_without_a_bearer_keeps_none(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1", None))
    assert desk.sql(BEARERS) == []
    assert [(job.remote_job_id, job.bearer) for job in desk.ledger.open_jobs()] == [("r-1", None)]


@pytest.mark.parametrize("state", [State.MATCHED, State.NO_MATCH, State.FAILED])
def test_the_final_poll_writes_result_cost_answer_and_state_and_drops_the_bearer(
    desk: Any, state: State
) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted())
    desk.clock.advance(20)
    desk.record(1, desk.finished(300_000, state), polls=7)
    assert desk.costs(1) == [("hold", 1_500_000), ("charge", 300_000), ("release", 1_200_000)]
    assert desk.sql("SELECT matched, billed, cache_hit, body, received_at FROM results") == [
        (int(state is State.MATCHED), int(state is not State.FAILED), None, '{"found": 1}', desk.now())
    ]
    assert desk.sql(BEARERS) == []
    assert desk.sql("SELECT outcome, polls FROM attempts") == [("accepted", 7)]
    kept = desk.sql("SELECT kind, http_status, body, length(sha256) FROM answers ORDER BY id")
    assert kept[1] == ("poll", 200, '{"status": "done"}', 64)
    reason = "provider_failed" if state is State.FAILED else "completed"
    assert desk.steps(1)[-1] == ("waiting", state, reason)


def test_a_result_is_told_once(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted())
    desk.record(1, desk.finished())
    assert desk.record(1, desk.finished(900_000)) is None
    assert desk.costs(1) == [("hold", 1_500_000), ("charge", 420_000), ("release", 1_080_000)]
    assert desk.one("SELECT COUNT(*) FROM results") == 1
    assert desk.one("SELECT COUNT(*) FROM answers WHERE kind = 'poll'") == 2  # but what was said is kept


def test_a_poll_that_says_still_running_writes_nothing(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted())
    changes = desk.ledger.books.connection.total_changes
    for event in (ev.StillRunning("running", known=True, answer=None), ev.PollFailed("timeout")):
        assert desk.record(1, event) is None
    assert desk.ledger.books.connection.total_changes == changes
    assert desk.record(1, ev.StillRunning("dreaming", known=False, answer=ODD)) is None
    assert desk.one("SELECT body FROM answers WHERE kind = 'odd'") == ODD.body


def test_an_unreachable_job_keeps_its_bearer_and_its_hold(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1", "pb-1"))
    desk.record(1, ev.BecameUnreachable("gone five times"))
    assert desk.sql(BEARERS) == [(1, "pb-1")]
    assert desk.costs(1) == [("hold", 1_500_000)]
    (open_job,) = desk.ledger.open_jobs()
    assert (open_job.in_doubt, open_job.bearer) == (True, ev.Secret("pb-1"))
    desk.record(1, ev.StillRunning("running", known=True, answer=None))
    assert desk.steps(1)[-1] == ("in_doubt", "waiting", "poll_evidence")


def test_what_belongs_to_an_earlier_attempt_is_refused(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, ev.NotSent("dns"))
    desk.claim()
    with pytest.raises(StaleWrite, match="at attempt 2; what came belongs to attempt 1"):
        desk.record(1, desk.accepted(), fence=1)
    with pytest.raises(StaleWrite, match="no job 99"):
        desk.record(99, desk.accepted(), fence=1)
    assert desk.state(1) == "submitting"
    assert desk.sql(BEARERS) == []


def test_an_event_that_cannot_happen_writes_nothing(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    with pytest.raises(IllegalEvent):
        desk.record(1, desk.finished())
    assert desk.state(1) == "submitting"
    assert desk.one("SELECT COUNT(*) FROM answers") == 0


def test_a_remote_id_we_already_have_is_a_doubt_and_its_bytes_are_kept(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    desk.record(1, desk.accepted("r-1", "pb-1"))
    desk.record(2, desk.accepted("r-1", "pb-2"))
    assert [desk.state(1), desk.state(2)] == ["waiting", "in_doubt"]
    assert desk.sql("SELECT error, remote_job_id FROM attempts WHERE job_id = 2") == [
        ("remote_job_id_of_job_1", None)
    ]
    assert desk.sql(BEARERS) == [(1, "pb-1")]
    assert desk.costs(2) == [("hold", 1_500_000)]
    assert desk.sql("SELECT kind, http_status FROM answers WHERE attempt_id = 2") == [("odd", 202)]


def test_a_late_answer_settles_a_lost_job_with_an_adjust(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    desk.ledger.write_off(desk.ledger.doubts(), resend=False)
    desk.record(1, desk.finished(420_000))
    assert desk.costs(1) == [("hold", 1_500_000), ("charge", 1_500_000), ("adjust", -1_080_000)]
    assert desk.steps(1)[-1] == ("lost", "matched", "late_answer")
    assert desk.one("SELECT matched FROM results") == 1
    desk.ledger.end_run("finished")


def test_money_belongs_to_the_run_that_sent_the_post(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted())
    desk.die()
    desk.begin()
    desk.record(1, desk.finished())
    assert desk.sql("SELECT DISTINCT run_id FROM costs") == [(1,)]
    assert desk.one("SELECT run_id FROM transitions WHERE reason = 'completed'") == 2


def test_a_same_key_resend_ends_anew(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    first = desk.one("SELECT ended_at FROM attempts")
    desk.clock.advance(100)
    desk.record(1, ev.SameKeyResend())
    assert desk.state(1) == "submitting"
    desk.doubt(1)
    assert desk.one("SELECT ended_at FROM attempts") == desk.now() > first
    assert desk.costs(1) == [("hold", 1_500_000)]
    assert desk.one("SELECT COUNT(*) FROM attempts") == 1


def test_text_that_is_no_unicode_is_kept_with_a_digest(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, ev.Unknown("unreadable", 200, ev.Answer("odd", 200, "caf\x00\ufffd")))
    assert desk.one("SELECT length(sha256) FROM answers") == 64


def test_a_late_answer_to_an_attempt_proved_free_is_kept_and_its_cost_booked(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("late_1"))
    desk.record(1, ev.BecameUnreachable("gone"))
    desk.record(1, ev.ProvedFree("audit"))
    desk.claim()
    assert desk.record(1, desk.finished(400_000), fence=1) is None
    assert desk.record(1, desk.finished(400_000), fence=1) is None
    assert desk.state(1) == "submitting"
    first = "SELECT kind, amount_microusd FROM costs WHERE attempt_id = 1 ORDER BY id"
    assert desk.sql(first) == [("hold", desk.ceiling), ("release", desk.ceiling), ("adjust", 400_000)]
    kept = "SELECT COUNT(*) FROM answers WHERE attempt_id = 1 AND kind = 'poll'"
    assert desk.one(kept) == 2
