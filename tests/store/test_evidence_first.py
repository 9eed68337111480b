"""Evidence goes before decisions: what has come is used before anybody pays a second time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.errors import Bug, StaleWrite
from ledger.migrations.migrations import migrations
from ledger.states import State
from ledger.store import deliveries, inbox
from ledger.store.audit import audit
from ledger.store.engine import sqlite3

DONE = {"status": "completed", "charged_usd": 0.42, "result": {"matched": True, "billed": True}}
FAILED = {"status": "failed", "charged_usd": 0, "error": {"code": "VENDOR_TIMEOUT"}}


def key(desk: Any, job_id: int = 1) -> str:
    return desk.one("SELECT idempotency_key FROM attempts WHERE job_id = ?", job_id)


def decide(desk: Any, choice: str) -> None:
    """Drop a decision about job 1's first call."""
    body = {"doubts": [[1, 1]], "choice": choice}
    inbox.drop(desk.path, "resolve", body, now=desk.clock.now())


def drop(desk: Any, **said: Any) -> None:
    """Drop a delivery without taking it in."""
    body = inbox.delivery(json.dumps(said).encode(), received_at=desk.clock.now(), delivery_id=None)
    inbox.drop(desk.path, "delivery", body, now=desk.clock.now())


def jobs(desk: Any) -> list[tuple[Any, ...]]:
    return desk.sql("SELECT id, generation, state, paused_at IS NOT NULL FROM jobs ORDER BY id")


@pytest.fixture
def doubtful(desk: Any) -> Any:
    """Job 1 in doubt, nothing known of it."""
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    return desk


def kept_early(desk: Any, job_id: int = 1) -> None:
    """The answer came before the POST's own, is kept, and then somebody without a profile made it a doubt."""
    desk.deliver(job_id=f"r-{job_id}", source_ref=key(desk, job_id), **DONE)
    assert desk.state(job_id) == "submitting"


def test_a_delivery_is_taken_before_the_decision_that_was_dropped_first(doubtful: Any) -> None:
    decide(doubtful, "resend")
    doubtful.clock.advance(1)
    drop(doubtful, job_id="r-1", source_ref=key(doubtful), **DONE)
    delivery, decision = doubtful.ledger.take_inbox()
    assert delivery.delivered
    assert "1 had ended by themselves" in decision.note
    assert jobs(doubtful) == [(1, 1, "matched", 0)]
    doubtful.healthy()


def test_control_a_decision_without_evidence_asks_anew(doubtful: Any) -> None:
    decide(doubtful, "resend")
    doubtful.ledger.take_inbox()
    assert jobs(doubtful) == [(1, 1, "lost", 0), (2, 2, "queued", 0)]
    assert len(doubtful.claim().calls) == 1


