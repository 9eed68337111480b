"""A person's hand on the queue: retry, cancel, pause, resume, suppress.

Which jobs a verb means is a `Chosen`: what the person named, narrowed to what the verb can do anything to,
and to what was there when they were told what it may cost. `preview` counts, the verbs act; the verbs run
inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from ledger import events as ev
from ledger.clock import from_text, to_text
from ledger.errors import UsageProblem
from ledger.states import FINAL, Reason, State
from ledger.store.books import Books
from ledger.store.connect import Connection
from ledger.store.resolve import ask_anew
from ledger.store.steps import record

VERBS: Final = ("retry", "cancel", "pause", "resume", "suppress")

# A job with a newer one of its lead and route has had its retry; one without a request was never askable.
_MAY_RETRY: Final = (
    """j.lead_id IS NOT NULL AND j.request IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM jobs o
            WHERE o.lead_id = j.lead_id AND o.route = j.route AND o.id > j.id)
        AND NOT EXISTS (SELECT 1 FROM leads l WHERE l.id = j.lead_id
            AND (l.suppressed = 1 OR l.forgotten_at IS NOT NULL))
        AND j.state IN ("""
    + ", ".join(f"'{state.value}'" for state in sorted(FINAL))
    + ")"
)
_MAY: Final[dict[str, str]] = {
    "retry": _MAY_RETRY,
    "cancel": "j.state = 'queued'",
    "pause": "j.state = 'queued' AND j.paused_at IS NULL",
    "resume": "j.state = 'queued' AND j.paused_at IS NOT NULL",
    "suppress": "j.lead_id IS NOT NULL",
}
_AS_OF: Final[dict[str, str]] = {"retry": " AND j.updated_at <= ?"}
"""A retry costs money, so nothing that has changed since it was agreed to; the others: nothing newer."""
_NOT_NEWER: Final = " AND j.created_at <= ?"
_IDS: Final = " IN (SELECT value FROM json_each(?))"
_OF_IMPORT: Final = """ AND EXISTS (SELECT 1 FROM source_rows s
        WHERE s.lead_id = j.lead_id AND s.import_id = ?)"""
_GROUPS: Final = """
    SELECT j.route, j.mode, (SELECT a.ceiling_microusd FROM attempts a WHERE a.job_id = j.id
        ORDER BY a.number DESC LIMIT 1) AS ceiling, COUNT(*)
    FROM jobs j WHERE """
_LEADS_OF: Final = "SELECT DISTINCT j.lead_id FROM jobs j WHERE "
_LEADS_NAMED: Final = "SELECT value FROM json_each(?)"
_LEADS_IMPORTED: Final = (
    "SELECT DISTINCT lead_id FROM source_rows WHERE import_id = ? AND lead_id IS NOT NULL"
)
_SUPPRESS: Final = "UPDATE leads SET suppressed = 1 WHERE id = ? AND suppressed = 0"
_QUEUED_OF_LEAD: Final = "SELECT id, attempt FROM jobs WHERE lead_id = ? AND state = 'queued'"
_IS_SUPPRESSED: Final = "SELECT suppressed FROM leads WHERE id = ?"
_SET_PAUSED: Final = "UPDATE jobs SET paused_at = ? WHERE id = ?"
_SELECT_AGAIN: Final = """
    INSERT OR IGNORE INTO temp.selected (job_id)
    SELECT j.id FROM jobs j JOIN leads l ON l.id = j.lead_id WHERE j.id = ?
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a person named. All that is said must hold; nothing said means every job the verb can touch."""

    job_ids: tuple[int, ...] = ()
    lead_ids: tuple[int, ...] = ()
    state: str | None = None
    reason: str | None = None
    route: str | None = None
    import_id: int | None = None
    as_of: str = ""
    """Ledger time text: when the person was told what it may cost."""

    def to_json(self) -> dict[str, Any]:
        """As the inbox keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Chosen:
        """What `to_json` made.

        Raises:
            UsageProblem: Something in it is not what it must be.
        """
        try:
            import_id = said["import_id"]
            from_text(said["as_of"])
            return cls(
                job_ids=tuple(map(_number, said["job_ids"])),
                lead_ids=tuple(map(_number, said["lead_ids"])),
                state=_word(said["state"]),
                reason=_word(said["reason"]),
                route=_word(said["route"]),
                import_id=None if import_id is None else _number(import_id),
                as_of=said["as_of"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageProblem(f"A wish in the inbox cannot be understood: {error!r}.") from error

    def sql(self, verb: str) -> tuple[str, list[object]]:
        """The conditions on `jobs j` and their parameters."""
        text, parameters = _MAY[verb], list[object]()
        for column, ids in (("j.id", self.job_ids), ("j.lead_id", self.lead_ids)):
            if ids:
                text += " AND " + column + _IDS
                parameters.append("[" + ",".join(map(str, ids)) + "]")
        state = self.state
        if verb == "retry" and not (state or self.reason or self.job_ids):
            state = (
                State.FAILED
            )  # to ask again what was answered, or may have been paid, is said in so many words
        for column, word in (("j.state", state), ("j.reason", self.reason), ("j.route", self.route)):
            if word is not None:
                text += " AND " + column + " = ?"
                parameters.append(word)
        if self.import_id is not None:
            text += _OF_IMPORT
            parameters.append(self.import_id)
        return text + _AS_OF.get(verb, _NOT_NEWER), [*parameters, self.as_of]


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise UsageProblem(f"A wish in the inbox names {value!r} where a number belongs.")
    return value


def _word(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageProblem(f"A wish in the inbox names {value!r} where a word belongs.")


class Group(NamedTuple):
    """Jobs alike in what they cost: the last attempt's ceiling, None for a job that was never sent."""

    route: str
    mode: str
    ceiling_microusd: int | None
    jobs: int


def preview(connection: Connection, verb: str, chosen: Chosen) -> list[Group]:
    """The jobs that `verb` would touch, grouped by what one attempt of each may cost. Writes nothing."""
    conditions, parameters = chosen.sql(verb)
    query = _GROUPS + conditions + " GROUP BY j.route, j.mode, ceiling ORDER BY j.route, j.mode, ceiling"
    return [Group(*row) for row in connection.execute(query, parameters)]


def leads_to_suppress(connection: Connection, chosen: Chosen) -> list[int]:
    """Leads that `suppress` would touch: those named or imported, also without a job, else of the jobs."""
    if chosen.lead_ids and chosen == Chosen(lead_ids=chosen.lead_ids, as_of=chosen.as_of):
        query, parameters = _LEADS_NAMED, list[object](["[" + ",".join(map(str, chosen.lead_ids)) + "]"])
    elif chosen.import_id is not None and chosen == Chosen(import_id=chosen.import_id, as_of=chosen.as_of):
        query, parameters = _LEADS_IMPORTED, [chosen.import_id]
    else:
        conditions, parameters = chosen.sql("suppress")
        query = _LEADS_OF + conditions
    found = connection.execute(query, parameters).fetchall()
    return [lead for (lead,) in found if connection.execute(_IS_SUPPRESSED, (lead,)).fetchone() == (0,)]


def act(books: Books, verb: str, chosen: Chosen) -> int:
    """Do what a person asked; returns how many jobs (for `suppress`: leads) it touched."""
    if verb == "suppress":
        return _suppress(books, chosen)
    conditions, parameters = chosen.sql(verb)
    query = "SELECT j.id, j.attempt FROM jobs j WHERE " + conditions + " ORDER BY j.id"
    found = books.connection.execute(query, parameters).fetchall()
    for job_id, attempt in found:
        match verb:
            case "retry":
                _select_again(books, ask_anew(books, job_id, Reason.RETRIED))
            case "cancel":
                record(books, job_id, attempt, ev.Cancel())
            case "pause":
                books.connection.execute(_SET_PAUSED, (to_text(books.now), job_id))
            case "resume":
                books.connection.execute(_SET_PAUSED, (None, job_id))
                _select_again(books, job_id)
    return len(found)


def _suppress(books: Books, chosen: Chosen) -> int:
    leads = leads_to_suppress(books.connection, chosen)
    for lead_id in leads:
        books.connection.execute(_SUPPRESS, (lead_id,))
        for job_id, attempt in books.connection.execute(_QUEUED_OF_LEAD, (lead_id,)).fetchall():
            record(books, job_id, attempt, ev.Skip(Reason.SUPPRESSED))
    return len(leads)


def _select_again(books: Books, job_id: int) -> None:
    """A job that may go again joins a selective run, if the run's selection means its lead.

    A run with a limit has chosen its jobs: what is queued meanwhile is the next run's.
    """
    if not books.selective or books.selection.limit is not None:
        return
    conditions, parameters = books.selection.sql()
    books.connection.execute(_SELECT_AGAIN + conditions, (job_id, *parameters))
