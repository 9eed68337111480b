"""Doing things from the browser: what is said, what is dropped, and what is not."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from ledger.migrations.migrations import migrations
from ledger.store.ledger import Ledger
from ledger.store.read import Reader


def confirm(site: Any, query: str) -> tuple[str, str]:
    """What the page says, and its ticket (empty when there is nothing to do)."""
    page = site.text(f"/-/ledger/do/{query}")
    ticket = re.search(r'name="ticket" value="([^"]+)"', page)
    said = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))
    return said, "" if ticket is None else unescape(ticket.group(1))


def send(site: Any, ticket: str, kind: str = "retry") -> Any:
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    return site.post(f"/-/ledger/do/{kind}", data={"ticket": ticket}, headers=headers)


def chosen(**named: Any) -> dict[str, Any]:
    nothing = {"job_ids": [], "lead_ids": [], "import_id": None, "state": None, "reason": None, "route": None}
    return {**nothing, "as_of": "2026-03-02T09:01:00.000000Z", **named}


@pytest.mark.parametrize(
    ("query", "says", "kind", "body"),
    [
        ("retry?job=4", "up to $1.50 is set aside", "retry", chosen(job_ids=[4])),
        ("retry?lead=4", "up to $1.50 is set aside", "retry", chosen(lead_ids=[4], state="failed")),
        ("retry?state=failed", "every job with state failed: 1 job", "retry", chosen(state="failed")),
        ("retry", "every job with state failed: 1 job", "retry", chosen(state="failed")),
        ("retry?reason=written_off", "reason written off: 1 job", "retry", chosen(reason="written_off")),
        ("pause?job=7", "This costs nothing", "pause", chosen(job_ids=[7])),
        ("pause", "every job: 3 jobs", "pause", chosen()),
        ("cancel?route=enrich/websearch", "3 jobs", "cancel", chosen(route="enrich/websearch")),
        ("suppress?lead=7", "1 job in the queue is skipped", "suppress", chosen(lead_ids=[7])),
        (
            "resolve?job=3&choice=write-off",
            "Up to $1.50 counts as spent",
            "resolve",
            {"choice": "write-off", "doubts": [[3, 1]]},
        ),
        (
            "resolve?choice=resend",
            "If the first call was accepted, both are paid",
            "resolve",
            {"choice": "resend", "doubts": [[3, 1]]},
        ),
        (
            "resolve?job=3&choice=accept&remote=job_77",
            "Polling costs nothing",
            "resolve",
            {"choice": "accept", "doubts": [[3, 1]], "remote_job_id": "job_77"},
        ),
    ],
)
def test_what_is_confirmed_is_what_is_dropped(
    site: Any, query: str, says: str, kind: str, body: dict[str, Any]
) -> None:
    said, ticket = confirm(site, query)
    assert says in said
    assert site.waiting() == [], "looking drops nothing"
    answer = send(site, ticket, kind)
    assert answer.status_code == 303
    (item,) = site.waiting()
    assert (item["kind"], item["body"]) == (kind, body)
    assert answer.headers["location"] == f"/-/ledger/done/{item['id']}"
    assert "not yet carried out" in site.text(answer.headers["location"])
    assert site.applied == [site.path]


@pytest.mark.parametrize(
    "query",
    [
        "retry?job=2",
        "retry?job=7",
        "resume?job=7",
        "pause?job=1",
        "cancel?job=4",
        "resolve?job=1&choice=resend",
    ],
)
def test_where_there_is_nothing_to_do_there_is_no_form(site: Any, query: str) -> None:
    said, ticket = confirm(site, query)
    assert ticket == ""
    assert "Nothing is changed" in said


@pytest.mark.parametrize("remote", ["", "../balance", "a b", "x" * 129, "é"])
def test_the_providers_id_is_asked_for_until_it_is_one(site: Any, remote: str) -> None:
    said, ticket = confirm(site, f"resolve?job=3&choice=accept&remote={remote}")
    assert ticket == ""
    assert "Letters, digits, _ and - only" in said


def test_a_form_sent_twice_is_one_intent(site: Any) -> None:
    _, ticket = confirm(site, "pause?job=7")
    assert send(site, ticket).headers["location"] == send(site, ticket).headers["location"]
    assert len({item["id"] for item in site.waiting()}) == 1


def test_a_ticket_cannot_be_made_elsewhere_or_changed(site: Any) -> None:
    _, ticket = confirm(site, "pause?job=7")
    for bad in ("", "x", ticket[:-2], ticket.replace(ticket[0], "Z", 1), site.datasette.sign("{}", "other")):
        answer = send(site, bad)
        assert answer.status_code == 400
        assert "Nothing was changed" in answer.text
    assert send(site, site.datasette.sign('{"id": "x"}', "leadledger-wish")).status_code == 400
    assert site.waiting() == []


def test_a_post_without_any_ticket_or_far_too_long_changes_nothing(site: Any) -> None:
    assert site.post("/-/ledger/do/retry").status_code == 400
    assert site.post("/-/ledger/do/retry", data={"ticket": "x" * 100_000}).status_code == 400
    assert site.waiting() == []


def test_the_web_process_never_writes_the_ledger(site: Any) -> None:
    with Reader(site.path) as reader:
        before = reader.counts(), reader.money()
    content = site.path.read_bytes()
    for query, kind in (("cancel?job=7", "cancel"), ("resolve?job=3&choice=resend", "resolve")):
        send(site, confirm(site, query)[1], kind)
    with Reader(site.path) as reader:
        assert (reader.counts(), reader.money()) == before
    assert site.path.read_bytes() == content


def test_a_full_disk_is_said(site: Any) -> None:
    _, ticket = confirm(site, "pause?job=7")
    site.path.with_name("leads.db.inbox").write_text("in the way")
    answer = send(site, ticket)
    assert answer.status_code == 503
    assert "cannot be used" in answer.text


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("retry", 1),
        ("retry?job=5", 1),
        ("retry?lead=4", 1),
        ("retry?reason=written_off", 1),
        ("pause", 3),
        ("cancel?job=7", 1),
        ("suppress?lead=7", 1),
        ("resolve?choice=write-off", 1),
        ("resolve?job=3&choice=accept&remote=job_77", 1),
    ],
)
def test_as_many_jobs_are_touched_as_the_page_said(site: Any, query: str, number: int) -> None:
    said, ticket = confirm(site, query)
    assert re.search(rf"\b{number} (jobs?|doubtful calls?)\b|Job 3 is polled", said)
    where = send(site, ticket).headers["location"]
    with Ledger(site.path, "test", clock=site.clock, migrations=migrations) as ledger:
        ledger.recover()
        ledger.take_inbox()
        outcome = ledger.outcome_of(where.rpartition("/")[2])
    assert outcome is not None
    assert (outcome.jobs, outcome.refused) == (number, False)
    page = site.text(where)
    assert "<h1>Done</h1>" in page
    assert outcome.outcome in unescape(page)
    assert site.waiting() == []
