"""Reading the story of tests/store/conftest.py: counts, money, jobs, one lead, export rows, a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import UsageProblem
from ledger.states import State
from ledger.store.connect import SCHEMA_VERSION
from ledger.store.read import Money, Reader
from ledger.store.selection import Selection

ROUTE = "enrich/websearch"
HOLD = 1_500_000


@pytest.fixture
def reader(story: Path) -> Iterator[Reader]:
    with Reader(story) as opened:
        yield opened


def test_every_state_is_counted_also_the_empty_ones(reader: Reader) -> None:
    counts = reader.counts()
    assert list(counts) == [state.value for state in State]
    empty = {"submitting", "cancelled"}
    assert counts == {state.value: 0 if state in empty else 1 for state in State}
    assert reader.leads() == 8


def test_the_money_adds_up(reader: Reader) -> None:
    held, released = 2 * HOLD, (HOLD - 420_000) + 3 * HOLD  # jobs 2 and 3 are open; 4, 5 and 8 cost nothing
    assert reader.money() == Money(420_000 + HOLD, held, released, 0)
    assert reader.money().charged_microusd + held + released == 7 * HOLD


def test_jobs_are_listed_newest_first_and_filtered(reader: Reader) -> None:
    assert [job["job_id"] for job in reader.jobs({}, 3)] == [8, 7, 6]
    (lost,) = reader.jobs({"state": "lost", "route": ROUTE, "reason": "written_off", "lead_id": 6}, 10)
    assert (lost["charged_microusd"], lost["held_microusd"], lost["attempts"]) == (HOLD, 0, 1)
    (waiting,) = reader.jobs({"state": "waiting", "reason": None}, 10)
    assert (waiting["charged_microusd"], waiting["held_microusd"]) == (0, HOLD)
    assert (waiting["remote_job_id"], waiting["company"]) == ("remote-2", "company 2")
    assert reader.jobs({"state": "waiting", "lead_id": 1}, 10) == []


def test_a_leads_story_is_complete_and_in_order(reader: Reader) -> None:
    story = reader.lead(1)
    assert story.lead["company"] == "company 1"
    assert [(row["file_name"], row["row_number"]) for row in story.source_rows] == [
        ("leads.csv", 2),
        ("leads.csv", 10),
    ]
    assert [(step["from_state"], step["to_state"]) for step in story.steps] == [
        ("new", "queued"),
        ("queued", "submitting"),
        ("submitting", "waiting"),
        ("waiting", "matched"),
    ]
    assert [(cost["kind"], cost["amount_microusd"]) for cost in story.money] == [
        ("hold", HOLD),
        ("charge", 420_000),
        ("release", HOLD - 420_000),
    ]
    assert [(result["matched"], result["body"]) for result in story.results] == [(1, '{"found": 1}')]


@pytest.mark.parametrize("name", ["3", "company 3", "COMPANY 3"])
def test_a_lead_is_found_by_its_number_or_name(reader: Reader, name: str) -> None:
    assert reader.find_lead(name) == 3


def test_a_lead_that_is_not_there_or_not_the_only_one_is_said(desk: Any) -> None:
    desk.take(desk.row(2, contact="crm:1", company="acme"), desk.row(3, contact="crm:2", company="Acme"))
    with Reader(desk.path) as reader:
        assert reader.find_lead("2") == 2
        with pytest.raises(UsageProblem, match="No lead is called '99'"):
            reader.find_lead("99")
        with pytest.raises(UsageProblem, match=r"2 leads are called 'acme'.*Their numbers: 1, 2"):
            reader.find_lead("acme")


def test_export_gives_every_row_in_its_order_with_what_became_of_it(reader: Reader) -> None:
    rows = list(reader.exported(1, ROUTE))
    assert [row.row_number for row in rows] == list(range(2, 12))
    assert [row.state for row in rows] == [
        "matched", "waiting", "in_doubt", "failed", "queued", "lost", "skipped", "no_match", "matched", None,
    ]  # fmt: skip
    first, again, rejected = rows[0], rows[8], rows[9]
    assert first.raw == {"company": "company 1", "city": "Reno"}
    assert (first.matched, first.body, first.charged_microusd, first.held_microusd) == (
        1,
        '{"found": 1}',
        420_000,
        0,
    )
    assert (again.lead_id, again.job_id) == (first.lead_id, first.job_id)
    assert (rejected.lead_id, rejected.job_id, rejected.problem) == (None, None, "Company: empty")
    assert (rows[1].held_microusd, rows[5].charged_microusd) == (HOLD, HOLD)
    assert {row.state for row in reader.exported(1, "enrich/phone")} == {None}
    assert [row.state for row in reader.exported(1, None)] == [row.state for row in rows]


def test_the_newest_run_and_what_finished_since(reader: Reader) -> None:
    run = reader.last_run()
    assert run is not None
    assert (run["id"], run["stop_reason"], run["budget_microusd"]) == (1, "interrupted", 100_000_000)
    assert reader.finished_since("2026-03-02T09:00:20.000000Z") == 3
    assert reader.finished_since("2026-03-02T09:00:20.000001Z") == 0


def test_a_plan_says_what_a_run_would_send_and_writes_nothing(desk: Any) -> None:
    desk.ready(2)
    desk.claim(1)
    desk.record(1, desk.accepted())
    desk.record(1, desk.finished(420_001))
    desk.leads(3)
    desk.take(desk.row(2, email="x@y.test"))
    with Reader(desk.path) as reader:
        plan = reader.plan(ROUTE, Selection(), desk.build)
        assert (plan.to_send, plan.skipped, plan.average_cost_microusd) == (4, {"lacks_fields": 1}, 420_001)
        assert reader.plan(ROUTE, Selection(limit=3), desk.build).to_send == 3
        other = reader.plan("enrich/phone", Selection(lead_ids=(1, 6)), desk.build)
        assert (other.to_send, other.skipped, other.average_cost_microusd) == (1, {"lacks_fields": 1}, None)
        with pytest.raises(UsageProblem, match="no field"):
            reader.plan(ROUTE, Selection(where=(("nope", "1"),)), desk.build)
    done = desk.enqueue()
    assert (done.queued, done.skipped) == (3, {"lacks_fields": 1})


def test_it_reads_beside_a_writer_and_sees_only_what_is_committed(desk: Any) -> None:
    desk.leads(1)
    with Reader(desk.path) as reader:
        connection = desk.ledger.books.connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO leads (source, created_at) VALUES ('x', 'x')")
        assert reader.leads() == 1
        connection.execute("COMMIT")
        assert reader.leads() == 2


def test_the_small_looks(reader: Reader, desk: Any) -> None:
    assert (reader.schema_version(), reader.quick_check(), reader.balance_history()) == (
        SCHEMA_VERSION,
        "ok",
        [],
    )
    assert reader.import_id("last") == 1
    with Reader(desk.path) as empty:
        assert empty.last_run() is None
        assert empty.money() == Money(0, 0, 0, 0)
