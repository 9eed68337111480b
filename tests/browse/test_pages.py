"""The pages: what they say of a ledger with something of everything in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ledger.browse import overview, words
from ledger.browse.catalog import catalog
from ledger.browse.compat import IS_ONE
from ledger.states import State, StopReason
from ledger.store.engine import sqlite3
from ledger.store.inbox import drop
from ledger.store.read import Reader


def words_of(html: str) -> str:
    """A page's text, as it is read."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+([.,:;]|$)", r"\1", re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text))))


def test_overview_says_how_the_run_is_doing(reading: Any) -> None:
    said = words_of(reading.text("/-/ledger"))
    assert "Run 1 is on" in said
    assert "process 4711 (run)" in said
    assert "9 jobs, 4 of them final" in said
    with Reader(reading.path) as reader:
        money, counts = reader.money(), reader.counts()
    assert money.charged_microusd == 420_000 + 30_000 + 1_500_000
    assert "Charged $1.95" in said
    assert "Set aside $3.00" in said
    assert "Left of the budget $95.05 of $100.00" in said
    assert "In doubt: up to $1.50" in said
    assert "in doubt: read_timeout; it may have been accepted, the money stays set aside" in said
    assert "Last errors" in said
    page = reading.text("/-/ledger")
    for state, number in counts.items():
        assert (f"state={state}" in page) == (number > 0)


def test_the_money_of_the_overview_adds_up_to_the_budget(reading: Any) -> None:
    said = words_of(reading.text("/-/ledger"))
    amount = r"\$([\d.]+)"
    found = re.search(f"Charged {amount} Set aside {amount} Left of the budget {amount} of {amount}", said)
    assert found is not None
    charged, held, left, budget = (round(float(part) * 1_000_000) for part in found.groups())
    assert charged + held + left == budget


def test_a_run_that_is_over_and_one_that_died(
    site_on: Callable[[Path], Any], told: Path, ended: Path
) -> None:
    over = site_on(ended)
    over.holder = ""
    page = over.text("/-/ledger")
    assert "No run is on" in page
    assert 'data-on="0"' in page
    assert "ended now: it was time" in words_of(page)
    died = site_on(told)
    died.holder = ""
    said = words_of(died.text("/-/ledger"))
    assert "Run 1 died without a word. Nothing paid is lost" in said
    assert 'data-on="0"' in died.text("/-/ledger")


def test_the_part_that_refreshes_is_the_part_of_the_page(reading: Any) -> None:
    part = reading.text("/-/ledger?part=now")
    assert "<html" not in part
    assert 'data-on="1"' in part
    for line in part.splitlines():
        assert line in reading.text("/-/ledger")


def test_totals_follow_what_is_written_later(site: Any) -> None:
    """The tally reads only what is new, and says what a sum over everything says."""
    site.text("/-/ledger")
    connection = sqlite3.connect(site.path)
    connection.execute(
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) "
        "VALUES (1, 1, 'adjust', 1000000, '2026-03-02T09:02:00.000000Z')"
    )
    connection.commit()
    connection.close()
    assert "Charged $2.95" in words_of(site.text("/-/ledger"))
    with Reader(site.path) as reader:
        assert reader.money().charged_microusd == 2_950_000


def test_lead_is_a_story_in_sentences(reading: Any) -> None:
    said = words_of(reading.text("/-/ledger/leads/1"))
    for sentence in (
        "Laser Bella",
        "It has cost $0.42",
        "came in as row 2 of leads.csv",
        "written down to be asked",
        "sent (attempt 1), $1.50 set aside",
        "accepted by the provider as remote-1",
        "done: matched",
        "charged $0.42",
        "$1.08 set free again",
        "The answer as it came",
        "Ann O'Neil",
    ):
        assert sentence in said, sentence
    at = [
        said.index(text) for text in ("came in as row", "sent (attempt 1)", "done: matched", "$1.08 set free")
    ]
    assert at == sorted(at)


def test_each_state_offers_what_can_be_done(reading: Any) -> None:
    offers = {
        lead: sorted(
            set(
                re.findall(
                    r"/-/ledger/do/([a-z]+\?[^\"]*)", unescape(reading.text(f"/-/ledger/leads/{lead}"))
                )
            )
        )
        for lead in range(1, 8)
    }
    assert offers[1] == ["retry?job=1", "suppress?lead=1"]
    assert offers[2] == ["suppress?lead=2"]
    assert offers[3] == [
        "resolve?job=3&choice=accept",
        "resolve?job=3&choice=resend",
        "resolve?job=3&choice=write-off",
        "suppress?lead=3",
    ]
    assert offers[7] == ["cancel?job=7", "pause?job=7", "suppress?lead=7"]