def test_a_doubt_that_a_kept_delivery_answers_is_not_asked_anew(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    kept_early(desk)
    reads, desk.ledger.books.read_delivery = desk.ledger.books.read_delivery, None
    desk.doubt(1)
    desk.ledger.books.read_delivery = reads
    assert desk.ledger.write_off(desk.ledger.doubts(), resend=True) == 0
    assert jobs(desk) == [(1, 1, "matched", 0)]
    assert desk.costs(1)[1:] == [("charge", 1_500_000), ("adjust", -1_080_000)]
    desk.healthy()


@pytest.mark.parametrize(
    ("said", "paused"),
    [(DONE, 1), ({**FAILED, "charged_usd": 0.1}, 1), (FAILED, 0)],
    ids=["done", "paid", "free"],
)
def test_a_late_answer_stops_the_generation_that_was_queued_in_its_stead(
    doubtful: Any, said: Any, paused: int
) -> None:
    decide(doubtful, "resend")
    doubtful.ledger.take_inbox()
    doubtful.deliver(job_id="r-1", source_ref=key(doubtful), **said)
    state = State.MATCHED if said is DONE else State.FAILED
    assert jobs(doubtful) == [(1, 1, state, 0), (2, 2, "queued", paused)]
    assert len(doubtful.claim().calls) == 1 - paused
    doubtful.healthy()


def test_a_late_poll_stops_it_too(doubtful: Any) -> None:
    decide(doubtful, "resend")
    doubtful.ledger.take_inbox()
    doubtful.record(1, doubtful.finished())
    assert jobs(doubtful) == [(1, 1, "matched", 0), (2, 2, "queued", 1)]


def test_a_late_answer_pauses_no_other_route_and_no_other_lead(desk: Any) -> None:
    desk.ready(2)
    desk.claim()
    desk.doubt(1)
    desk.enqueue(route="enrich/lead-session")
    decide(desk, "resend")
    desk.ledger.take_inbox()
    desk.deliver(job_id="r-1", source_ref=key(desk), **DONE)
    assert desk.sql("SELECT lead_id, route, generation FROM jobs WHERE paused_at IS NOT NULL") == [
        (1, "enrich/websearch", 2)
    ]
    assert desk.one("SELECT COUNT(*) FROM jobs WHERE state = 'queued'") == 4


# --- kept early, and made a doubt by somebody who could not read it ---


def die_unread(desk: Any) -> None:
    """The run is killed, and a process that knows no profile recovers."""
    desk.die()
    reads, desk.ledger.books.read_delivery = desk.ledger.books.read_delivery, None
    desk.ledger.recover()
    desk.ledger.books.read_delivery = reads


@pytest.mark.parametrize("named_by", ["key", "remote id"])
def test_what_was_kept_early_settles_its_doubt_at_the_next_start(desk: Any, named_by: str) -> None:
    desk.ready(2)
    desk.claim(2)
    if named_by == "key":
        kept_early(desk)
    else:
        desk.ledger.books.connection.execute("UPDATE attempts SET remote_job_id = 'r-1' WHERE job_id = 1")
        desk.deliver(job_id="r-1", **DONE)
    die_unread(desk)
    assert [desk.state(job) for job in (1, 2)] == ["in_doubt", "in_doubt"], "the fault happened"
    assert desk.one("SELECT COUNT(*) FROM deliveries WHERE applied_at IS NULL") == 1
    desk.ledger.recover()
    assert [desk.state(job) for job in (1, 2)] == ["matched", "in_doubt"]
    assert desk.one("SELECT COUNT(*) FROM deliveries WHERE applied_at IS NULL") == 0
    assert desk.costs(1)[1] == ("charge", 420_000)
    rows = desk.sql("SELECT * FROM transitions")
    desk.ledger.recover()
    assert desk.sql("SELECT * FROM transitions") == rows
    desk.healthy()


def test_it_settles_what_was_given_up_meanwhile(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    kept_early(desk)
    die_unread(desk)
    reads, desk.ledger.books.read_delivery = desk.ledger.books.read_delivery, None
    decide(desk, "resend")
    desk.ledger.take_inbox()
    desk.ledger.books.read_delivery = reads
    assert jobs(desk) == [(1, 1, "lost", 0), (2, 2, "queued", 0)]
    desk.ledger.recover()
    assert jobs(desk) == [(1, 1, "matched", 0), (2, 2, "queued", 1)]
    desk.healthy()


def test_a_kept_delivery_of_an_earlier_call_or_a_stranger_settles_nothing(desk: Any) -> None:
    desk.ready(1)
    desk.deliver(job_id="r-9", source_ref="somebody's", **DONE)
    desk.claim()
    die_unread(desk)
    desk.ledger.recover()
    assert desk.state(1) == "in_doubt"
    assert desk.one("SELECT COUNT(*) FROM deliveries WHERE applied_at IS NULL") == 1


def test_a_delivery_whose_text_was_erased_stops_no_call(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    kept_early(desk)
    desk.ledger.books.connection.execute("UPDATE deliveries SET body = NULL")
    desk.record(1, desk.accepted("r-1"))
    assert desk.state(1) == "waiting"
    desk.ledger.recover()
    assert desk.state(1) == "waiting"


# --- a delivery that cannot be applied ---


@pytest.mark.parametrize(
    "error",
    [Bug("two and two"), StaleWrite("it has gone on"), sqlite3.IntegrityError("a guard"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_delivery_that_cannot_be_applied_stays_kept(
    doubtful: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, struck = deliveries._apply_to, []

    def breaks(*arguments: Any) -> Any:
        real(*arguments)
        struck.append(1)
        raise error

    before = doubtful.costs(1)
    monkeypatch.setattr(deliveries, "_apply_to", breaks)
    (taken,) = doubtful.deliver(job_id="r-1", source_ref=key(doubtful), **DONE)
    assert struck
    assert "cannot be applied" in taken.note
    assert (doubtful.state(1), doubtful.costs(1)) == ("in_doubt", before)
    assert doubtful.sql("SELECT applied_at, body IS NULL FROM deliveries") == [(None, 0)]
    assert inbox.waiting(doubtful.path) == []
    monkeypatch.undo()
    doubtful.ledger.recover()
    assert (doubtful.state(1), doubtful.costs(1)[1]) == ("matched", ("charge", 420_000))
    doubtful.ledger.end_run("finished")  # compares the running totals with the books
    doubtful.healthy()


# --- whose cost it is ---


def test_a_delivery_that_names_a_second_job_books_nothing(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1"))
    (taken,) = desk.deliver(job_id="r-1", data={"job_id": "r-other", **DONE})
    assert (desk.state(1), desk.costs(1)) == ("waiting", [("hold", 1_500_000)])
    assert taken.ask_now == 1
    desk.healthy()


def refused_but_taken(desk: Any) -> None:
    """Job 1 was refused, and a verified delivery says what it was charged all the same."""
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.refused())
    assert desk.costs(1) == [("hold", 1_500_000), ("release", 1_500_000)]


def test_a_refused_call_that_was_charged_after_all_is_booked_once(desk: Any) -> None:
    refused_but_taken(desk)
    for item in ("first", "again"):
        desk.deliver(job_id="r-1", source_ref=key(desk), delivery=item, **DONE)
    assert desk.costs(1)[2:] == [("adjust", 420_000)]
    assert desk.one("SELECT remote_job_id FROM attempts") == "r-1"
    assert desk.sql("SELECT kind FROM answers ORDER BY id") == [("refused",), ("delivery",), ("delivery",)]
    assert desk.sql("SELECT * FROM results") == []
    assert desk.one("SELECT COUNT(*) FROM claims") == 1
    desk.ledger.end_run("finished")  # compares the running totals with the books
    desk.healthy()


def test_control_a_cost_of_a_refused_call_that_no_answer_states_is_found(desk: Any) -> None:
    refused_but_taken(desk)
    desk.healthy()
    desk.ledger.books.connection.execute(
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, assumed, at) "
        "VALUES (1, 1, 'adjust', 420000, 0, ?)",
        (desk.now(),),
    )
    failed = audit(desk.ledger.books.connection, migrations).failed
    assert [failure.name for failure in failed] == ["unaccepted_calls_cost_nothing"]


@pytest.mark.parametrize(("said", "adjusts", "paused"), [(DONE, 1, 1), (FAILED, 0, 0)], ids=["paid", "free"])
def test_its_next_generation_waits_for_a_person_if_it_was_paid(
    desk: Any, said: Any, adjusts: int, paused: int
) -> None:
    refused_but_taken(desk)
    desk.clock.advance(1)
    desk.wish("retry", state="failed")
    desk.deliver(job_id="r-1", source_ref=key(desk), **said)
    assert len(desk.costs(1)) == 2 + adjusts
    assert jobs(desk) == [(1, 1, "failed", 0), (2, 2, "queued", paused)]
    desk.healthy()


def test_a_job_with_its_own_answer_is_not_booked_by_a_delivery(desk: Any) -> None:
    """The control: what a poll has settled stands."""
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1"))
    desk.record(1, desk.finished(400_000))
    costs = desk.costs(1)
    desk.deliver(job_id="r-1", **DONE)
    assert desk.costs(1) == costs
