"""Deliveries as evidence: whose they are, what they settle; no repeat and no stranger changes anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger import events as ev
from ledger.api.reply import Reply
from ledger.api.wire import read_poll
from ledger.states import State
from ledger.store import inbox
from ledger.store.engine import sqlite3

RESULT = {"matched": True, "billed": True, "entities": [{"type": "phone", "value": "+1520"}]}
DONE = {"status": "completed", "charged_usd": 0.42, "result": RESULT}


def counts(desk: Any) -> tuple[int, ...]:
    """Everything a delivery could change."""
    tables = ("transitions", "costs", "results", "answers", "jobs", "attempts", "poll_bearers")
    return tuple(desk.one(f"SELECT COUNT(*) FROM {table}") for table in tables)


def applied(desk: Any) -> list[tuple[Any, ...]]:
    return desk.sql(
        "SELECT d.remote_job_id, a.job_id, d.verdict, d.body IS NULL FROM deliveries d "
        "LEFT JOIN attempts a ON a.id = d.attempt_id ORDER BY d.id"
    )


@pytest.fixture
def waiting(desk: Any) -> Any:
    """Job 1 accepted as `r-1`."""
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1"))
    return desk


@pytest.fixture
def doubtful(desk: Any) -> Any:
    """Job 1 in doubt, nothing known of it."""
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    return desk


def key(desk: Any, job_id: int = 1) -> str:
    return desk.one("SELECT idempotency_key FROM attempts WHERE job_id = ? ORDER BY number DESC", job_id)


def test_a_waiting_job_settles_from_a_complete_result_as_from_a_poll(waiting: Any) -> None:
    taken = waiting.deliver(job_id="r-1", **DONE)
    assert waiting.state(1) == "matched"
    assert waiting.costs(1) == [("hold", 1_500_000), ("charge", 420_000), ("release", 1_080_000)]
    assert waiting.steps(1)[-1] == ("waiting", "matched", "delivery_evidence")
    assert waiting.one("SELECT evidence FROM attempts") == "delivery 1: names its job id"
    assert json.loads(waiting.one("SELECT body FROM results"))["entities"] == RESULT["entities"]
    assert waiting.sql("SELECT bearer FROM poll_bearers") == []
    assert applied(waiting) == [("r-1", 1, "matched", 1)]
    assert [step.to_state for one in taken for step in one.steps] == [State.MATCHED]
    waiting.healthy()


def test_it_books_what_a_poll_of_the_same_words_books(new_desk: Any) -> None:
    documents: list[dict[str, Any]] = [
        DONE,
        {"status": "completed", "refunded_usd": "1.08", "result": RESULT},
        {"status": "completed", "charged_usd": 1.75, "result": RESULT},
        {"status": "completed", "result": {"matched": False, "billed": False}},
        {"status": "failed", "error": {"code": "VENDOR_TIMEOUT"}},
        {"status": "failed", "charged_usd": 0.1, "error": {"code": "VENDOR_TIMEOUT"}},
    ]
    for document in documents:
        desks = [new_desk(), new_desk()]
        for desk in desks:
            desk.ready(1)
            desk.claim()
            desk.record(1, desk.accepted("r-1"))
        reply = Reply(200, {}, json.dumps({"job_id": "r-1", **document}).encode())
        polled = read_poll(
            reply, desks[0].ledger.books.read_delivery.args[0], desks[0].clock.now(), "r-1", 1_500_000
        )
        desks[0].record(1, polled)
        desks[1].deliver(job_id="r-1", **document)
        assert desks[0].state(1) == desks[1].state(1), document
        assert desks[0].costs(1) == desks[1].costs(1), document
        for desk in desks:
            desk.close()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"status": "completed"},
        {"status": "running"},
        {"status": "completed", "result": RESULT},
        {"result": {}},
    ],
    ids=["bare", "no result", "running", "no cost", "empty result"],
)
def test_what_leaves_anything_open_only_makes_a_waiting_job_be_asked_at_once(waiting: Any, said: Any) -> None:
    costs, steps = waiting.costs(1), waiting.steps(1)
    (taken,) = waiting.deliver(job_id="r-1", **said)
    assert taken.ask_now == 1
    assert (waiting.costs(1), waiting.steps(1)) == (costs, steps)
    waiting.record(1, waiting.finished())
    assert applied(waiting)[0][1:2] == (1,), "it is dealt with once the job has its answer"
    assert waiting.costs(1)[1] == ("charge", 420_000)
    waiting.healthy()


def test_a_result_without_a_cost_is_kept_for_the_day_that_no_poll_is_answered(waiting: Any) -> None:
    waiting.deliver(job_id="r-1", status="completed", result=RESULT)
    waiting.deliver(job_id="r-1")
    step = waiting.record(1, ev.BecameUnreachable("gone five times"))
    assert (step.from_state, step.to_state) == (State.IN_DOUBT, State.MATCHED)
    assert waiting.one("SELECT assumed FROM costs WHERE kind = 'charge'") == 1
    waiting.healthy()


def test_one_that_only_says_look_does_not_bring_an_unreachable_job_back(waiting: Any) -> None:
    waiting.deliver(job_id="r-1")
    waiting.record(1, ev.BecameUnreachable("gone five times"))
    assert waiting.state(1) == "in_doubt"


def test_a_doubt_settles_from_a_result_even_without_a_cost(doubtful: Any) -> None:
    doubtful.deliver(job_id="r-9", source_ref=key(doubtful), status="completed", result=RESULT)
    assert doubtful.state(1) == "matched"
    assert doubtful.sql("SELECT kind, amount_microusd, assumed FROM costs WHERE kind <> 'hold'") == [
        ("charge", 1_500_000, 1)
    ]
    assert doubtful.one("SELECT remote_job_id FROM attempts") == "r-9"
    assert doubtful.one("SELECT evidence FROM attempts") == "delivery 1: echoes its key"
    doubtful.healthy()


def test_a_later_event_that_states_the_cost_corrects_an_assumed_charge_once(doubtful: Any) -> None:
    ours = key(doubtful)
    doubtful.deliver(job_id="r-9", source_ref=ours, status="completed", result=RESULT)
    doubtful.deliver(job_id="r-9", id=1, **DONE)
    doubtful.deliver(job_id="r-9", id=2, **{**DONE, "charged_usd": 0.9})
    assert doubtful.costs(1)[1:] == [("charge", 1_500_000), ("adjust", -1_080_000)]
    doubtful.healthy()


def test_a_doubt_without_a_result_becomes_waiting_and_is_polled_with_the_accounts_key(doubtful: Any) -> None:
    (taken,) = doubtful.deliver(data={"job_id": "r-9", "source_ref": key(doubtful)})
    assert doubtful.state(1) == "waiting"
    assert taken.steps[0].to_state is State.WAITING
    job = doubtful.ledger.open_job(1)
    assert (job.remote_job_id, job.bearer, job.in_doubt) == ("r-9", None, False)
    doubtful.record(1, doubtful.finished())
    doubtful.healthy()


def test_a_sync_call_in_doubt_settles_by_its_key_alone(desk: Any) -> None:
    desk.ready(1)
    desk.claim(mode="sync")
    desk.doubt(1)
    desk.deliver({"event_type": "enrich.completed", "source_ref": key(desk), **DONE, "status": None})
    assert desk.state(1) == "matched"
    assert desk.sql("SELECT outcome, remote_job_id FROM attempts") == [("answered", None)]
    desk.healthy()


def test_a_late_delivery_settles_a_lost_job_and_corrects_its_charge(doubtful: Any) -> None:
    doubtful.ledger.write_off(doubtful.ledger.doubts(), resend=False)
    doubtful.deliver(job_id="r-9", source_ref=key(doubtful))
    assert doubtful.state(1) == "lost", "without a result there is nothing to settle from"
    doubtful.deliver(job_id="r-9", source_ref=key(doubtful), **DONE)
    assert doubtful.steps(1)[-1] == ("lost", "matched", "late_answer")
    assert doubtful.costs(1)[1:] == [("charge", 1_500_000), ("adjust", -1_080_000)]
    doubtful.healthy()


def test_an_early_delivery_waits_for_the_post_to_be_answered(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    before = counts(desk)
    desk.deliver(job_id="r-1", **DONE)
    assert counts(desk) == before
    assert applied(desk) == [("r-1", None, None, 0)]
    step = desk.record(1, desk.accepted("r-1"))
    assert step.to_state is State.MATCHED, "what the runner hears is where the job ended"
    assert [step[1:] for step in desk.steps(1)[-2:]] == [
        ("waiting", "accepted"),
        ("matched", "delivery_evidence"),
    ]
    assert applied(desk) == [("r-1", 1, "matched", 1)]
    desk.healthy()


def test_an_early_delivery_ends_the_doubt_of_a_post_that_nobody_answered(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.deliver(job_id="r-1", source_ref=key(desk), **DONE)
    assert desk.state(1) == "submitting"
    desk.die()
    desk.begin()
    assert desk.state(1) == "matched"
    desk.healthy()


def test_the_same_delivery_again_changes_nothing_however_often(waiting: Any) -> None:
    waiting.deliver(job_id="r-1", **DONE)
    before = counts(waiting)
    for _ in range(3):
        (taken,) = waiting.deliver(job_id="r-1", **DONE)
        assert "again" in taken.note
    assert counts(waiting) == before
    assert waiting.one("SELECT COUNT(*) FROM deliveries") == 1


def test_another_delivery_about_a_settled_job_moves_no_money(waiting: Any) -> None:
    waiting.record(1, waiting.finished())
    costs = waiting.costs(1)
    waiting.deliver(job_id="r-1", **{**DONE, "charged_usd": 1.4})
    assert waiting.costs(1) == costs
    assert waiting.sql("SELECT kind FROM answers ORDER BY id") == [("accepted",), ("poll",), ("delivery",)]
    waiting.healthy()


@pytest.mark.parametrize(
    "said",
    [
        {"job_id": "somebody-elses", **DONE},
        {"job_id": "somebody-elses", "source_ref": "not-our-key", **DONE},
        {"job_id": "../agents/balance", **DONE},
        {"job_id": None, **DONE},
        {"job_id": ["r-1"], **DONE},
    ],
    ids=["unknown", "unknown key", "no id", "null", "list"],
)
def test_a_job_that_is_not_ours_changes_nothing_and_is_kept(waiting: Any, said: Any) -> None:
    before = counts(waiting)
    waiting.deliver(said if "job_id" in said else None, **({} if "job_id" in said else said))
    assert counts(waiting) == before
    assert applied(waiting)[0][1:] == (None, None, 0)
    waiting.healthy()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"job_id": "r-1", "job_id": "r-2"}', b"[" * 60_000]
)
def test_junk_with_a_right_signature_is_kept_and_changes_nothing(waiting: Any, raw: bytes) -> None:
    before = counts(waiting)
    waiting.deliver(raw)
    assert counts(waiting) == before
    assert waiting.one("SELECT event_type FROM deliveries").startswith("unreadable")


def test_a_delivery_that_names_two_calls_changes_nothing(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    desk.record(1, desk.accepted("r-1"))
    desk.doubt(2)
    before = counts(desk)
    (taken,) = desk.deliver(job_id="r-1", source_ref=key(desk, 2), **DONE)
    assert "two different calls" in taken.note
    assert counts(desk) == before
    desk.deliver(job_id="r-3", source_ref=key(desk, 1), **DONE)
    assert counts(desk) == before, "job 1 is known by another id"


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_what_no_receiver_has_verified_changes_nothing_and_is_not_kept(waiting: Any, verified: Any) -> None:
    before = counts(waiting)
    body = inbox.delivery(
        json.dumps({"job_id": "r-1", **DONE}).encode(), received_at=waiting.clock.now(), delivery_id=None
    )
    inbox.drop(waiting.path, "delivery", {**body, "verified": verified})
    (taken,) = waiting.ledger.take_inbox()
    assert "signature" in taken.note
    assert counts(waiting) == before
    assert waiting.sql("SELECT * FROM deliveries") == []
    assert inbox.waiting(waiting.path) == []


def test_without_a_profile_deliveries_stay_in_the_inbox_and_stop_no_wish(waiting: Any) -> None:
    waiting.ledger.books.read_delivery = None
    assert waiting.deliver(job_id="r-1", **DONE) == []
    assert len(waiting.wish("pause")) == 1
    assert len(inbox.waiting(waiting.path)) == 1


def test_no_bearer_in_a_delivery_is_kept(waiting: Any) -> None:
    waiting.deliver(job_id="r-1", poll_bearer="pb-other-secret", note="it was pb-secret all along", **DONE)
    kept = json.dumps(waiting.sql("SELECT body FROM answers") + waiting.sql("SELECT body FROM deliveries"))
    assert "pb-secret" not in kept
    assert "pb-other-secret" not in kept
    waiting.healthy()


def test_a_call_proved_free_that_was_taken_after_all_stops_its_job(doubtful: Any) -> None:
    doubtful.ledger.prove_free(ev.Balance(10**9, 1), "balance audit")
    doubtful.deliver(job_id="r-9", source_ref=key(doubtful), **DONE)
    assert doubtful.state(1) == "queued"
    assert doubtful.one("SELECT paused_at IS NOT NULL FROM jobs")
    assert doubtful.costs(1)[-1] == ("adjust", 420_000)
    assert doubtful.claim().calls == (), "it would be paid twice: a person decides"
    doubtful.healthy()


def test_one_that_cost_nothing_does_not_stop_it(doubtful: Any) -> None:
    doubtful.ledger.prove_free(ev.Balance(10**9, 1), "balance audit")
    doubtful.deliver(job_id="r-9", source_ref=key(doubtful), status="completed", result={"matched": False})
    assert len(doubtful.claim().calls) == 1


# --- the one unknown job and the one open doubt ---


def test_the_one_unknown_job_settles_the_one_doubt_it_fits(doubtful: Any) -> None:
    doubtful.clock.advance(30)
    doubtful.deliver(job_id="r-9", route="enrich/websearch", **DONE)
    assert doubtful.state(1) == "in_doubt"
    (came,) = doubtful.ledger.fit_deliveries()
    assert came.steps[0].to_state is State.MATCHED
    assert "the one unknown job" in doubtful.one("SELECT evidence FROM attempts")
    doubtful.healthy()


def unfit(desk: Any, why: str) -> None:
    """Job 1 is in doubt since just now; make something unclear."""
    match why:
        case "two doubts":
            desk.claim()
            desk.doubt(2)
        case "a call in the air":
            desk.claim()
        case "a call given up":
            desk.claim()
            desk.doubt(2)
            desk.ledger.write_off(desk.ledger.doubts(2), resend=False)
        case "two unknown jobs":
            desk.deliver(job_id="r-8", route="enrich/websearch", **DONE)
        case "too long ago":
            desk.clock.advance(86_400 + 1_200 + 1)


@pytest.mark.parametrize(
    "why", ["two doubts", "a call in the air", "a call given up", "two unknown jobs", "too long ago"]
)
def test_nothing_is_matched_where_anything_is_unclear(desk: Any, why: str) -> None:
    desk.ready(2)
    desk.claim()
    desk.doubt(1)
    unfit(desk, why)
    desk.deliver(job_id="r-9", route="enrich/websearch", **DONE)
    before = counts(desk)
    assert desk.ledger.fit_deliveries() == []
    assert counts(desk) == before


@pytest.mark.parametrize(
    "said",
    [{"route": "enrich/lead-session"}, {"source_ref": "another-program's"}],
    ids=["another route", "another's key"],
)
def test_a_job_that_cannot_be_meant_is_not_matched(doubtful: Any, said: Any) -> None:
    doubtful.deliver(job_id="r-9", **said, **DONE)
    assert doubtful.ledger.fit_deliveries() == []


def test_one_that_came_before_the_call_was_made_is_not_matched(desk: Any) -> None:
    desk.ready(1)
    desk.deliver(job_id="r-9", **DONE)
    desk.clock.advance(1)
    desk.claim()
    desk.doubt(1)
    assert desk.ledger.fit_deliveries() == []


# --- guards ---


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM deliveries",
        "UPDATE deliveries SET remote_job_id = 'x'",
        "UPDATE deliveries SET body = 'x'",
        "UPDATE deliveries SET applied_at = NULL",
        "INSERT OR REPLACE INTO deliveries (id, received_at, event_type, sha256) VALUES (1, '', '', 'y')",
    ],
)
def test_a_delivery_is_neither_altered_nor_applied_twice(waiting: Any, statement: str) -> None:
    waiting.deliver(job_id="r-1", **DONE)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        waiting.ledger.books.connection.execute(statement)
