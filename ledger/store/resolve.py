"""A person decides a doubt: send it again, write it off, or name the provider's job id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import UsageProblem
from ledger.money import usd
from ledger.states import NEW, Reason, State
from ledger.store.balance import Doubt, audited_gap, book_unattributed, doubts
from ledger.store.books import Books
from ledger.store.connect import Connection
from ledger.store.deliveries import record
from ledger.store.steps import note_step
from ledger.transition import Transition

_NEXT_GENERATION: Final = """
    INSERT INTO jobs (lead_id, route, mode, request, request_key, generation, reason, priority, created_at,
        updated_at)
    SELECT lead_id, route, mode, request, request_key,
        (SELECT MAX(o.generation) + 1 FROM jobs o WHERE o.lead_id = j.lead_id AND o.route = j.route
            AND o.request_key = j.request_key),
        ?, priority, ?, ?
    FROM jobs j WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class WrittenOff:
    """What giving up came to: micro-dollars now counted as spent, and the steps taken."""

    charged_microusd: int
    steps: tuple[Transition, ...]


def find_doubts(connection: Connection, job_id: int | None) -> list[Doubt]:
    """The doubt of one job, or all of them.

    Raises:
        UsageProblem: The job does not exist or is not in doubt.
    """
    found = doubts(connection)
    if job_id is None:
        return found
    chosen = [doubt for doubt in found if doubt.job_id == job_id]
    if chosen:
        return chosen
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()
    state = "not in this ledger" if row is None else f"{row[0]}, not in doubt"
    raise UsageProblem(
        f"Job {job_id} is {state}.", next_step="`leadledger jobs --state in_doubt` lists the doubts."
    )


def write_off(books: Books, found: list[Doubt], *, resend: bool) -> WrittenOff:
    """Close doubts as `lost`; with `resend` a new generation of each job is queued.

    What they cost: a whole group after an audit: the gap it found, booked once as `unattributed`, every
    hold released. One of several after an audit: the gap, at most its hold. Without an audit: the whole
    hold. The last two are marked assumed. A doubt that a kept delivery answers is not asked anew. Runs
    inside the caller's transaction.
    """
    choice = "resend" if resend else "write-off"
    missing = audited_gap(books.connection)
    whole_group = len(found) == len(doubts(books.connection))
    spent = 0
    steps = []
    for doubt in found:
        if missing is None:
            charge, basis = doubt.ceiling_microusd, "no audit, the whole hold is assumed spent"
        elif whole_group:
            charge, basis = 0, f"the group's {usd(missing)} is booked as unattributed"
        else:
            charge = min(doubt.ceiling_microusd, missing)
            missing -= charge
            basis = "the audited gap is assumed to be its charge"
        evidence = f"person: {choice}; {basis}"
        event = ev.WrittenOff(charge, assumed=True, evidence=evidence, resend=resend)
        step = record(books, doubt.job_id, doubt.fence, event)
        steps += [] if step is None else [step]
        if step is None or step.to_state is not State.LOST:
            continue  # a late answer: what it cost stands in the books, and there is nothing to ask for
        spent += charge
        if resend:
            ask_anew(books, doubt.job_id, Reason.RESENT)
    if missing is not None and whole_group:
        book_unattributed(books, missing, f"person: {choice} of {len(found)} doubts after an audit")
        spent += missing
    return WrittenOff(spent, tuple(steps))


def ask_anew(books: Books, job_id: int, reason: Reason) -> int:
    """Queue the next generation of a final job, in the caller's transaction; returns the new job's id."""
    at = to_text(books.now)
    new_id = books.connection.execute(_NEXT_GENERATION, (reason, at, at, job_id)).lastrowid or 0
    note_step(books, new_id, None, NEW, State.QUEUED, reason)
    return new_id


def accept(books: Books, doubt: Doubt, remote_job_id: str, bearer: ev.Secret | None) -> Transition | None:
    """Take a person's word that the provider knows this attempt as `remote_job_id`: it will be polled.

    Runs inside the caller's transaction.

    Raises:
        UsageProblem: Another attempt already has that id, or this one has another.
    """
    own = books.connection.execute(
        "SELECT remote_job_id FROM attempts WHERE job_id = ? AND number = ?", (doubt.job_id, doubt.fence)
    ).fetchone()[0]
    if own not in {None, remote_job_id}:
        raise UsageProblem(f"Job {doubt.job_id} is already known to the provider as {own}.")
    taken = books.connection.execute(
        "SELECT job_id FROM attempts WHERE remote_job_id = ? AND NOT (job_id = ? AND number = ?)",
        (remote_job_id, doubt.job_id, doubt.fence),
    ).fetchone()
    if taken is not None:
        raise UsageProblem(f"{remote_job_id} is already the remote id of another attempt, of job {taken[0]}.")
    event = ev.AcceptedByPerson(remote_job_id, bearer, f"person: accepted as {remote_job_id}")
    return record(books, doubt.job_id, doubt.fence, event)
