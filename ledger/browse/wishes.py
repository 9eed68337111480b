"""Doing things: a page that says what it will cost, a form that drops an intent into the inbox.

The web process never writes the ledger. What the person confirmed is in the form itself, signed by this
server: another site cannot make one, and what is dropped is what was shown. The intent's id is in it too, so
that a form sent twice is one intent.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode

from datasette.utils.asgi import NotFound, Response
from itsdangerous import BadSignature

from ledger.browse import outside
from ledger.browse.asgi import Receive, read_body
from ledger.browse.desk import number, page, served
from ledger.browse.overview import rows
from ledger.clock import to_text
from ledger.errors import LeadledgerError
from ledger.money import usd
from ledger.states import FINAL, ROUTES, Reason, State
from ledger.store.inbox import drop, inbox_path

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

KINDS: Final = ("retry", "cancel", "pause", "resume", "resolve", "suppress")
CHOICES: Final = ("resend", "write-off", "accept")
_FORM_BYTES_MAX: Final = 64 * 1024
_DOUBTS_MAX: Final = 1000
_NAMESPACE: Final = "leadledger-wish"
_REMOTE_ID_MAX: Final = 128
# What each verb can touch (store/control.py decides in the end; a test holds both to the same number).
_MAY: Final[dict[str, str]] = {
    "retry": """j.lead_id IS NOT NULL AND j.request IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM jobs o
            WHERE o.lead_id = j.lead_id AND o.route = j.route AND o.id > j.id)
        AND NOT EXISTS (SELECT 1 FROM leads l WHERE l.id = j.lead_id
            AND (l.suppressed = 1 OR l.forgotten_at IS NOT NULL))
        AND j.state IN ('matched', 'no_match', 'failed', 'lost', 'skipped', 'cancelled')""",
    "cancel": "j.state = 'queued'",
    "pause": "j.state = 'queued' AND j.paused_at IS NULL",
    "resume": "j.state = 'queued' AND j.paused_at IS NOT NULL",
}
_COUNT: Final = """
    SELECT COUNT(*) AS jobs, COALESCE(SUM(COALESCE((SELECT a.ceiling_microusd FROM attempts a
        WHERE a.job_id = j.id ORDER BY a.number DESC LIMIT 1), :ceiling)), 0) AS ceilings
    FROM jobs j WHERE """
_CEILING: Final = "SELECT COALESCE((SELECT ceiling_microusd FROM attempts ORDER BY id DESC LIMIT 1), 1500000)"
_WHO: Final = "SELECT id, company, dm_name, email, suppressed FROM leads WHERE id = :lead"
_JOB: Final = """
    SELECT j.id, j.lead_id, j.route, j.state, l.company, l.dm_name FROM jobs j
        LEFT JOIN leads l ON l.id = j.lead_id WHERE j.id = :job
"""
_DOUBTS: Final = """
    SELECT j.id, j.attempt, a.ceiling_microusd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.state = 'in_doubt' AND (:job IS NULL OR j.id = :job) ORDER BY j.id LIMIT 1001
"""
_QUEUED_OF_LEAD: Final = "SELECT COUNT(*) AS jobs FROM jobs WHERE lead_id = :lead AND state = 'queued'"
_TITLES: Final = {
    "retry": "Ask again",
    "cancel": "Cancel",
    "pause": "Pause",
    "resume": "Resume",
    "suppress": "Never ask about this lead again",
    "resend": "Give up on the call and ask anew",
    "write-off": "Give up on the call",
    "accept": "Poll it by the provider's id",
}
_FREE: Final = {
    "cancel": "This costs nothing. A cancelled job is final; asking again makes a new one.",
    "pause": "This costs nothing. What is paused stays in the queue until it is resumed.",
    "resume": "This costs nothing by itself: a run sends it when its turn and the budget allow.",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing to confirm."""

    title: str
    what: str
    """What will be done, as a sentence with the number of jobs."""
    cost: str
    """What it will cost, as a sentence."""
    kind: str
    body: dict[str, Any] | None
    """As the inbox keeps it; None: there is nothing to do."""


