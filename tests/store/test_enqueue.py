"""Conformance: each lead is asked once a route, and only what was selected."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.errors import UsageProblem
from ledger.store import enqueue as enqueuing
from ledger.store.enqueue import Asked
from ledger.store.selection import Selection, resolve_import

OTHER = "enrich/phone"


def queued_leads(desk: Any) -> list[int]:
    return [row[0] for row in desk.sql("SELECT lead_id FROM jobs WHERE state = 'queued' ORDER BY id")]


def test_every_lead_never_asked_gets_one_job_and_no_second(desk: Any) -> None:
    desk.leads(3)
    assert desk.enqueue().queued == 3
    assert desk.enqueue().queued == 0
    desk.leads(1)
    assert desk.enqueue().queued == 1
    assert queued_leads(desk) == [1, 2, 3, 4]
    assert desk.steps(4) == [("new", "queued", "enqueued")]
    assert desk.sql("SELECT DISTINCT route, mode, generation, attempt FROM jobs") == [
        (desk.route, "async", 1, 0)
    ]


def test_another_route_is_another_question(desk: Any) -> None:
    desk.leads(2)
    assert desk.enqueue().queued == 2
    assert desk.enqueue(route=OTHER).queued == 2
    assert desk.sql("SELECT lead_id, route FROM jobs WHERE lead_id = 1 ORDER BY id") == [
        (1, desk.route),
        (1, OTHER),
    ]


def test_what_can_never_be_sent_is_skipped_once_with_its_reason(desk: Any) -> None:
    desk.take(
        desk.row(2, company="acme"), desk.row(3, email="a@b.test"), desk.row(4, company="b", suppressed=True)
    )
    done = desk.enqueue()
    assert (done.queued, done.skipped) == (1, {"lacks_fields": 1, "suppressed": 1})
    assert desk.sql("SELECT lead_id, state, reason, request FROM jobs WHERE lead_id > 1") == [
        (2, "skipped", "lacks_fields", None),
        (3, "skipped", "suppressed", None),
    ]
    assert desk.steps(2) == [("new", "queued", "enqueued"), ("queued", "skipped", "lacks_fields")]
    again = desk.enqueue()
    assert (again.queued, again.skipped) == (0, {})


def test_a_lead_that_lacked_a_field_is_asked_once_a_later_file_brings_it(desk: Any) -> None:
    desk.take(desk.row(2, email="a@b.test"), desk.row(3, email="c@d.test"))
    assert desk.enqueue().skipped == {"lacks_fields": 2}
    desk.clock.advance(1)
    desk.take(desk.row(2, email="a@b.test", company="acme"), desk.row(3, email="c@d.test", city="Tucson"))
    done = desk.enqueue()
    assert (done.queued, done.skipped) == (1, {"lacks_fields": 1})
    assert desk.sql("SELECT lead_id, state, generation FROM jobs ORDER BY id") == [
        (1, "skipped", 1),
        (2, "skipped", 1),
        (1, "queued", 1),
        (2, "skipped", 2),
    ]
    again = desk.enqueue()
    assert (again.queued, again.skipped) == (0, {}), "running it again is free"


def test_the_request_is_built_from_the_lead_and_its_source(desk: Any) -> None:
    seen: list[dict[str, str]] = []
    desk.take(desk.row(2, contact="crm:7", company="acme", zip="02139"))

    def build(_: str, lead: Any) -> Asked:
        seen.append(dict(lead))
        return Asked("{}", "k")

    desk.ledger.enqueue(desk.route, "async", Selection(), build)
    assert seen == [{"contact_id": "7", "company": "acme", "zip": "02139", "source_system": "file"}]


def test_a_forgotten_lead_is_not_asked(desk: Any) -> None:
    desk.leads(2)
    desk.sql("UPDATE leads SET forgotten_at = 'x' WHERE id = 1")
    assert desk.enqueue().queued == 1
    assert queued_leads(desk) == [2]


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_limit_counts_what_is_queued_already(desk: Any, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(enqueuing, "PAGE", page)
    desk.leads(5)
    assert desk.enqueue(Selection(limit=2)).queued == 2
    assert desk.enqueue(Selection(limit=2)).queued == 0
    assert desk.enqueue(Selection(limit=3)).queued == 1
    assert desk.enqueue(Selection(limit=0)).queued == 0
    assert queued_leads(desk) == [1, 2, 3]


def test_a_limit_does_not_count_what_is_skipped(desk: Any) -> None:
    desk.take(*(desk.row(n, company=f"c{n}", suppressed=n < 5) for n in range(2, 8)))
    assert desk.enqueue(Selection(limit=2)).queued == 2


def test_only_the_leads_of_an_import_are_asked(desk: Any) -> None:
    desk.leads(2)
    desk.take(desk.row(2, company="company 2"), desk.row(3, company="new"))
    assert desk.enqueue(Selection(import_id=2)).queued == 2
    assert queued_leads(desk) == [2, 3]


def test_only_the_leads_named_are_asked(desk: Any) -> None:
    desk.leads(4)
    assert desk.enqueue(Selection(lead_ids=(4, 2, 99))).queued == 2
    assert queued_leads(desk) == [2, 4]


def test_only_the_leads_whose_field_says_so_are_asked(desk: Any) -> None:
    desk.take(
        desk.row(2, company="a", state="NV", extra='{"Lead tier": "gold", "n": "1"}'),
        desk.row(3, company="b", state="NV", extra='{"Lead tier": "tin"}'),
        desk.row(4, company="c", state="UT", extra='{"Lead tier": "gold"}'),
        desk.row(5, company="d", state="NV"),
    )
    assert desk.enqueue(Selection(where=(("state", "NV"), ("Lead tier", "gold")))).queued == 1
    assert queued_leads(desk) == [1]
    assert desk.enqueue(Selection(where=(("state", "NV"),))).queued == 2


def test_a_field_that_no_lead_has_is_refused_before_anything_is_written(desk: Any) -> None:
    desk.take(desk.row(2, company="a", extra='{"tier": "gold"}'))
    with pytest.raises(UsageProblem, match=r"no field 'teir'.*tier"):
        desk.enqueue(Selection(where=(("teir", "gold"),)))
    with pytest.raises(UsageProblem, match="no field"):
        desk.enqueue(Selection(where=(('x"]; DROP TABLE jobs', "gold"),)))
    assert queued_leads(desk) == []


def test_an_import_is_called_last_or_by_its_number(desk: Any) -> None:
    connection = desk.ledger.books.connection
    for name in ("last", "1", "x", "-1", "²"):
        with pytest.raises(UsageProblem, match="There is no import"):
            resolve_import(connection, name)
    desk.leads(1)
    desk.leads(1)
    assert [resolve_import(connection, name) for name in ("last", "1", "2")] == [2, 1, 2]


class Killed(BaseException):
    """What SIGKILL would do, as far as a transaction is concerned."""


def test_killed_between_two_pages_the_next_call_writes_the_rest(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueuing, "PAGE", 3)
    desk.leads(8)
    built = 0

    def dies(route: str, lead: Any) -> Any:
        nonlocal built
        built += 1
        if built == 8:
            raise Killed
        return desk.build(route, lead)

    with pytest.raises(Killed):
        desk.ledger.enqueue(desk.route, "async", Selection(), dies)
    assert desk.elsewhere("SELECT COUNT(*) FROM jobs") == [(6,)]
    desk.die()
    assert desk.enqueue().queued == 2
    assert desk.sql("SELECT COUNT(*), COUNT(DISTINCT lead_id) FROM jobs") == [(8, 8)]