def test_other_peoples_text_stays_text(reading: Any) -> None:
    for path in (
        "/-/ledger/leads/1",
        "/-/ledger/leads/8",
        "/-/ledger/find?q=script",
        "/leads/leads",
        "/leads/results",
    ):
        page = reading.text(path)
        assert "<script>alert" not in page, path
        assert 'href="javascript:' not in page, path
    # 1.0 names its rows in an attribute, which nobody sees: only what is read counts.
    turned = words_of(
        reading.text("/-/ledger/leads/9") + reading.text("/leads/leads") + reading.text("/leads/lead_spend")
    )
    assert "\u202e" not in turned
    assert "Ev\ufffdil" in turned
    hit = reading.text('/-/ledger/find?q="><script>alert(3)</script>')
    assert "<script>alert" not in hit


def test_run_page_and_list(reading: Any) -> None:
    said = words_of(reading.text("/-/ledger/runs/1"))
    for text in (
        "Run 1",
        "On since 1 min ago",
        "Charged $1.95",
        "$100.00",
        "4 accepted",
        "The same as a table",
    ):
        assert text in said, text
    assert "Run 1" in words_of(reading.text("/-/ledger/runs"))


def test_chart_agrees_with_the_books(reading: Any) -> None:
    told = reading.get("/-/ledger/chart.json").json()
    assert told["width_min"] == 1
    assert told["charged_usd"][-1] == pytest.approx(1.95)
    assert told["held_usd"][-1] == pytest.approx(3.0)
    assert sum(told["entered"]["matched"]) == 1
    assert len(told["times"]) == len(told["charged_usd"]) == len(told["entered"]["lost"])
    assert reading.get("/-/ledger/chart.json?run=99").json()["times"] == []


def test_find(reading: Any) -> None:
    assert reading.get("/-/ledger/find?q=laser").headers["location"] == "/-/ledger/leads/1"
    assert reading.get("/-/ledger/find?q=3").headers["location"] == "/-/ledger/leads/3"
    assert "No lead is called so" in reading.text("/-/ledger/find?q=nobody")
    assert words_of(reading.text("/-/ledger/find?q=f")).count("Ann O'Neil") == 2
    assert "No lead is called so" in reading.text("/-/ledger/find?q=%25")


@pytest.mark.parametrize(
    "path",
    [
        "/-/ledger/leads/99",
        "/-/ledger/leads/x",
        "/-/ledger/leads/99999999999999999999999",
        "/-/ledger/runs/7",
        "/-/ledger/jobs/77",
        "/-/ledger/chart.json?run=-1",
        "/-/ledger/do/destroy?job=1",
        "/-/ledger/do/retry?job=99",
        "/-/ledger/do/retry?state=nowhere",
        "/-/ledger/do/suppress",
        "/-/ledger/do/resolve?job=3",
    ],
)
def test_what_is_not_there_is_said_to_be_missing(reading: Any, path: str) -> None:
    answer = reading.get(path)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


def test_job_leads_to_its_lead(reading: Any) -> None:
    assert reading.get("/-/ledger/jobs/3").headers["location"] == "/-/ledger/leads/3#job-3"


def test_datasettes_own_tables_have_badges_dollars_and_links(reading: Any) -> None:
    jobs = reading.text("/leads/jobs")
    assert '<span class="badge s-in_doubt">' in jobs
    assert 'href="/-/ledger/leads/3"' in jobs
    assert re.search(
        r'<time datetime="2026-03-02T09:00:30.000000Z" title="2026-03-02 09:00:30 UTC">30 s ago', jobs
    )
    assert '<span class="usd">$0.42</span>' in reading.text("/leads/lead_spend")
    assert 'title="$1.50"' in reading.text("/leads/costs")
    assert "In micro-dollars" in reading.text("/leads/costs") or "micro-dollars" in reading.text(
        "/leads/costs"
    )


def test_newest_first_with_facets(reading: Any) -> None:
    told = reading.get("/leads/jobs.json?_extra=facet_results,sorted_facet_results&_shape=objects").json()
    assert [row["id"] for row in told["rows"]] == sorted((row["id"] for row in told["rows"]), reverse=True)
    page = reading.text("/leads/jobs")
    for facet in ("state", "route", "reason"):
        assert f'data-column="{facet}"' in page
        assert f"{facet}=" in page