def for_job(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person may do with a job: (label, query of the confirming page)."""
    state, one = job["state"], {"job": job["id"]}
    if state == State.QUEUED:
        hold = "resume" if job["paused_at"] else "pause"
        return [(_TITLES[kind], f"{kind}?{urlencode(one)}") for kind in (hold, "cancel")]
    if state == State.IN_DOUBT:
        return [(_TITLES[choice], f"resolve?{urlencode({**one, 'choice': choice})}") for choice in CHOICES]
    return [(_TITLES["retry"], f"retry?{urlencode(one)}")] if state in FINAL else []


async def route(datasette: Datasette, request: Any, receive: Receive) -> Response:
    """`/-/ledger/do/KIND`: asked for, it says; sent, it does."""
    return await (do(datasette, request, receive) if request.method == "POST" else ask(datasette, request))


async def ask(datasette: Datasette, request: Any) -> Response:
    """`GET /-/ledger/do/KIND`: say what it will do and cost, and offer the form that does it."""
    book = await served(datasette, request)
    kind = request.url_vars["kind"]
    if kind not in KINDS:
        raise NotFound(f"There is no {kind!r} to do.")
    at = to_text(outside.of(datasette).clock.now())
    wish = await _wish(book.database, kind, request.args, at)
    ticket = None
    if wish.body is not None:
        told = {"id": str(uuid.uuid4()), "kind": kind, "body": wish.body}
        ticket = datasette.sign(json.dumps(told), _NAMESPACE)
    needs_id = kind == "resolve" and request.args.get("choice") == "accept" and wish.body is None
    return await page(
        datasette, request, "confirm", book, wish=wish, ticket=ticket, needs_id=needs_id, args=request.args
    )


async def do(datasette: Datasette, request: Any, receive: Receive) -> Response:
    """`POST /-/ledger/do/KIND`: drop the intent that was confirmed, and let it be taken in."""
    book = await served(datasette, request)
    form = await read_body(receive, _FORM_BYTES_MAX)
    fields = parse_qs((form or b"").decode("utf-8", "replace"))
    try:
        told = json.loads(datasette.unsign(fields.get("ticket", [""])[0], _NAMESPACE))
        kind, body, item_id = told["kind"], told["body"], told["id"]
    except (BadSignature, ValueError, KeyError, TypeError):
        problem = "That form is not one of this server's, or it was started anew since. Nothing was changed."
        answer = await page(datasette, request, "problem", book, problem=problem)
        answer.status = 400
        return answer
    outer = outside.of(datasette)
    try:
        await asyncio.to_thread(drop, book.path, kind, body, item_id=item_id, now=outer.clock.now())
    except LeadledgerError as error:
        answer = await page(datasette, request, "problem", book, problem=str(error))
        answer.status = 503
        return answer
    if outer.apply is not None:
        with suppress(LeadledgerError):  # held by a run, which takes it in by itself
            await asyncio.to_thread(outer.apply, book.path)
    return Response.redirect(datasette.urls.path(f"/-/ledger/done/{item_id}"), status=303)


async def done(datasette: Datasette, request: Any) -> Response:
    """`/-/ledger/done/ID`: what became of an intent."""
    book = await served(datasette, request)
    item_id = request.url_vars["item"]
    waits = any(inbox_path(book.path).glob(f"*{item_id}.json"))
    outcome = await _outcome(book.database, item_id)
    return await page(datasette, request, "done", book, waits=waits, outcome=outcome, item_id=item_id)


async def _outcome(database: Database, item_id: str) -> dict[str, Any] | None:
    """What the ledger says became of it; a ledger of an older schema keeps no intents."""
    if "intents" not in await database.table_names():
        return None
    query = "SELECT refused, outcome, applied_at FROM intents WHERE id = :id"
    return next(iter(await rows(database, query, {"id": item_id})), None)


async def _wish(database: Database, kind: str, args: Any, at: str) -> Wish:
    if kind == "resolve":
        return await _decision(database, args)
    if kind == "suppress":
        return await _suppression(database, args, at)
    chosen, text = await _chosen(database, kind, args)
    conditions, parameters = _MAY[kind], dict[str, Any]()
    for name, column in (("job", "j.id"), ("lead", "j.lead_id"), *((n, f"j.{n}") for n in _WORDS)):
        if chosen.get(name) is not None:
            conditions += f" AND {column} = :{name}"
            parameters[name] = chosen[name]
    parameters["ceiling"] = (await database.execute(_CEILING)).rows[0][0]
    counted = (await rows(database, _COUNT + conditions, parameters))[0]
    jobs, ceilings = counted["jobs"], counted["ceilings"]
    body = {
        "job_ids": [chosen["job"]] if chosen.get("job") else [],
        "lead_ids": [chosen["lead"]] if chosen.get("lead") else [],
        "import_id": None,
        "as_of": at,
        **{name: chosen.get(name) for name in _WORDS},
    }
    cost = _FREE.get(kind) or (
        f"Nothing is charged now. When a run sends {_them(jobs)}, up to {usd(ceilings)} is set aside and "
        "what the provider bills is charged, within that run's budget. What was paid before stays paid."
    )
    if not jobs:
        return Wish(_TITLES[kind], f"{text}: there is nothing to do.", "Nothing is changed.", kind, None)
    return Wish(_TITLES[kind], f"{text}: {_jobs(jobs)}.", cost, kind, body)


_WORDS: Final = {
    "state": frozenset(state.value for state in State),
    "reason": frozenset(reason.value for reason in Reason),
    "route": frozenset(ROUTES),
}


async def _chosen(database: Database, kind: str, args: Any) -> tuple[dict[str, Any], str]:
    """What the address names, and how to say it.

    Raises:
        NotFound: It names something that is not there.
    """
    chosen: dict[str, Any] = {}
    job, lead = _given(args, "job"), _given(args, "lead")
    if kind == "retry" and job is None and not (args.get("state") or args.get("reason")):
        chosen["state"] = State.FAILED.value  # as `leadledger retry`: the rest is said in so many words
    for name, known in _WORDS.items():
        word = args.get(name)
        if word is not None and word not in known:
            raise NotFound(f"There is no {name} {word!r}.")
        chosen[name] = word or chosen.get(name)
    if job is not None:
        found = await rows(database, _JOB, {"job": job})
        if not found:
            raise NotFound(f"There is no job {job} in this ledger.")
        who = found[0]["company"] or found[0]["dm_name"] or f"lead {found[0]['lead_id']}"
        return {**chosen, "job": job}, f"{_TITLES[kind]}: job {job} ({who}, {found[0]['route']})"
    if lead is not None:
        return {**chosen, "lead": lead}, f"{_TITLES[kind]}: lead {lead}{_said(chosen)}"
    return chosen, f"{_TITLES[kind]}: every job{_said(chosen)}"


def _said(chosen: Mapping[str, Any]) -> str:
    said = [f"{name} {word.replace('_', ' ')}" for name, word in chosen.items() if word]
    return f" with {', '.join(said)}" if said else ""


async def _suppression(database: Database, args: Any, at: str) -> Wish:
    lead = _given(args, "lead")
    found = await rows(database, _WHO, {"lead": lead})
    if not found:
        raise NotFound(f"There is no lead {args.get('lead')} in this ledger.")
    name = found[0]["company"] or found[0]["dm_name"] or found[0]["email"] or f"lead {lead}"
    title = _TITLES["suppress"]
    if found[0]["suppressed"]:
        return Wish(title, f"{name} is suppressed already.", "Nothing is changed.", "suppress", None)
    jobs = (await rows(database, _QUEUED_OF_LEAD, {"lead": lead}))[0]["jobs"]
    what = f"{name} is never asked about again; {_jobs(jobs)} in the queue is skipped."
    body = {"job_ids": [], "lead_ids": [lead], "state": None, "reason": None, "route": None}
    cost = "This costs nothing. What was paid stays paid, what is at the provider is still polled."
    return Wish(title, what, cost, "suppress", {**body, "import_id": None, "as_of": at})


async def _decision(database: Database, args: Any) -> Wish:
    """A doubt decided: the same words as `leadledger resolve`."""
    choice, job = args.get("choice"), _given(args, "job")
    if choice not in CHOICES:
        raise NotFound(f"A doubt is decided by one of {', '.join(CHOICES)}.")
    found = await rows(database, _DOUBTS, {"job": job})
    title = _TITLES[choice]
    if not found or (choice == "accept" and job is None):
        return Wish(title, "There is no such doubt any more.", "Nothing is changed.", "resolve", None)
    if len(found) > _DOUBTS_MAX:
        what = f"There are more than {_DOUBTS_MAX:,} doubts: `leadledger resolve --all` decides them."
        return Wish(title, what, "Nothing is changed.", "resolve", None)
    doubts = [[row["id"], row["attempt"]] for row in found]
    held = usd(sum(row["ceiling_microusd"] for row in found))
    calls = "1 doubtful call" if len(found) == 1 else f"{len(found):,} doubtful calls"
    body: dict[str, Any] = {"choice": choice, "doubts": doubts}
    if choice == "accept":
        return _acceptance(title, job, args.get("remote"), body)
    if choice == "resend":
        cost = (
            f"Up to {held} counts as spent, and up to {held} more is set aside when a run asks anew. If the "
            "first call was accepted, both are paid."
        )
        return Wish(title, f"{calls} given up, and asked anew.", cost, "resolve", body)
    cost = f"Up to {held} counts as spent, marked assumed where no audit has found it."
    return Wish(title, f"{calls} given up, on the claims list from then on.", cost, "resolve", body)


def _acceptance(title: str, job: int | None, remote: str | None, body: dict[str, Any]) -> Wish:
    remote = (remote or "").strip()
    cost = "Polling costs nothing; what the provider says the job cost is charged."
    plain = remote.replace("-", "").replace("_", "")
    if not (plain.isascii() and plain.isalnum()) or len(remote) > _REMOTE_ID_MAX:
        what = f"Which id does the provider know job {job} by? Letters, digits, _ and - only."
        return Wish(title, what, cost, "resolve", None)
    return Wish(
        title, f"Job {job} is polled as {remote}.", cost, "resolve", {**body, "remote_job_id": remote}
    )


def _given(args: Any, name: str) -> int | None:
    """A row's number, if the address gives one."""
    text = args.get(name)
    return None if text is None else number(text)


def _jobs(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs:,} jobs"


def _them(jobs: int) -> str:
    return "it" if jobs == 1 else "them"
