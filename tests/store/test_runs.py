"""Conformance: one life of the runner; what a crash leaves; who pays from which budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ledger.errors import Bug, UsageProblem
from ledger.events import NotSent
from ledger.states import CHAIN_ENDS, StopReason
from ledger.store.exposure import Caps
from ledger.store.selection import Selection

TIGHT = Caps(chain_microusd=2 * 1_500_000)


def chains(desk: Any) -> list[int]:
    return [row[0] for row in desk.sql("SELECT chain_id FROM runs ORDER BY id")]


def test_a_post_in_the_air_when_its_runner_died_is_a_doubt_and_recovery_may_run_twice(desk: Any) -> None:
    desk.ready(3)
    desk.claim(2)
    desk.record(1, desk.accepted())
    desk.die()
    desk.clock.advance(60)
    found = desk.ledger.recover()
    assert (found.died_runs, found.new_doubts) == (1, 1)
    assert [desk.state(job) for job in (1, 2, 3)] == ["waiting", "in_doubt", "queued"]
    assert desk.steps(2)[-1] == ("submitting", "in_doubt", "found_at_start")
    assert desk.sql("SELECT outcome, error, ended_at FROM attempts WHERE job_id = 2") == [
        ("in_doubt", "runner_died", desk.now())
    ]
    assert desk.costs(2) == [("hold", desk.ceiling)]
    assert desk.sql("SELECT stop_reason, ended_at FROM runs") == [("died", desk.now())]
    before = list(desk.ledger.books.connection.iterdump())
    again = desk.ledger.recover()
    assert (again.died_runs, again.new_doubts) == (0, 0)
    assert list(desk.ledger.books.connection.iterdump()) == before


def test_a_run_knows_its_settings_caps_and_process(desk: Any) -> None:
    desk.begin(Caps(1, 2, 3, 4))
    row = desk.sql(
        "SELECT chain_id, started_at, settings, budget_microusd, budget_day_microusd, budget_lead_microusd, "
        "budget_total_microusd, origin, ended_at FROM runs"
    )
    assert row == [(1, desk.now(), "{}", 1, 2, 3, 4, desk.origin, None)]
    desk.clock.advance(5)
    desk.ledger.end_run(StopReason.LIMIT)
    assert desk.sql("SELECT ended_at, stop_reason FROM runs") == [(desk.now(), "limit")]


@pytest.mark.parametrize("reason", list(StopReason))
def test_only_a_run_that_came_to_its_end_closes_its_chain(desk: Any, reason: StopReason) -> None:
    desk.begin()
    if reason is StopReason.DIED:
        desk.die()
    else:
        desk.ledger.end_run(reason)
    desk.begin()
    assert chains(desk) == ([1, 2] if reason in CHAIN_ENDS else [1, 1])


def test_a_crash_never_resets_the_budget(desk: Any) -> None:
    desk.ready(5, TIGHT)
    desk.claim()
    for _ in range(3):
        desk.die()
        desk.begin(TIGHT)
    assert chains(desk) == [1, 1, 1, 1]
    desk.enqueue()
    claim = desk.claim(5)
    assert ([call.job_id for call in claim.calls], claim.blocked_by) == ([2], "budget")


def test_a_new_budget_starts_a_chain_but_open_holds_of_earlier_ones_count(desk: Any) -> None:
    desk.ready(6, TIGHT)
    desk.claim(2)
    desk.record(1, desk.accepted())
    desk.record(2, desk.accepted())
    desk.record(2, desk.finished(desk.ceiling))
    desk.die()
    desk.begin(TIGHT, new_budget=True)
    desk.enqueue()
    assert chains(desk) == [1, 2]
    assert len(desk.claim(5).calls) == 1  # job 1's hold is open, job 2's charge is the old chain's own
    desk.record(1, desk.finished(desk.ceiling))
    assert len(desk.claim(5).calls) == 1
    assert desk.claim(5).blocked_by == "budget"
    desk.ledger.end_run(StopReason.FINISHED)


def test_a_finished_chain_leaves_the_next_budget_whole_but_not_the_total(desk: Any) -> None:
    desk.ready(4, TIGHT)
    desk.claim()
    desk.record(1, desk.accepted())
    desk.record(1, desk.finished(desk.ceiling))
    desk.ledger.end_run(StopReason.FINISHED)
    desk.begin(Caps(chain_microusd=3 * desk.ceiling, total_microusd=3 * desk.ceiling))
    desk.enqueue()
    claim = desk.claim(5)
    assert (len(claim.calls), claim.blocked_by) == (2, "budget_total")


def test_another_provider_is_refused_unless_it_is_meant(desk: Any) -> None:
    ledger = desk.ledger
    desk.leads(1)
    ledger.begin_run(origin="https://api.mistyped.test", settings={}, caps=Caps())
    ledger.end_run(StopReason.UNREACHABLE)
    ledger.begin_run(origin="https://api.example.test", settings={}, caps=Caps())
    desk.enqueue()
    desk.claim()
    ledger.end_run(StopReason.FINISHED)
    with pytest.raises(UsageProblem, match="is another provider"):
        ledger.begin_run(origin="https://api.other.test", settings={}, caps=Caps())
    assert chains(desk) == [1, 1]
    ledger.begin_run(origin="https://api.other.test", settings={}, caps=Caps(), change_provider=True)


def test_loopback_ports_are_one_provider(desk: Any) -> None:
    desk.leads(3)
    for origin in ("http://127.0.0.1:9", "http://localhost:10", "http://[::1]:11"):
        desk.ledger.begin_run(origin=origin, settings={}, caps=Caps())
        desk.enqueue()
        desk.claim()
        desk.ledger.end_run(StopReason.FINISHED)
    with pytest.raises(UsageProblem, match="another provider"):
        desk.ledger.begin_run(origin="http://127.0.0.1.example.test:9", settings={}, caps=Caps())


@pytest.mark.parametrize("name", ["chain_microusd", "day_microusd", "total_microusd"])
def test_running_totals_that_drifted_from_the_books_are_a_bug(desk: Any, name: str) -> None:
    desk.ready(1)
    desk.claim()
    setattr(desk.ledger.books.exposure, name, 1)
    with pytest.raises(Bug, match="not what the books say"):
        desk.ledger.end_run(StopReason.FINISHED)


def test_every_job_that_can_be_polled_is_listed_in_pages(desk: Any) -> None:
    desk.ready(1205)
    claim = desk.claim(1205)
    accepted = [(call.job_id, desk.accepted()) for call in claim.calls]

    async def all_of_them() -> None:
        for job_id, event in accepted:
            await desk.ledger.record(job_id, 1, event)

    desk.ledger.books.connection.execute("PRAGMA synchronous = OFF")  # speed: nothing here is about the disk
    desk.run(all_of_them())
    found = list(desk.ledger.open_jobs())
    assert [job.job_id for job in found] == list(range(1, 1206))
    assert found[0].remote_job_id == accepted[0][1].remote_job_id
    assert (found[0].fence, found[0].route, found[0].in_doubt) == (1, desk.route, False)
    assert found[0].accepted_at == desk.now()


def test_what_cannot_be_polled_is_not_listed(desk: Any) -> None:
    desk.ready(3)
    desk.claim(3)
    desk.doubt(1)
    desk.record(2, NotSent("dns"))
    assert list(desk.ledger.open_jobs()) == []


def test_latencies_are_seconds_from_acceptance_to_answer_as_the_sending_run_saw_them(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    desk.record(1, desk.accepted())
    desk.record(2, desk.accepted())
    desk.clock.advance(12.5)
    desk.record(1, desk.finished(), polls=3)
    desk.ledger.end_run(StopReason.INTERRUPTED)
    desk.begin()
    desk.clock.advance(5000)
    desk.record(2, desk.finished(), polls=1)  # done while nobody looked: says nothing
    assert desk.ledger.latencies(desk.route) == [pytest.approx(12.5, abs=0.01)]
    assert desk.ledger.latencies("enrich/phone") == []


def test_a_deleted_bearers_bytes_are_gone_when_the_run_has_ended(desk: Any) -> None:
    secret = "pb-verysecretbearer-0123456789"
    desk.ready(1)
    desk.claim()
    desk.record(1, desk.accepted("r-1", secret))
    folder: Path = desk.path.parent
    found = [entry for entry in folder.glob(desk.path.name + "*") if secret.encode() in entry.read_bytes()]
    assert found  # it is there while it is needed, or the test proves nothing
    desk.record(1, desk.finished())
    desk.ledger.end_run(StopReason.FINISHED)
    for entry in folder.glob(desk.path.name + "*"):
        assert secret.encode() not in entry.read_bytes(), entry.name


def test_there_is_something_to_do_while_a_job_is_open_or_a_lead_was_not_asked(desk: Any) -> None:
    def anything(selection: Selection | None = None) -> bool:
        return bool(desk.ledger.anything_to_do(desk.route, selection or Selection()))

    assert not anything()
    desk.leads(2)
    assert anything()
    assert not anything(Selection(lead_ids=(9,)))
    desk.begin()
    desk.enqueue()
    assert anything()
    assert desk.ledger.ready_count(desk.route) == 2
    desk.claim(2)
    assert anything()
    assert not desk.ledger.may_rebase()
    assert desk.ledger.ready_count(desk.route) == 0
    desk.record(1, desk.refused())
    desk.record(2, desk.refused())
    assert not anything()
    assert not desk.ledger.may_rebase(), "the last release is a moment old: its refund may be on its way"
    desk.clock.advance(60)
    assert desk.ledger.may_rebase()
    changes = desk.ledger.books.connection.total_changes
    assert desk.ledger.anything_to_do("enrich/phone", Selection())
    assert desk.ledger.books.connection.total_changes == changes
