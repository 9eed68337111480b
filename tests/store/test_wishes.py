"""A person's wishes: exactly the jobs they were told of, each wish once, and nothing that a guard forbids."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ledger import events as ev
from ledger.errors import DiskTrouble
from ledger.states import State
from ledger.store import control, inbox, intents
from ledger.store.claims import ClaimRules
from ledger.store.control import Chosen
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps
from ledger.store.read import Reader
from ledger.store.selection import Selection


def outcomes(desk: Any) -> list[tuple[Any, ...]]:
    return desk.sql("SELECT kind, refused, jobs, charged_microusd FROM intents ORDER BY applied_at, id")


def failed(desk: Any, *job_ids: int) -> None:
    for job_id in job_ids:
        desk.record(job_id, desk.refused())
    desk.clock.advance(1)


def test_retry_makes_a_new_generation_and_leaves_the_old_one_as_it_is(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    failed(desk, 1, 2)
    (taken,) = desk.wish("retry", job_ids=(1,))
    assert taken.may_send
    assert desk.sql("SELECT id, lead_id, generation, state, reason FROM jobs ORDER BY id") == [
        (1, 1, 1, "failed", "refused"),
        (2, 2, 1, "failed", "refused"),
        (3, 1, 2, "queued", "retried"),
    ]
    assert desk.steps(3) == [("new", "queued", "retried")]
    assert desk.one("SELECT request FROM jobs WHERE id = 3") == desk.one(
        "SELECT request FROM jobs WHERE id = 1"
    )
    assert [call.job_id for call in desk.claim(5).calls] == [3]
    desk.healthy()


def test_without_a_state_only_failed_jobs_are_retried(story: Any) -> None:
    """Asking again what was answered, or may have been paid, has to be said."""
    chosen = Chosen(as_of="9999-01-01T00:00:00.000000Z")
    with Reader(story) as reader:

        def found(**named: Any) -> int:
            return sum(group.jobs for group in reader.preview("retry", replace(chosen, **named)))

        assert found() == 1
        for state, number in (("matched", 1), ("lost", 1), ("skipped", 0), ("queued", 0), ("waiting", 0)):
            assert found(state=state) == number, state
        assert found(job_ids=(1, 2, 3, 4, 5, 6, 7, 8)) == 4, "the final ones that were askable"
        assert found(reason="refused") == 1


def test_a_job_is_retried_once_however_often_it_is_named(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    failed(desk, 1)
    desk.wish("retry", job_ids=(1,))
    desk.wish("retry", job_ids=(1,))
    desk.wish("retry")
    assert desk.one("SELECT COUNT(*) FROM jobs") == 2
    assert [row[2] for row in outcomes(desk)] == [1, 0, 0] or sorted(row[2] for row in outcomes(desk)) == [
        0,
        0,
        1,
    ]


def test_what_has_changed_since_the_person_was_told_is_not_touched(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    failed(desk, 1)
    told = desk.now()
    desk.clock.advance(1)
    failed(desk, 2)
    desk.wish("retry", as_of=told)
    assert desk.sql("SELECT lead_id FROM jobs WHERE generation = 2") == [(1,)]
    desk.leads(1)
    told = desk.now()
    desk.clock.advance(1)
    desk.enqueue()
    desk.wish("cancel", as_of=told)
    assert desk.state(4) == "queued", "it was not there when the person was told"


def test_cancel_stops_only_what_was_not_sent(desk: Any) -> None:
    desk.ready(3)
    desk.claim(1)
    desk.wish("cancel")
    assert [desk.state(job) for job in (1, 2, 3)] == ["submitting", "cancelled", "cancelled"]
    desk.record(1, desk.accepted())
    desk.healthy()


def test_a_paused_job_is_not_claimed_until_it_is_resumed(desk: Any) -> None:
    desk.ready(2)
    desk.wish("pause", job_ids=(1,))
    assert [call.job_id for call in desk.claim(5).calls] == [2]
    assert desk.claim(5).calls == ()
    (taken,) = desk.wish("resume")
    assert taken.may_send
    assert [call.job_id for call in desk.claim(5).calls] == [1]


def test_suppress_skips_what_is_queued_and_nothing_is_asked_again(desk: Any) -> None:
    desk.ready(2)
    desk.claim(1)
    desk.wish("suppress", lead_ids=(1, 2))
    assert [desk.state(job) for job in (1, 2)] == ["submitting", "skipped"]
    failed(desk, 1)
    desk.wish("retry")
    assert desk.one("SELECT COUNT(*) FROM jobs") == 2
    assert desk.enqueue(route="enrich/lead-session").queued == 0
    assert [row[2] for row in outcomes(desk)] == [2, 0]
    desk.healthy()


def test_suppress_finds_leads_that_were_never_asked_by_import_or_name(desk: Any) -> None:
    desk.leads(3)
    assert control.leads_to_suppress(desk.ledger.books.connection, Chosen(import_id=1, as_of=desk.now())) == [
        1,
        2,
        3,
    ]
    desk.wish("suppress", lead_ids=(2,))
    assert desk.sql("SELECT id FROM leads WHERE suppressed = 1") == [(2,)]


def test_all_that_is_named_must_hold(desk: Any) -> None:
    desk.ready(2)
    desk.leads(2)
    desk.enqueue()
    desk.enqueue(route="enrich/lead-session")
    desk.wish("pause", import_id=1, route="enrich/websearch", lead_ids=(2, 3))
    assert desk.sql("SELECT id FROM jobs WHERE paused_at IS NOT NULL") == [(2,)]


def test_a_preview_says_what_it_may_cost_by_the_last_ceiling(desk: Any) -> None:
    desk.ready(3)
    desk.claim(1, ceiling=700_000)
    failed(desk, 1)
    groups = control.preview(desk.ledger.books.connection, "retry", Chosen(as_of=desk.now()))
    assert [(group.ceiling_microusd, group.jobs) for group in groups] == [(700_000, 1)]
    groups = control.preview(desk.ledger.books.connection, "cancel", Chosen(as_of=desk.now()))
    assert [(group.ceiling_microusd, group.jobs) for group in groups] == [(None, 2)]


def test_what_is_queued_joins_a_selective_run_only_if_it_is_of_its_selection(desk: Any) -> None:
    desk.leads(2)
    desk.begin()
    desk.enqueue(Selection(lead_ids=(1,)))
    desk.claim(1)
    failed(desk, 1)
    desk.ledger.end_run("finished")
    desk.begin()
    desk.enqueue()
    desk.wish("pause")
    desk.enqueue(Selection(lead_ids=(1,)))
    assert desk.claim(5).calls == ()
    desk.wish("resume")
    assert desk.claim(5).calls == (), "lead 2 is not what this run was asked for"
    desk.wish("retry", job_ids=(1,))
    assert [call.job_id for call in desk.claim(5).calls] == [3]


# --- each wish once ---


def test_a_wish_that_is_met_again_changes_nothing(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    failed(desk, 1)
    desk.wish("retry", item_id="once")
    desk.claim()
    failed(desk, 2)
    (taken,) = desk.wish("retry", item_id="once")
    assert "before" in taken.note
    assert desk.one("SELECT COUNT(*) FROM jobs") == 2
    assert len(outcomes(desk)) == 1
    assert inbox.waiting(desk.path) == []


def test_a_commit_that_fails_leaves_the_file_and_no_trace(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ready(1)
    struck = []
    apply = intents.apply

    def breaks(*arguments: Any) -> Any:
        apply(*arguments)
        struck.append(1)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(intents, "apply", breaks)
    with pytest.raises(DiskTrouble):
        desk.wish("cancel")
    assert struck
    assert (desk.state(1), outcomes(desk)) == ("queued", [])
    monkeypatch.setattr(intents, "apply", apply)
    desk.ledger.take_inbox()
    assert (desk.state(1), inbox.waiting(desk.path)) == ("cancelled", [])


def test_wishes_are_carried_out_in_the_order_of_their_dropping(desk: Any) -> None:
    desk.ready(1)
    for kind in ("pause", "resume", "cancel"):
        desk.clock.advance(1)
        inbox.drop(desk.path, kind, Chosen(as_of=desk.now()).to_json(), now=desk.clock.now())
    notes = [taken.note.split()[2] for taken in desk.ledger.take_inbox()]
    assert notes == ["jobs", "jobs", "jobs"]
    assert [row[2] for row in outcomes(desk)] == [1, 1, 1]
    assert desk.state(1) == "cancelled"


GOOD = Chosen(as_of="2026-03-02T09:00:00.000000Z").to_json()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"job_ids": 7},
        {**GOOD, "job_ids": ["1"]},
        {**GOOD, "job_ids": [True]},
        {**GOOD, "lead_ids": [-1]},
        {**GOOD, "state": 7},
        {**GOOD, "import_id": "last"},
        {**GOOD, "as_of": "x"},
    ],
    ids=range(8),
)
def test_a_wish_that_cannot_be_understood_is_refused_and_noted(desk: Any, body: Any) -> None:
    desk.ready(1)
    inbox.drop(desk.path, "cancel", body)
    (taken,) = desk.ledger.take_inbox()
    assert "refused" in taken.note
    assert (desk.state(1), [row[1] for row in outcomes(desk)]) == ("queued", [1])
    assert inbox.waiting(desk.path) == []


# --- decisions about doubts ---


def decide(desk: Any, choice: str, doubts: Any = None, **rest: Any) -> Any:
    found = [(doubt.job_id, doubt.fence) for doubt in desk.ledger.doubts()] if doubts is None else doubts
    inbox.drop(desk.path, "resolve", {"doubts": found, "choice": choice, **rest}, now=desk.clock.now())
    return desk.ledger.take_inbox()[0]


def doubtful(desk: Any, number: int = 1) -> Any:
    desk.ready(number, Caps(chain_microusd=10**9))
    desk.claim(number)
    for job_id in range(1, number + 1):
        desk.doubt(job_id)
    return desk


def test_a_write_off_through_the_inbox_books_what_it_says(desk: Any) -> None:
    taken = decide(doubtful(desk), "write-off")
    assert [step.to_state for step in taken.steps] == [State.LOST]
    assert outcomes(desk) == [("resolve", 0, 1, 1_500_000)]
    assert desk.costs(1) == [("hold", 1_500_000), ("charge", 1_500_000)]
    desk.ledger.end_run("finished")  # compares the running totals with the books
    desk.healthy()


def test_a_resend_queues_a_new_generation(desk: Any) -> None:
    taken = decide(doubtful(desk), "resend")
    assert taken.may_send
    assert desk.steps(2) == [("new", "queued", "resent")]


def test_an_acceptance_brings_its_bearer_and_intents_keep_none(desk: Any) -> None:
    decide(doubtful(desk), "accept", remote_job_id="r-7", bearer="pb-very-secret")
    assert desk.ledger.open_job(1).bearer == ev.Secret("pb-very-secret")
    assert "pb-very-secret" not in json.dumps(desk.sql("SELECT * FROM intents"))
    desk.healthy()


def test_an_acceptance_that_is_taken_already_is_refused(desk: Any) -> None:
    doubtful(desk, 2)
    decide(desk, "accept", [(1, 1)], remote_job_id="r-7")
    taken = decide(desk, "accept", [(2, 1)], remote_job_id="r-7")
    assert "already the remote id" in taken.note
    assert desk.state(2) == "in_doubt"
    assert desk.one("SELECT SUM(refused) FROM intents") == 1


def test_only_the_doubts_that_were_shown_are_decided(desk: Any) -> None:
    doubtful(desk, 2)
    shown = [(1, 1), (2, 1)]
    desk.record(1, desk.finished())
    taken = decide(desk, "write-off", shown)
    assert (desk.state(1), desk.state(2)) == ("matched", "lost")
    assert "1 had ended by themselves" in taken.note


@pytest.mark.parametrize("body", [{}, {"doubts": 1}, {"doubts": [[1]]}, {"doubts": [["a", 1]]}])
def test_a_decision_that_cannot_be_understood_changes_nothing(desk: Any, body: Any) -> None:
    doubtful(desk)
    inbox.drop(desk.path, "resolve", {"choice": "write-off", **body})
    (taken,) = desk.ledger.take_inbox()
    assert "cannot be understood" in taken.note
    assert desk.state(1) == "in_doubt"
    assert "no decision" in decide(desk, "forget it").note


def test_a_cap_holds_for_what_was_queued_by_a_wish(desk: Any) -> None:
    caps = Caps(chain_microusd=1_500_000)
    desk.ready(1, caps)
    desk.claim()
    desk.record(1, desk.accepted())
    desk.record(1, desk.finished(1_000_000, State.FAILED))
    desk.clock.advance(1)
    desk.wish("retry")
    claim = desk.run(desk.ledger.claim(ClaimRules(desk.route, "async", desk.ceiling, caps), 5))
    assert (claim.calls, claim.blocked_by) == ((), "budget")


# --- what no honest sender drops: refused once, never met again ---


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("resolve", {"doubts": [[float("inf"), 1]], "choice": "resend"}),
        ("resolve", {"doubts": [[1, 1]], "choice": "\ud800"}),
        ("resolve", {"doubts": [[1, 1]], "choice": ["resend"]}),
        ("resolve", {"doubts": [[1, 1]], "choice": "accept", "remote_job_id": "\ud800"}),
        ("resolve", {"doubts": [[1, 1]], "choice": "accept", "remote_job_id": "a/../../x y"}),
        ("resolve", {"doubts": [[1, 1]], "choice": "accept", "remote_job_id": "r-1", "bearer": "a\r\nb: c"}),
        ("resolve", {"doubts": [[1, 1]], "choice": "accept", "remote_job_id": "r-1", "bearer": "\ud800"}),
        ("cancel", {**GOOD, "state": "\ud800"}),
        ("cancel", {**GOOD, "import_id": 2**70}),
        ("delivery", {"verified": True, "received_at": GOOD["as_of"], "delivery_id": None, "raw": "\ud800"}),
    ],
    ids=range(10),
)
def test_a_poisoned_item_is_refused_and_stops_nothing(desk: Any, kind: str, body: Any) -> None:
    doubtful(desk)
    before = desk.sql("SELECT * FROM transitions"), desk.sql("SELECT * FROM costs")
    inbox.drop(desk.path, kind, body, now=desk.clock.now())
    desk.clock.advance(1)
    poisoned, good = desk.wish("pause")
    assert "refused" in poisoned.note
    poisoned.note.encode()
    assert "paused" in good.note
    assert inbox.waiting(desk.path) == []
    assert (desk.sql("SELECT * FROM transitions"), desk.sql("SELECT * FROM costs")) == before
    assert desk.one("SELECT remote_job_id FROM attempts") is None
    assert desk.sql("SELECT kind, refused FROM intents WHERE kind = ?", kind) == (
        [] if kind == "delivery" else [(kind, 1)]
    )


def test_a_body_that_can_be_read_but_not_written_is_refused_all_the_same(desk: Any) -> None:
    body: Any = {"choice": "resend"}
    for _ in range(100_000):
        body = {"doubts": [body]}
    with pytest.raises(RecursionError):
        json.dumps(body)
    item = inbox.Item(desk.path, "deep", "resolve", body, GOOD["as_of"])
    with desk.ledger.books.transaction():
        assert "refused" in intents.apply(desk.ledger.books, item).note
    assert desk.sql("SELECT id, refused, body FROM intents") == [("deep", 1, "{}")]


def test_a_disk_that_fails_is_no_refusal(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the above: not everything that is raised is the item's fault."""
    doubtful(desk)
    for error in (DiskTrouble("full"), sqlite3.OperationalError("disk I/O error"), MemoryError()):
        struck = []

        def breaks(*_: Any, error: Exception = error, struck: list[int] = struck) -> None:
            struck.append(1)
            raise error

        monkeypatch.setattr(control, "act", breaks)
        with pytest.raises((DiskTrouble, MemoryError)):
            desk.wish("pause")
        assert struck
        assert outcomes(desk) == []
    monkeypatch.undo()
    assert len(desk.ledger.take_inbox()) == 3
