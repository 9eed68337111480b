"""Writing down what is to be asked: one queued job a lead and route, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger import crashpoints
from ledger import events as ev
from ledger.clock import to_text
from ledger.machine import decide
from ledger.model import LEAD_FIELDS
from ledger.states import NEW, Reason, State
from ledger.store.books import Books
from ledger.store.connect import Connection, transaction
from ledger.store.selection import Selection
from ledger.store.steps import look, note_step, write

PAGE: Final = 1000
"""Leads built and written in one transaction: bounds memory and the time a reader's snapshot grows old."""

# A lead that was skipped because it lacked fields counts as asked only until a later import has a row of it.
# By `request_key`, which is in the index: a lead that was really asked costs no look at its job.
_NEVER_ASKED: Final = (
    "SELECT l.id, l.suppressed, l.source, "
    + ", ".join("l." + name for name in LEAD_FIELDS)
    + """
    FROM leads l
    WHERE l.id > ? AND l.forgotten_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.lead_id = l.id AND j.route = ?
            AND NOT (j.request_key = 'none:lacks_fields' AND EXISTS (
                SELECT 1 FROM source_rows s JOIN imports i ON i.id = s.import_id
                WHERE s.lead_id = l.id AND i.imported_at > j.finished_at)))
"""
)
_NEW_JOB: Final = """
    INSERT INTO jobs (lead_id, route, mode, request, request_key, generation, reason, created_at, updated_at)
    SELECT ?1, ?2, ?3, ?4, ?5, COALESCE(MAX(o.generation), 0) + 1, 'enqueued', ?6, ?6
    FROM jobs o WHERE o.lead_id = ?1 AND o.route = ?2 AND o.request_key = ?5
"""
_READY_COUNT: Final = """
    SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE state = 'queued' AND paused_at IS NULL
        AND not_before IS NULL AND route = ? LIMIT 100000)
"""
_SELECT_JOBS: Final = """
    INSERT INTO temp.selected (job_id)
    SELECT j.id FROM jobs j JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.route = ?
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a route is asked for one lead, as canonical JSON, with its hash."""

    request: str
    request_key: str


@dataclass(frozen=True, slots=True)
class Lacks:
    """The lead lacks what the route needs; `fields` says what."""

    fields: tuple[str, ...]


Build = Callable[[str, Mapping[str, str]], Asked | Lacks]
"""`(route, lead's fields) -> request`: the profile's business, handed in so that the store knows no route."""


@dataclass(slots=True)
class Enqueued:
    """How many jobs were written, and how many of them will never be sent, by reason."""

    queued: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: Reason) -> None:
        """Count one."""
        self.skipped[reason.value] = self.skipped.get(reason.value, 0) + 1


def never_asked(
    connection: Connection, route: str, selection: Selection, build: Build
) -> Iterator[list[tuple[int, Asked | Reason]]]:
    """Pages of leads that were never asked on `route`, each with its request or the reason to skip it."""
    conditions, parameters = selection.sql()
    query = _NEVER_ASKED + conditions + " ORDER BY l.id LIMIT ?"
    after = 0
    while True:
        found = connection.execute(query, (after, route, *parameters, PAGE)).fetchall()
        if not found:
            return
        after = found[-1][0]
        yield [(row[0], _ask(route, row, build)) for row in found]


def _ask(route: str, row: tuple[object, ...], build: Build) -> Asked | Reason:
    _, suppressed, source, *values = row
    if suppressed:
        return Reason.SUPPRESSED
    lead = {name: str(value) for name, value in zip(LEAD_FIELDS, values, strict=True) if value is not None}
    lead["source_system"] = str(source)
    asked = build(route, lead)
    return Reason.LACKS_FIELDS if isinstance(asked, Lacks) else asked


def enqueue(
    books: Books,
    route: str,
    mode: str,
    selection: Selection,
    build: Build,
    stopped: Callable[[], bool] = lambda: False,
) -> Enqueued:
    """Write a job for every selected lead that was never asked on `route`; one transaction a page.

    Killed half way, the next call writes the rest. With a `limit` it writes no more jobs than are still
    missing to that many queued ones. A lead that is suppressed or lacks fields gets a `skipped` job, so
    that it is not looked at again; one that lacked fields is, once a later import has a row of it.
    """
    done = Enqueued()
    room = None if selection.limit is None else selection.limit - _ready(books, route, selection)
    for page in never_asked(books.connection, route, selection, build):
        if stopped() or (room is not None and room <= 0):
            break
        with transaction(books.connection):
            for lead_id, asked in page:
                if room is not None and done.queued >= room:
                    break
                _write_job(books, route, mode, lead_id, asked, done)
            crashpoints.reach("enqueue_before_commit")
        crashpoints.reach("enqueue_after_commit")
        if room is not None and done.queued >= room:
            break
    return done


def _ready(books: Books, route: str, selection: Selection) -> int:
    conditions, parameters = selection.sql()
    query = (
        "SELECT COUNT(*) FROM jobs j JOIN leads l ON l.id = j.lead_id "
        "WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.route = ?" + conditions
    )
    return int(books.connection.execute(query, (route, *parameters)).fetchone()[0])


def any_left(books: Books, route: str, selection: Selection) -> bool:
    """True while a selected lead is queued on `route` or was never asked."""
    conditions, parameters = selection.sql()
    query = "SELECT EXISTS (" + _NEVER_ASKED + conditions + " LIMIT 1)"
    if books.connection.execute(query, (0, route, *parameters)).fetchone()[0]:
        return True
    return _ready(books, route, selection) > 0


def ready_count(connection: Connection, route: str) -> int:
    """Queued jobs of `route` that may go now, counted up to 100,000 (a progress line asks often)."""
    return int(connection.execute(_READY_COUNT, (route,)).fetchone()[0])


def _write_job(
    books: Books, route: str, mode: str, lead_id: int, asked: Asked | Reason, done: Enqueued
) -> None:
    at = to_text(books.now)
    request, key = (
        (None, f"none:{asked}") if isinstance(asked, Reason) else (asked.request, asked.request_key)
    )
    job = books.connection.execute(_NEW_JOB, (lead_id, route, mode, request, key, at))
    job_id = job.lastrowid or 0
    note_step(books, job_id, None, NEW, State.QUEUED, Reason.ENQUEUED)
    if not isinstance(asked, Reason):
        done.queued += 1
        return
    position = look(books.connection, job_id)
    step = decide(position.job, ev.Skip(asked.value), books.now, books.policy)
    if step is not None:
        write(books, position, step)
    done.skip(asked)


def select(books: Books, route: str, selection: Selection) -> None:
    """Fill the run's selection (`temp.selected`) with the queued jobs it may claim; nothing if everything.

    Claimed jobs leave it; a job of this run that goes back to the queue joins it again at the end.
    """
    books.selective = not selection.everything
    books.selection = selection
    books.connection.execute("DELETE FROM temp.selected")
    books.connection.execute("DELETE FROM temp.capped")
    if selection.everything:
        return
    conditions, parameters = selection.sql()
    limit = -1 if selection.limit is None else selection.limit
    books.connection.execute(
        _SELECT_JOBS + conditions + " ORDER BY j.priority DESC, j.id LIMIT ?", (route, *parameters, limit)
    )
