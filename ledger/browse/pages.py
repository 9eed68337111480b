"""The pages: overview, lead, run, search. Each reads through Datasette and writes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from datasette.utils.asgi import NotFound, Response

from ledger.browse import charts, outside, overview, story, wishes, words
from ledger.browse.catalog import catalog
from ledger.browse.desk import number, page, served
from ledger.browse.overview import rows, settings_of
from ledger.browse.tally import Tally
from ledger.model import LEAD_FIELDS
from ledger.sentences import step_sentence

if TYPE_CHECKING:
    from datasette.app import Datasette

    from ledger.browse.outside import Book

_TALLY: Final = "_leadledger_tally"
_FOUND_MAX: Final = 50
_RUNS: Final = "SELECT * FROM runs ORDER BY id DESC LIMIT 200"
_ONE_RUN: Final = "SELECT * FROM runs WHERE id = :run"
_LEAD_OF_JOB: Final = "SELECT lead_id FROM jobs WHERE id = :job"
_CHAIN: Final = "SELECT id FROM runs WHERE chain_id = (SELECT chain_id FROM runs ORDER BY id DESC LIMIT 1)"
_RUN_ERRORS: Final = """
    SELECT error, http_status, outcome, COUNT(*) AS calls
    FROM (SELECT * FROM attempts WHERE run_id = :run ORDER BY id DESC LIMIT 100000)
    WHERE error IS NOT NULL GROUP BY error, http_status, outcome ORDER BY calls DESC LIMIT 20
"""
_FIELD_NAMES: Final = {
    "contact_id": "Contact id",
    "company": "Company",
    "street": "Street",
    "city": "City",
    "state": "State",
    "zip": "ZIP",
    "number1": "Phone",
    "number2": "Second phone",
    "dm_name": "Contact",
    "email": "E-mail",
    "domain": "Domain",
}
_FIND: Final = """
    SELECT id, company, dm_name, city, email FROM leads
    WHERE id = :number OR contact_id = :text OR email = :text COLLATE NOCASE OR phone_key = :text
        OR company LIKE :part ESCAPE '!' OR dm_name LIKE :part ESCAPE '!'
    LIMIT 51
"""


async def tally_of(datasette: Datasette, book: Book) -> Tally:
    """The running totals of this server, brought up to now."""
    found = getattr(datasette, _TALLY, None)
    if not isinstance(found, Tally):
        found = Tally()
        setattr(datasette, _TALLY, found)
    await found.catch_up(book.database)
    return found


async def warm(datasette: Datasette) -> None:
    """Take the totals of the ledger that is served, so that the first look does not wait for all of them."""
    book = await outside.find_book(datasette)
    if book is not None:
        await tally_of(datasette, book)


async def show_overview(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger`: how is tonight's run doing. With `?part=now` only what changes by itself."""
    book = await served(datasette, request)
    tally = await tally_of(datasette, book)
    seen = await overview.look(book, outside.of(datasette), tally)
    template = "parts" if request.args.get("part") == "now" else "overview"
    return await page(
        datasette,
        request,
        template,
        book,
        seen=seen,
        signs=words.SIGNS,
        sentence=step_sentence,
        questions=catalog().queries,
        nav="overview",
    )


async def show_chart(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/chart.json`: the numbers of a run (`?run=N`), or of the current budget chain."""
    book = await served(datasette, request)
    tally = await tally_of(datasette, book)
    wanted = request.args.get("run")
    runs = [row["id"] for row in await rows(book.database, _CHAIN)] if wanted is None else [number(wanted)]
    drawn = charts.chart(tally, runs)
    return Response.json(
        {
            "width_min": drawn.width_min,
            "times": drawn.times,
            "charged_usd": [amount / 1_000_000 for amount in drawn.charged_microusd],
            "held_usd": [amount / 1_000_000 for amount in drawn.held_microusd],
            "entered": drawn.entered,
        },
        headers={"cache-control": "no-store"},
    )


async def show_lead(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/leads/N`: `leadledger show` in the browser."""
    book = await served(datasette, request)
    told = await story.tell(book.database, number(request.url_vars["lead"]))
    if told is None:
        raise NotFound(f"There is no lead {request.url_vars['lead']} in this ledger.")
    return await page(
        datasette,
        request,
        "lead",
        book,
        told=told,
        facts=story.facts,
        wishes=wishes.for_job,
        fields=LEAD_FIELDS,
        field_names=_FIELD_NAMES,
    )


async def show_job(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/jobs/N`: the page of its lead, or its row where it belongs to none."""
    book = await served(datasette, request)
    job = number(request.url_vars["job"])
    found = await rows(book.database, _LEAD_OF_JOB, {"job": job})
    if not found:
        raise NotFound(f"There is no job {job} in this ledger.")
    lead = found[0]["lead_id"]
    where = f"/-/ledger/leads/{lead}#job-{job}" if lead is not None else f"/{book.name}/jobs/{job}"
    return Response.redirect(datasette.urls.path(where))


async def show_runs(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/runs`: every run with what it did and spent."""
    book = await served(datasette, request)
    tally = await tally_of(datasette, book)
    found = await rows(book.database, _RUNS)
    for run in found:
        run["money"] = tally.money([run["id"]])
        run["sent"] = tally.reasons(run["id"])["submitting", "claimed"]
    return await page(datasette, request, "runs", book, runs=found, nav="runs")


async def show_run(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/runs/N`: one run."""
    book = await served(datasette, request)
    run_id = number(request.url_vars["run"])
    found = await rows(book.database, _ONE_RUN, {"run": run_id})
    if not found:
        raise NotFound(f"There is no run {run_id} in this ledger.")
    tally = await tally_of(datasette, book)
    return await page(
        datasette,
        request,
        "run",
        book,
        run=found[0],
        settings=settings_of(found[0]),
        money=tally.money([run_id]),
        reasons=tally.reasons(run_id).most_common(),
        errors=await rows(book.database, _RUN_ERRORS, {"run": run_id}),
        drawn=charts.chart(tally, [run_id]),
        clock=_clock,
        nav="runs",
    )


async def find(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/find?q=`: a lead by number, contact id, e-mail, phone, or part of a name."""
    book = await served(datasette, request)
    text = (request.args.get("q") or "").strip()[:200]
    found = []
    if text:
        by_number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
        part = "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        found = await rows(book.database, _FIND, {"number": by_number, "text": text, "part": part})
    if len(found) == 1:
        return Response.redirect(datasette.urls.path(f"/-/ledger/leads/{found[0]['id']}"))
    more = len(found) > _FOUND_MAX
    return await page(datasette, request, "find", book, text=text, found=found[:_FOUND_MAX], more=more)


def _clock(seconds: int) -> str:
    """POSIX seconds as `2026-11-26 21:04`, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
