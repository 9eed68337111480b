"""Carrying out what lies in the inbox: each wish once, whatever is killed when.

The wish's effect and its row in `intents` are one transaction; only then is its file removed. A file that is
met again, because the removal was lost, finds its row and changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import LeadledgerError, UsageProblem
from ledger.money import usd
from ledger.store import control, deliveries, resolve
from ledger.store.balance import Doubt, doubts
from ledger.store.books import Books
from ledger.store.connect import Connection
from ledger.store.inbox import Item
from ledger.transition import Transition

_FIND: Final = "SELECT id, kind, refused, jobs, charged_microusd, outcome FROM intents WHERE id = ?"
_NOTE: Final = """
    INSERT INTO intents (id, kind, body, dropped_at, applied_at, refused, jobs, charged_microusd, outcome)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_HIDDEN: Final = "bearer"
"""The one key of a body that `intents` does not keep."""
_DID: Final[dict[str, str]] = {
    "retry": "{n} jobs are queued again, each as a new generation.",
    "cancel": "{n} queued jobs are cancelled.",
    "pause": "{n} queued jobs are paused.",
    "resume": "{n} paused jobs may go again.",
    "suppress": "{n} leads are suppressed; their queued jobs are skipped.",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a wish, as `intents` keeps it."""

    id: str
    kind: str
    refused: bool
    jobs: int
    charged_microusd: int
    """Micro-dollars that now count as spent."""
    outcome: str
    """A sentence."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One file that was taken out of the inbox, and what a run must know of it."""

    note: str
    steps: tuple[Transition, ...] = ()
    ask_now: int | None = None
    """The job that is to be polled at once."""
    delivered: bool = False
    may_send: bool = False
    """Something may have been queued."""


def find(connection: Connection, intent_id: str) -> Outcome | None:
    """What became of a wish, or None while nothing has."""
    row = connection.execute(_FIND, (intent_id,)).fetchone()
    return None if row is None else Outcome(row[0], row[1], bool(row[2]), *row[3:])


def apply(books: Books, item: Item) -> Taken:
    """Carry out one item and note it, inside the caller's transaction; what cannot be done is refused.

    Whatever is in the file: an item that raised would be met again by every command, and stop it.

    Raises:
        DiskTrouble: The ledger cannot be written.
    """
    if item.kind != "delivery" and find(books.connection, item.id) is not None:
        return Taken(f"{item.kind} {item.id} was carried out before: nothing changed.")
    taken = books.tried(partial(_deliver if item.kind == "delivery" else _carry_out, books, item))
    return taken if isinstance(taken, Taken) else _refuse(books, item, _why(taken))


def _why(error: Exception) -> str:
    """A refusal's sentence, in letters that can be stored and shown."""
    why = error.what if isinstance(error, LeadledgerError) else f"{type(error).__name__}: {error}"
    return why.encode("utf-8", "backslashreplace").decode()


def _deliver(books: Books, item: Item) -> Taken:
    came = deliveries.take(books, item.body)
    steps = () if came.step is None else (came.step,)
    return Taken(came.note, steps, came.job_id if came.ask_now else None, delivered=True)


def _refuse(books: Books, item: Item, why: str) -> Taken:
    if item.kind != "delivery":
        _note(books, item, why, refused=True)
    return Taken(f"{item.kind} refused: {why}")


def _carry_out(books: Books, item: Item) -> Taken:
    if item.kind == "resolve":
        return _resolve(books, item)
    touched = control.act(books, item.kind, control.Chosen.from_json(item.body))
    outcome = _DID[item.kind].format(n=f"{touched:,}")
    _note(books, item, outcome, jobs=touched)
    return Taken(outcome, may_send=item.kind in {"retry", "resume"} and touched > 0)


def _resolve(books: Books, item: Item) -> Taken:
    """A decision about the doubts that the person was shown; those that have ended since are left alone."""
    choice, wanted = item.body.get("choice"), _doubts_of(item.body)
    still = [doubt for doubt in doubts(books.connection) if (doubt.job_id, doubt.fence) in wanted]
    steps: tuple[Transition, ...]
    charged = 0
    if choice == "accept":
        steps = _accept(books, item.body, still)
    elif choice in {"resend", "write-off"}:
        done = resolve.write_off(books, still, resend=choice == "resend")
        steps, charged = done.steps, done.charged_microusd
    else:
        raise UsageProblem(f"There is no decision {choice!r}.")
    ended = len(wanted) - len(still)
    outcome = f"{len(steps)} doubts decided ({choice}); {usd(charged)} now counts as spent." + (
        f" {ended} had ended by themselves." if ended else ""
    )
    _note(books, item, outcome, jobs=len(steps), charged=charged)
    return Taken(outcome, steps, may_send=choice == "resend" and bool(steps))


def _doubts_of(body: dict[str, Any]) -> set[tuple[int, int]]:
    try:
        return {(int(job_id), int(fence)) for job_id, fence in body["doubts"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageProblem(f"A decision in the inbox cannot be understood: {error!r}.") from error


def _accept(books: Books, body: dict[str, Any], still: list[Doubt]) -> tuple[Transition, ...]:
    remote_job_id, bearer = body.get("remote_job_id"), body.get(_HIDDEN)
    if not (isinstance(remote_job_id, str) and ev.REMOTE_JOB_ID.fullmatch(remote_job_id)):
        raise UsageProblem("A decision in the inbox names no job id of the provider.")
    if bearer is not None and not (isinstance(bearer, str) and ev.BEARER.fullmatch(bearer)):
        raise UsageProblem("A decision in the inbox has a poll bearer that cannot be one.")
    if not still:
        return ()
    secret = None if bearer is None else ev.Secret(bearer)
    step = resolve.accept(books, still[0], remote_job_id, secret)
    return () if step is None else (step,)


def _note(
    books: Books, item: Item, outcome: str, *, jobs: int = 0, charged: int = 0, refused: bool = False
) -> None:
    try:
        body = json.dumps({name: value for name, value in item.body.items() if name != _HIDDEN})
    except (ValueError, RecursionError):  # read at a shallower place: its refusal must not fail
        body = "{}"
    at = to_text(books.now)
    books.connection.execute(
        _NOTE,
        (item.id, item.kind, body, item.dropped_at, at, refused, jobs, charged, outcome),
    )
