"""Reading a ledger beside its writer: counts, money, jobs, one lead's story, export rows. Never writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import UsageProblem
from ledger.states import Reason, State
from ledger.store import control, disputes, exposure, imports, intents
from ledger.store.audit import Audit, audit
from ledger.store.balance import Doubt, audited_gap
from ledger.store.connect import Migrations, connect_readonly, rows
from ledger.store.enqueue import Build, never_asked
from ledger.store.exposure import Caps
from ledger.store.place import real_path
from ledger.store.resolve import find_doubts
from ledger.store.runs import chain_to_continue, check_origin, latencies
from ledger.store.selection import Selection, check_fields, resolve_import

_STATES: Final = "SELECT state, COUNT(*) FROM jobs GROUP BY state"
_MONEY: Final = """
    SELECT
        COALESCE(SUM(CASE WHEN kind IN ('charge', 'adjust') THEN amount_microusd ELSE 0 END), 0),
        COALESCE(SUM(CASE kind WHEN 'hold' THEN amount_microusd WHEN 'charge' THEN -amount_microusd
            WHEN 'release' THEN -amount_microusd ELSE 0 END), 0),
        COALESCE(SUM(CASE kind WHEN 'release' THEN amount_microusd ELSE 0 END), 0),
        COALESCE(SUM(CASE kind WHEN 'unattributed' THEN amount_microusd ELSE 0 END), 0)
    FROM costs
"""
_JOBS: Final = """
    SELECT j.id AS job_id, j.lead_id, l.company, l.dm_name, j.route, j.mode, j.state, j.reason,
        j.attempt AS attempts, j.created_at, j.updated_at, j.finished_at, a.remote_job_id, a.error,
        (SELECT COALESCE(SUM(c.amount_microusd), 0) FROM attempts b JOIN costs c ON c.attempt_id = b.id
            WHERE b.job_id = j.id AND c.kind IN ('charge', 'adjust')) AS charged_microusd,
        (SELECT COALESCE(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN 0
                ELSE -c.amount_microusd END), 0)
            FROM attempts b JOIN costs c ON c.attempt_id = b.id WHERE b.job_id = j.id) AS held_microusd
    FROM jobs j LEFT JOIN leads l ON l.id = j.lead_id
        LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE 1
"""
_JOB_FILTERS: Final = {
    "state": " AND j.state = ?",
    "route": " AND j.route = ?",
    "reason": " AND j.reason = ?",
    "lead_id": " AND j.lead_id = ?",
}
_READY: Final = """
    SELECT COUNT(*) FROM jobs j JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.route = ?
"""
_AVERAGE: Final = """
    SELECT AVG(cost) FROM (
        SELECT (SELECT SUM(c.amount_microusd) FROM costs c
            WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'adjust')) AS cost
        FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        WHERE j.route = ? AND j.state IN ('matched', 'no_match', 'failed') ORDER BY j.id DESC LIMIT 1000)
"""
_STORY: Final = """
    SELECT t.at, t.job_id, j.route, t.from_state, t.to_state, t.reason, a.number AS attempt,
        a.ceiling_microusd, a.remote_job_id, a.http_status, a.error, a.evidence
    FROM transitions t JOIN jobs j ON j.id = t.job_id LEFT JOIN attempts a ON a.id = t.attempt_id
    WHERE j.lead_id = ? ORDER BY t.id
"""
_LEAD_MONEY: Final = """
    SELECT c.at, a.job_id, a.number AS attempt, c.kind, c.amount_microusd, c.assumed, c.evidence
    FROM costs c JOIN attempts a ON a.id = c.attempt_id JOIN jobs j ON j.id = a.job_id
    WHERE j.lead_id = ? ORDER BY c.id
"""
_LEAD_RESULTS: Final = """
    SELECT r.job_id, j.route, r.matched, r.billed, r.cache_hit, r.body, r.received_at
    FROM results r JOIN jobs j ON j.id = r.job_id WHERE j.lead_id = ? ORDER BY r.job_id
