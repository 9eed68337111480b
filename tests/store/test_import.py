"""Conformance: a file is taken in whole or not at all, once, and nobody is merged by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ledger.errors import BadInput
from ledger.model import SourceRow
from ledger.store import imports
from ledger.store.imports import Noted


def leads(desk: Any, *columns: str) -> list[tuple[Any, ...]]:
    return desk.sql(f"SELECT {', '.join(columns)} FROM leads ORDER BY id")


def test_every_row_is_a_new_lead_a_known_one_or_a_rejection(desk: Any) -> None:
    report = desk.take(
        desk.row(2, company="acme"),
        desk.row(3, company="bolt"),
        desk.row(4, company="acme"),
        desk.row(5, rejection=(None, "no identity")),
        desk.row(6, company="cog", problem="number1: not a phone number"),
    )
    assert (report.rows_read, report.leads_new, report.leads_known, report.rows_rejected) == (5, 3, 1, 1)
    assert desk.sql("SELECT rows_read, leads_new, leads_known, rows_rejected FROM imports") == [(5, 3, 1, 1)]
    rows = desk.sql("SELECT row_number, lead_id, problem FROM source_rows ORDER BY row_number")
    assert rows == [
        (2, 1, None),
        (3, 2, None),
        (4, 1, None),
        (5, None, "no identity"),
        (6, 3, "number1: not a phone number"),
    ]
    assert report.rejections == [Noted(5, None, "no identity")]
    assert report.problem_count == 1


def test_the_same_file_again_writes_nothing_and_answers_the_same(desk: Any) -> None:
    rows = [
        desk.row(2, company="acme"),
        desk.row(3, rejection=("E-Mail", "empty")),
        desk.row(4, rejection=(None, "no identity: nothing in it")),
    ]
    first = desk.take(*rows, sha256="same")
    changes = desk.ledger.books.connection.total_changes
    again = desk.take(*rows, sha256="same")
    assert desk.ledger.books.connection.total_changes == changes
    assert again.again
    assert (again.import_id, again.rows_read, again.leads_new) == (first.import_id, 3, 0)
    assert (again.leads_known, again.rows_rejected) == (1, 2)
    assert again.rejections == first.rejections
    assert first.rejections == [Noted(3, "E-Mail", "empty"), Noted(4, None, "no identity: nothing in it")]


@pytest.mark.parametrize(
    "otherwise",
    [
        {"mapping": {"dm_name": ["Company"]}},
        {"unmapped": ("Note",)},
        {"headers": ("Company", "Note")},
        {"encoding": "cp1252"},
        {"delimiter": ";"},
        {"region": "GB"},
    ],
    ids=lambda otherwise: next(iter(otherwise)),
)
def test_the_same_bytes_read_otherwise_are_another_import(desk: Any, otherwise: dict[str, Any]) -> None:
    """Else a wrong --encoding or --region could never be put right."""
    desk.take(desk.row(2, company="acme"), sha256="same")
    other = desk.ledger.import_rows(
        desk.facts("same", **otherwise), [desk.row(2, dm_name="x", company="acme")]
    )
    assert not other.again
    assert (other.leads_new, other.leads_known) == (0, 1)


def test_the_same_rows_in_another_file_are_known(desk: Any) -> None:
    rows = [desk.row(number, company=f"c{number}") for number in range(2, 7)]
    desk.take(*rows)
    report = desk.take(*rows)
    assert (report.leads_new, report.leads_known, report.changed_count) == (0, 5, 0)
    assert desk.one("SELECT COUNT(*) FROM leads") == 5


def test_empty_fields_are_filled_and_other_words_are_listed_but_left_alone(desk: Any) -> None:
    desk.take(desk.row(2, company="acme", city="Reno"))
    report = desk.take(desk.row(2, company="acme", city="Elko", email="a@acme.test", state="NV"))
    assert leads(desk, "city", "email", "state", "email_key") == [
        ("Reno", "a@acme.test", "NV", "a@acme.test")
    ]
    assert report.changed_count == 1
    assert report.changed == [Noted(2, "city", "lead 1 has 'Reno', this row says 'Elko'")]


def test_two_rows_of_one_file_fill_the_same_lead(desk: Any) -> None:
    desk.take(desk.row(2, company="acme"))
    report = desk.take(
        desk.row(2, company="acme", city="Reno"), desk.row(3, company="acme", city="Elko", zip="89501")
    )
    assert leads(desk, "city", "zip") == [("Reno", "89501")]
    assert report.changed == [Noted(3, "city", "lead 1 has 'Reno', this row says 'Elko'")]


def test_further_columns_and_an_opt_out_come_with_a_later_file(desk: Any) -> None:
    desk.take(desk.row(2, company="acme"), desk.row(3, company="bolt", extra='{"tier": "1"}'))
    desk.take(
        desk.row(2, company="acme", extra='{"tier": "2"}'), desk.row(3, company="bolt", extra='{"tier": "3"}')
    )
    assert leads(desk, "extra", "suppressed") == [('{"tier": "2"}', 0), ('{"tier": "1"}', 0)]
    desk.take(desk.row(2, company="acme", suppressed=True))
    desk.take(desk.row(2, company="acme", suppressed=False))
    assert leads(desk, "suppressed") == [(1,), (0,)]


def test_the_contact_id_decides(desk: Any) -> None:
    report = desk.take(
        desk.row(2, contact="crm:1", company="acme", email="a@acme.test"),
        desk.row(3, contact="crm:1", company="renamed", email="b@acme.test"),
    )
    assert (report.leads_new, report.leads_known, report.changed_count) == (1, 1, 2)
    assert leads(desk, "contact_key", "company") == [("crm:1", "acme")]


@pytest.mark.parametrize("key", [{"email": "a@acme.test"}, {"company": "acme"}, {"number1": "+17755550100"}])
@pytest.mark.parametrize("same_file", [True, False])
def test_other_contact_ids_that_share_a_weaker_key_are_listed_never_merged(
    desk: Any, key: dict[str, str], *, same_file: bool
) -> None:
    one, two = desk.row(2, contact="crm:1", **key), desk.row(3, contact="crm:2", **key)
    if same_file:
        report = desk.take(one, two)
    else:
        desk.take(one)
        report = desk.take(two)
    assert leads(desk, "contact_key") == [("crm:1",), ("crm:2",)]
    said = "shares a weaker key with lead 1, another contact id"
    assert report.problems == [Noted(3, None, said)]
    assert desk.one("SELECT problem FROM source_rows WHERE lead_id = 2") == said


def test_a_row_without_contact_id_is_found_by_its_weaker_keys_strongest_first(desk: Any) -> None:
    desk.take(
        desk.row(2, contact="crm:1", email="a@acme.test", company="acme"),
        desk.row(3, contact="crm:2", email="b@bolt.test", company="bolt"),
    )
    desk.take(desk.row(2, email="a@acme.test", company="bolt"), desk.row(3, company="bolt"))
    assert desk.sql("SELECT lead_id FROM source_rows WHERE import_id = 2") == [(1,), (2,)]


def test_a_weaker_key_does_not_overrule_a_stronger_one(desk: Any) -> None:
    shared = {"company": "acme", "number1": "+17755550100"}
    report = desk.take(desk.row(2, email="a@acme.test", **shared), desk.row(3, email="b@acme.test", **shared))
    assert (report.leads_new, report.problem_count) == (2, 0)
    assert desk.take(desk.row(2, **shared)).leads_known == 1


def test_a_lead_without_contact_id_gains_one_once(desk: Any) -> None:
    desk.take(desk.row(2, company="acme"))
    report = desk.take(
        desk.row(2, contact="crm:1", company="acme"), desk.row(3, contact="crm:2", company="acme")
    )
    assert leads(desk, "contact_key", "contact_id") == [("crm:1", "1"), ("crm:2", "2")]
    assert (report.leads_new, report.leads_known, report.problem_count) == (1, 1, 1)


@pytest.mark.parametrize("chunk", [1, 2, 5000])
def test_the_size_of_a_chunk_makes_no_difference(
    desk: Any, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(imports, "CHUNK", chunk)
    report = desk.take(
        desk.row(2, company="acme"),
        desk.row(3, company="acme", email="a@acme.test"),
        desk.row(4, email="a@acme.test", city="Reno"),
        desk.row(5, contact="crm:1", email="a@acme.test"),
        desk.row(6, contact="crm:2", company="acme"),
    )
    assert (report.leads_new, report.leads_known) == (2, 3)
    assert leads(desk, "company", "email", "city", "contact_key") == [
        ("acme", "a@acme.test", "Reno", "crm:1"),
        ("acme", None, None, "crm:2"),
    ]


def test_a_file_found_unfit_half_way_leaves_nothing(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "CHUNK", 2)

    def unfit() -> Iterator[SourceRow]:
        for number in range(2, 7):
            yield desk.row(number, company=f"c{number}")
        raise BadInput("the file ends in the middle of a row", file="leads.csv", row=7)

    with pytest.raises(BadInput, match="row 7"):
        desk.ledger.import_rows(desk.facts("torn"), unfit())
    for table in ("imports", "leads", "source_rows"):
        assert desk.one(f"SELECT COUNT(*) FROM {table}") == 0
    assert desk.take(desk.row(2, company="c2"), sha256="torn").leads_new == 1


def test_the_report_is_bounded_and_its_counts_are_complete(
    desk: Any,
) -> None:
    rows = [desk.row(n, rejection=("Company", "empty")) for n in range(2, 7)]
    report = desk.ledger.import_rows(desk.facts("same"), rows, noted_max=2)
    assert (len(report.rejections), report.rows_rejected) == (2, 5)
    assert desk.ledger.import_rows(desk.facts("same"), rows, noted_max=2).rejections == report.rejections
    assert len(desk.ledger.import_rows(desk.facts("same"), rows, noted_max=9).rejections) == 5


def test_a_rehearsal_reports_what_the_import_will_and_leaves_nothing(desk: Any) -> None:
    desk.take(desk.row(2, company="acme"))
    first = desk.facts("first"), [desk.row(2, company="acme", city="Reno"), desk.row(3, company="bolt")]
    second = desk.facts("second"), [desk.row(2, company="bolt"), desk.row(3, rejection=(None, "empty"))]
    before = list(desk.ledger.books.connection.iterdump())
    told = desk.ledger.rehearse_import([first, second, first])
    assert list(desk.ledger.books.connection.iterdump()) == before
    assert [(one.leads_new, one.leads_known, one.rows_rejected) for one in told] == [
        (1, 1, 0),
        (0, 1, 1),
        (0, 2, 0),
    ]
    assert [one.again for one in told] == [False, False, True]
    assert [desk.ledger.import_rows(*file) for file in (first, second, first)] == told


def test_a_rehearsal_of_an_unfit_file_leaves_nothing_either(desk: Any) -> None:
    def unfit() -> Iterator[SourceRow]:
        yield desk.row(2, company="acme")
        raise BadInput("a quote never closes", file="b.csv", row=3)

    with pytest.raises(BadInput, match="row 3"):
        desk.ledger.rehearse_import([(desk.facts(), [desk.row(2, company="c")]), (desk.facts(), unfit())])
    assert desk.one("SELECT COUNT(*) FROM leads") == 0
    assert desk.take(desk.row(2, company="acme")).leads_new == 1