def test_every_question_is_answered(reading: Any) -> None:
    for name, question in catalog().queries.items():
        said = words_of(reading.text(f"/leads/{name}"))
        assert question.title in said, name
    spend = reading.get("/leads/most-expensive-leads.json?_shape=array").json()
    assert [(row["lead_id"], row["charged_usd"]) for row in spend] == [(6, 1.5), (1, 0.42), (5, 0.03)]
    nothing = reading.get("/leads/paid-for-nothing.json?_shape=array").json()
    assert [(row["lead_id"], row["charged_usd"]) for row in nothing] == [(6, 1.5), (5, 0.03)]
    latency = reading.get("/leads/latency-percentiles.json?_shape=array").json()
    assert latency[0]["p50_s"] == pytest.approx(30.0, abs=0.01)


def test_the_catalogue_is_complete(reading: Any) -> None:
    with Reader(reading.path) as reader:
        columns = {
            name: names for name, names in reader.columns().items() if not name.startswith(("_", "sqlite_"))
        }
    known = catalog()
    assert set(known.tables) == set(columns)
    assert not set(known.queries) & set(columns), "a query would hide a table on 0.65, and be hidden on 1.0"
    for table, names in columns.items():
        assert list(known.columns(table, names)) == list(names), table
        assert set(known.tables[table].columns) <= set(names), table
        assert {known.tables[table].newest, known.tables[table].label, None} - set(names) == {None}, table
        assert set(known.tables[table].facets) <= set(names), table
    used = {
        name for table, names in columns.items() for name in names if name not in known.tables[table].columns
    }
    assert set(known.words) <= used | {"host"}


def test_every_page_of_ours_has_a_language_a_title_and_named_controls(reading: Any) -> None:
    for path in (
        "/-/ledger",
        "/-/ledger/leads/3",
        "/-/ledger/runs/1",
        "/-/ledger/find",
        "/-/ledger/do/retry?job=4",
    ):
        page = reading.text(path)
        assert '<html lang="en">' in page
        assert re.search(r"<title>[^<]+ · leadledger</title>", page)
        assert page.count("<h1>") == 1
        for control in re.findall(r"<input(?![^>]*type=\"hidden\")[^>]*>", page):
            name = re.search(r'id="([^"]+)"', control)
            assert name is not None, control
            assert f'for="{name.group(1)}"' in page, control


def test_permissions_of_this_datasette_hold(site: Any) -> None:
    if IS_ONE:
        site.datasette.config["databases"]["leads"]["allow"] = False
    else:
        site.datasette._metadata_local["databases"]["leads"]["allow"] = False
    for path in ("/-/ledger", "/-/ledger/leads/1", "/-/ledger/runs/1", "/-/ledger/do/retry?job=4"):
        assert site.get(path).status_code == 403


def test_every_way_a_run_ends_and_every_state_has_words() -> None:
    assert set(words.ENDINGS) == set(StopReason)
    assert set(words.SIGNS) == set(State)
    assert len(set(words.SIGNS.values())) == len(State), "two states with one sign differ by colour alone"


def test_a_log_that_grew_too_long_is_warned_of(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Warning" not in words_of(reading.text("/-/ledger"))
    monkeypatch.setattr(overview, "WAL_BYTES_MAX", -1)
    assert "keeps reading the ledger and holds it back" in words_of(reading.text("/-/ledger"))


def test_no_part_of_the_money_is_more_than_the_whole(site: Any) -> None:
    books = sqlite3.connect(site.path)
    query = "INSERT INTO costs (run_id, kind, amount_microusd, at) VALUES (?, ?, ?, ?)"
    books.execute(query, (1, "unattributed", 7_000_000, "2026-03-02T09:00:30.000000Z"))
    books.commit()
    books.close()
    page = words_of(site.text("/-/ledger"))
    said = re.search(r"Charged \$([0-9.]+) .*Charged in this ledger.s life \$([0-9.]+)", page)
    assert said is not None, page
    assert float(said[1]) > 7, "control: it counts as charged"
    assert said[1] == said[2]


@pytest.mark.parametrize("holder", ["process 4711 (run)", ""])
def test_what_waits_is_told_by_kind(site: Any, holder: str) -> None:
    site.holder = holder
    wish, run = (" by the next command that writes", " by the next run") if not holder else ("", "")
    assert "to be carried out" not in words_of(site.text("/-/ledger"))
    drop(site.path, "retry", {})
    page = words_of(site.text("/-/ledger"))
    assert f"1 wish waits to be carried out{wish}." in page
    assert "to be taken in" not in page
    for _ in range(2):
        drop(site.path, "delivery", {})
    drop(site.path, "pause", {})
    page = words_of(site.text("/-/ledger"))
    assert f"2 wishes wait to be carried out{wish}." in page
    assert f"2 deliveries wait to be taken in{run}." in page