"""
_LEAD_ROWS: Final = """
    SELECT i.file_name, s.row_number, s.problem FROM source_rows s JOIN imports i ON i.id = s.import_id
    WHERE s.lead_id = ? ORDER BY s.import_id, s.row_number LIMIT 100
"""
_FIND_LEAD: Final = """
    SELECT id FROM leads WHERE contact_id = ? OR email = ? OR company = ? COLLATE NOCASE
        OR phone_key = ? LIMIT 20
"""
_EXPORT: Final = """
    SELECT s.row_number, s.raw, s.problem, s.lead_id, j.id, j.route, j.state, j.reason, r.matched, r.body,
        r.received_at,
        (SELECT COALESCE(SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END), 0)
            FROM jobs k JOIN attempts b ON b.job_id = k.id JOIN costs c ON c.attempt_id = b.id
            WHERE k.lead_id = s.lead_id AND (?2 IS NULL OR k.route = ?2)),
        (SELECT COALESCE(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN 0
                ELSE -c.amount_microusd END), 0)
            FROM jobs k JOIN attempts b ON b.job_id = k.id JOIN costs c ON c.attempt_id = b.id
            WHERE k.lead_id = s.lead_id AND (?2 IS NULL OR k.route = ?2)),
        (SELECT NULLIF(MIN(f.row_number), s.row_number) FROM source_rows f
            WHERE f.lead_id = s.lead_id AND f.import_id = s.import_id)
    FROM source_rows s
        LEFT JOIN jobs j ON j.id = (SELECT MAX(k.id) FROM jobs k WHERE k.lead_id = s.lead_id
            AND (?2 IS NULL OR k.route = ?2))
        LEFT JOIN results r ON r.job_id = j.id
    WHERE s.import_id = ?1 ORDER BY s.row_number
"""
_LAST_RUN: Final = """
    SELECT id, chain_id, started_at, ended_at, stop_reason, pid, settings, budget_microusd
    FROM runs ORDER BY id DESC LIMIT 1
"""
_RATE: Final = """
    SELECT COUNT(*) FROM jobs WHERE state IN ('matched', 'no_match', 'failed') AND finished_at >= ?
"""

_COLUMNS: Final = """
    SELECT m.name, c.name AS column FROM sqlite_master m JOIN pragma_table_info(m.name) c
    WHERE m.type IN ('table', 'view') ORDER BY m.name, c.cid
"""


@dataclass(frozen=True, slots=True)
class Money:
    """Totals over the whole ledger, in micro-dollars. `charged` is charges plus adjusts."""

    charged_microusd: int
    held_microusd: int
    released_microusd: int
    unattributed_microusd: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would send: jobs ready or to be written, and leads that will be skipped, by reason."""

    to_send: int
    skipped: dict[str, int]
    average_cost_microusd: int | None
    """Mean cost of the route's recent answers; None without history."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One source row with what became of it."""

    row_number: int
    raw: dict[str, str]
    problem: str | None
    lead_id: int | None
    job_id: int | None
    route: str | None
    state: str | None
    reason: str | None
    matched: int | None
    body: str | None
    received_at: str | None
    charged_microusd: int
    """Of all the lead's jobs (on the route asked for)."""
    held_microusd: int
    same_lead_as_row: int | None
    """The lead's first row in this import, for every later one: its money is counted there."""


@dataclass(slots=True)
class LeadStory:
    """Everything the ledger knows of one lead."""

    lead: dict[str, Any]
    source_rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    money: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)


