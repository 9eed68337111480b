"""How is tonight's run doing: one look, in values ready for the page."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ledger.browse.outside import Book, Outside
from ledger.browse.tally import Tally
from ledger.clock import from_text, later, to_text
from ledger.errors import LeadledgerError
from ledger.states import FINAL, State
from ledger.store.inbox import waiting

if TYPE_CHECKING:
    from datasette.database import Database

WAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Above this the page warns: somebody's reading keeps the writer's log from being cut."""
_RATE_WINDOW_S: Final = 600.0
_RUN: Final = "SELECT * FROM runs ORDER BY id DESC LIMIT 1"
_CHAIN: Final = "SELECT id FROM runs WHERE chain_id = :chain"
# The rows looked at are bounded, so that a look costs the same on a large ledger.
_RATE: Final = """
    SELECT COUNT(*), MIN(at) FROM (
        SELECT at, to_state FROM transitions ORDER BY id DESC LIMIT 20000)
    WHERE at >= :since AND to_state IN ('matched', 'no_match', 'failed')
"""
_EARLIER_HOLDS: Final = """
    SELECT COALESCE(SUM(a.ceiling_microusd), 0)
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt JOIN runs r ON r.id = a.run_id
    WHERE j.state IN ('submitting', 'waiting', 'in_doubt') AND r.chain_id <> :chain
"""
_DOUBTS: Final = """
    SELECT j.id AS job_id, j.lead_id, l.company, l.dm_name, j.route, j.reason, j.updated_at, a.error,
        a.http_status, a.evidence, a.remote_job_id, a.ceiling_microusd, a.number AS attempt,
        'in_doubt' AS to_state
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'in_doubt' ORDER BY j.id DESC LIMIT 10
"""
_DOUBTFUL_MONEY: Final = """
    SELECT COALESCE(SUM(a.ceiling_microusd), 0)
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt WHERE j.state = 'in_doubt'
"""
_ERRORS: Final = """
    SELECT a.error, a.ended_at, a.job_id, j.state, j.route, j.lead_id, l.company, l.dm_name
    FROM (SELECT * FROM attempts ORDER BY id DESC LIMIT 2000) a JOIN jobs j ON j.id = a.job_id
        LEFT JOIN leads l ON l.id = j.lead_id
    WHERE a.error IS NOT NULL ORDER BY a.id DESC LIMIT 8
"""


@dataclass(slots=True)
class Overview:
    """One look."""

    now: datetime
    run: dict[str, Any] | None
    """The newest run's row; None before the first."""
    holder: str | None
    """Who holds the ledger's lock; empty when nobody does, None when nobody can tell."""
    states: list[tuple[str, int]]
    """State -> jobs, the final ones first; only those that occur."""
    charged_microusd: int = 0
    """Of the current budget chain, as the next two."""
    held_microusd: int = 0
    left_microusd: int | None = None
    """None without a budget."""
    total_charged_microusd: int = 0
    """Of the whole ledger."""
    rate_per_min: float = 0.0
    left_s: float | None = None
    doubts: list[dict[str, Any]] = field(default_factory=list)
    doubtful_microusd: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    wishes: int = 0
    """What people asked for and nobody has carried out yet; as the next, counted up to a bound."""
    deliveries: int = 0
    """Webhook deliveries that wait: only a run takes them in."""
    wal_bytes: int = 0

    @property
    def on(self) -> bool:
        """A run is on, as far as anybody can tell."""
        return self.run is not None and self.run["ended_at"] is None and self.holder != ""

    @property
    def died(self) -> bool:
        """The newest run has not said goodbye, and nobody holds the ledger."""
        return self.run is not None and self.run["ended_at"] is None and self.holder == ""

    @property
    def jobs(self) -> int:
        """All jobs."""
        return sum(number for _, number in self.states)

    @property
    def final(self) -> int:
        """Jobs that are final."""
        return sum(number for state, number in self.states if state in FINAL)

    @property
    def budget_microusd(self) -> int | None:
        """The cap of the current budget chain."""
        return None if self.run is None else self.run["budget_microusd"]

    @property
    def wal_too_long(self) -> bool:
        """The writer's log has outgrown its bound."""
        return self.wal_bytes > WAL_BYTES_MAX


async def look(book: Book, outside: Outside, tally: Tally) -> Overview:
    """Look once. Reads the new rows, the open jobs and the newest calls; never the whole ledger."""
    database, now = book.database, outside.clock.now()
    await tally.catch_up(database)
    run = next(iter(await rows(database, _RUN)), None)
    order = [*(s for s in State if s in FINAL), *(s for s in State if s not in FINAL)]
    seen = Overview(
        now,
        run,
        None if outside.holder is None else outside.holder(book.path),
        [(state.value, tally.states[state.value]) for state in order if tally.states[state.value]],
        wal_bytes=_size(book),
    )
    total = tally.money()
    seen.total_charged_microusd = total["charged"] + total["unattributed"]
    seen.wishes, seen.deliveries = _waiting(book)
    if run is not None:
        await _money(database, seen, tally, run)
        await _pace(database, seen, tally, run)
        seen.errors = await rows(database, _ERRORS)
    if tally.states[State.IN_DOUBT]:
        seen.doubts = await rows(database, _DOUBTS)
        seen.doubtful_microusd = (await database.execute(_DOUBTFUL_MONEY)).rows[0][0]
    return seen


async def _money(database: Database, seen: Overview, tally: Tally, run: dict[str, Any]) -> None:
    """Exposure = holds - releases + adjusts + unattributed; earlier chains' open holds count too."""
    chain = {"chain": run["chain_id"]}
    runs = [row["id"] for row in await rows(database, _CHAIN, chain)]
    money = tally.money(runs)
    earlier = (await database.execute(_EARLIER_HOLDS, chain)).rows[0][0]
    seen.charged_microusd = money["charged"] + money["unattributed"]
    seen.held_microusd = money["held"] + earlier
    if run["budget_microusd"] is not None:
        exposure = money["hold"] - money["release"] + money["adjust"] + money["unattributed"] + earlier
        seen.left_microusd = max(run["budget_microusd"] - exposure, 0)


async def _pace(database: Database, seen: Overview, tally: Tally, run: dict[str, Any]) -> None:
    if not seen.on:
        return
    since = max(run["started_at"], to_text(later(seen.now, -_RATE_WINDOW_S)))
    done, first = (await database.execute(_RATE, {"since": since})).rows[0]
    if not done:
        return
    seconds = (seen.now - from_text(min(first, since) if done < 20000 else first)).total_seconds()
    seen.rate_per_min = 60.0 * done / max(seconds, 1.0)
    left = sum(tally.states[state] for state in (State.QUEUED, State.SUBMITTING, State.WAITING))
    seen.left_s = 60.0 * left / seen.rate_per_min


async def rows(
    database: Database, query: str, parameters: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Each row as a dictionary."""
    return [dict(row) for row in (await database.execute(query, parameters or {})).rows]


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """What a run was asked to do; empty when it cannot be read."""
    with suppress(ValueError, TypeError):
        told = json.loads(run["settings"])
        return told if isinstance(told, dict) else {}
    return {}


def _waiting(book: Book) -> tuple[int, int]:
    """(wishes, deliveries) in the inbox; a file's name says which it is."""
    with suppress(LeadledgerError):
        names = [path.name for path in waiting(book.path)]
        deliveries = sum(".delivery." in name for name in names)
        return len(names) - deliveries, deliveries
    return 0, 0


def _size(book: Book) -> int:
    with suppress(OSError):
        return book.path.with_name(book.path.name + "-wal").stat().st_size
    return 0