class Reader:
    """A read-only look at a ledger; safe beside a running writer.

    Raises:
        LedgerFileProblem: There is no ledger at `path`, or it is not one.
    """

    def __init__(self, path: Path) -> None:
        self.path = real_path(path)
        self._connection = connect_readonly(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _one(self, sql: str, *parameters: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def counts(self) -> dict[str, int]:
        """Jobs by state, every state named."""
        found = dict(self._connection.execute(_STATES).fetchall())
        return {state.value: found.get(state.value, 0) for state in State}

    def money(self) -> Money:
        """Where the money is."""
        return Money(*(self._one(_MONEY) or (0, 0, 0, 0)))

    def leads(self) -> int:
        """How many leads there are."""
        return int((self._one("SELECT COUNT(*) FROM leads") or (0,))[0])

    def last_run(self) -> dict[str, Any] | None:
        """The newest run's row, `settings` as text; None before the first."""
        return next(rows(self._connection, _LAST_RUN), None)

    def finished_since(self, at: str) -> int:
        """Answers stored since a time (ledger text)."""
        return int((self._one(_RATE, at) or (0,))[0])

    def import_id(self, name: str) -> int:
        """The import called `last` or by number.

        Raises:
            UsageProblem: There is none.
        """
        return resolve_import(self._connection, name)

    def headers(self, import_id: int) -> list[str]:
        """The columns of an imported file, in its order."""
        return imports.headers(self._connection, import_id)

    def plan(self, route: str, selection: Selection, build: Build) -> Plan:
        """What a run with this selection would send on `route`; nothing is written."""
        check_fields(self._connection, selection)
        conditions, parameters = selection.sql()
        ready = int((self._one(_READY + conditions, route, *parameters) or (0,))[0])
        skipped: dict[str, int] = {}
        for page in never_asked(self._connection, route, selection, build):
            for _, asked in page:
                if isinstance(asked, Reason):
                    skipped[asked.value] = skipped.get(asked.value, 0) + 1
                else:
                    ready += 1
            if selection.limit is not None and ready >= selection.limit:
                ready = selection.limit
                break
        average = (self._one(_AVERAGE, route) or (None,))[0]
        return Plan(ready, skipped, None if average is None else round(average))

    def budget_left(self, caps: Caps, now: datetime, *, new_budget: bool) -> int | None:
        """What the tightest of the caps leaves to a run that starts `now` (micro-dollars); None without."""
        chain = 0 if new_budget else (chain_to_continue(self._connection) or 0)
        spent = exposure.load(self._connection, chain, to_text(now)[:10])
        pairs = (
            (caps.chain_microusd, spent.chain_microusd),
            (caps.day_microusd, spent.day_microusd),
            (caps.total_microusd, spent.total_microusd),
        )
        return min((max(0, cap - used) for cap, used in pairs if cap is not None), default=None)

    def latencies(self, route: str) -> list[float]:
        """Seconds from acceptance to answer of the route's recent jobs."""
        return latencies(self._connection, route)

    def jobs(self, filters: dict[str, object], limit: int) -> list[dict[str, Any]]:
        """Jobs that fit every filter (`state`, `route`, `reason`, `lead_id`), newest first."""
        chosen = {name: value for name, value in filters.items() if value is not None}
        query = _JOBS + "".join(_JOB_FILTERS[name] for name in chosen) + " ORDER BY j.id DESC LIMIT ?"
        return list(rows(self._connection, query, (*chosen.values(), limit)))

    def find_lead(self, name: str) -> int:
        """The lead called by number, contact id, email, phone or company.

        Raises:
            UsageProblem: None, or more than one.
        """
        if name.isascii() and name.isdigit() and len(name) < 19:
            row = self._one("SELECT id FROM leads WHERE id = ?", int(name))
            other = self._one("SELECT id FROM leads WHERE contact_id = ? AND id <> ?", name, int(name))
            if row is not None and other is not None:
                raise UsageProblem(
                    f"{name} is the number of one lead and the contact id of another (lead {other[0]}).",
                    next_step="Say which by its email, phone or company, or by the other's number.",
                )
            if row is not None:
                return int(row[0])
        found = [row[0] for row in self._connection.execute(_FIND_LEAD, (name, name, name, name))]
        if len(found) == 1:
            return int(found[0])
        what = f"No lead is called {name!r}." if not found else f"{len(found)} leads are called {name!r}."
        hint = "Give its number, contact id, email, phone or company."
        raise UsageProblem(
            what, next_step=hint if not found else "Their numbers: " + ", ".join(map(str, found))
        )

    def lead(self, lead_id: int) -> LeadStory:
        """Everything about one lead."""
        lead = next(rows(self._connection, "SELECT * FROM leads WHERE id = ?", (lead_id,)))
        parts = (
            list(rows(self._connection, query, (lead_id,)))
            for query in (_LEAD_ROWS, _STORY, _LEAD_MONEY, _LEAD_RESULTS)
        )
        return LeadStory(lead, *parts)

    def exported(self, import_id: int, route: str | None) -> Iterator[ExportRow]:
        """Every source row of an import in its original order, with its lead's newest job."""
        for row in self._connection.execute(_EXPORT, (import_id, route)):
            raw = {} if row[1] is None else json.loads(row[1])
            yield ExportRow(row[0], raw, *row[2:])

    def balance_history(self, limit: int = 10) -> list[dict[str, Any]]:
        """The newest looks at the balance."""
        query = "SELECT * FROM balance_checks ORDER BY id DESC LIMIT ?"
        return list(rows(self._connection, query, (limit,)))

    def audit(self, migrations: Migrations) -> Audit:
        """Every check there is, in one snapshot (`store.audit`)."""
        return audit(self._connection, migrations)

    # --- what a person decides ---

    def preview(self, verb: str, chosen: control.Chosen) -> list[control.Group]:
        """The jobs that a verb would touch, by what they may cost (`store.control.preview`)."""
        return control.preview(self._connection, verb, chosen)

    def leads_to_suppress(self, chosen: control.Chosen) -> list[int]:
        """Leads that are not suppressed yet (`store.control.leads_to_suppress`)."""
        return control.leads_to_suppress(self._connection, chosen)

    def known_jobs(self, job_ids: Iterable[int]) -> set[int]:
        """Those of the ids that are jobs of this ledger."""
        return {job for job in job_ids if self._one("SELECT 1 FROM jobs WHERE id = ?", job) is not None}

    def doubts(self, job_id: int | None = None) -> list[Doubt]:
        """Open doubts: one job's, or all.

        Raises:
            UsageProblem: The job does not exist or is not in doubt.
        """
        return find_doubts(self._connection, job_id)

    def audited_gap(self) -> int | None:
        """What the newest audit found missing, if nothing was booked since; None otherwise."""
        return audited_gap(self._connection)

    def outcome_of(self, intent_id: str) -> intents.Outcome | None:
        """What became of a wish; None while nothing has."""
        return intents.find(self._connection, intent_id)

    def claims(self) -> Iterator[dict[str, Any]]:
        """What to ask the provider about (`store.disputes`)."""
        return disputes.claims(self._connection)

    def quiet_at(self) -> int | None:
        """A number that stands still while the books do; None while a call may still be answered."""
        return disputes.quiet_at(self._connection)

    def compared(self, reading: ev.Balance) -> disputes.Compared:
        """How a balance compares with the books; writes nothing."""
        return disputes.compared(self._connection, reading)

    def check_origin(self, origin: str) -> None:
        """Refuse another provider than the one this ledger has worked with.

        Raises:
            UsageProblem: It is another one.
        """
        check_origin(self._connection, origin, change_provider=False)

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Every table and view with its columns, in order."""
        found: dict[str, tuple[str, ...]] = {}
        for row in rows(self._connection, _COLUMNS):
            found[row["name"]] = (*found.get(row["name"], ()), row["column"])
        return found

    def schema_version(self) -> int:
        """`PRAGMA user_version`."""
        return int((self._one("PRAGMA user_version") or (0,))[0])

    def quick_check(self) -> str:
        """SQLite's own word on the file: `ok`, or what is broken."""
        return str((self._one("PRAGMA quick_check") or ("",))[0])
