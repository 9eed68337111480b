"""Exposure against the caps: holds - releases + adjusts + unattributed, as running totals.

The totals are loaded by SUM when a run starts, changed only together with the transaction that changes the
books, and compared with SUM again when the run ends (`Bug` if they differ). All amounts are micro-dollars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ledger.store.connect import Connection


@dataclass(frozen=True, slots=True)
class Caps:
    """The four ceilings of spending; None means no cap."""

    chain_microusd: int | None = None
    day_microusd: int | None = None
    lead_microusd: int | None = None
    total_microusd: int | None = None


@dataclass(slots=True)
class Exposure:
    """What counts against the caps of the current run."""

    chain_id: int
    day: str
    """The UTC day (`2026-11-23`) that `day_microusd` counts: the day the hold was written."""
    chain_microusd: int
    day_microusd: int
    total_microusd: int

    def copy(self) -> Exposure:
        """A copy to go back to when a savepoint or a commit fails."""
        return replace(self)

    def blocked_by(self, ceiling: int, caps: Caps) -> str | None:
        """The name of the first cap that one more hold of `ceiling` would break, or None."""
        for name, exposure, cap in (
            ("budget", self.chain_microusd, caps.chain_microusd),
            ("budget_day", self.day_microusd, caps.day_microusd),
            ("budget_total", self.total_microusd, caps.total_microusd),
        ):
            if cap is not None and exposure + ceiling > cap:
                return name
        return None

    def held(self, ceiling: int) -> None:
        """A hold of this chain was written today."""
        self.chain_microusd += ceiling
        self.day_microusd += ceiling
        self.total_microusd += ceiling

    def unattributed(self, amount: int) -> None:
        """Money of this chain is gone and belongs to no attempt, so to no day either."""
        self.chain_microusd += amount
        self.total_microusd += amount

    def moved(self, *, chain_id: int, started_at: str, hold_closed: int, release: int, adjust: int) -> None:
        """An attempt of `chain_id`, sent at `started_at`, was closed or corrected.

        An open hold of an earlier chain counts against this one; once closed, its charge is the earlier
        chain's own and the whole hold goes.
        """
        delta = adjust - release
        self.total_microusd += delta
        if chain_id == self.chain_id:
            self.chain_microusd += delta
        else:
            self.chain_microusd -= hold_closed
        if started_at >= self.day:  # as `load` counts: a wall clock may step back over midnight
            self.day_microusd += delta


TOTAL: Final = """
    SELECT COALESCE(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN c.amount_microusd
        WHEN 'unattributed' THEN c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END), 0)
    FROM costs c
"""
_OF_CHAIN: Final = TOTAL + " JOIN runs r ON r.id = c.run_id WHERE r.chain_id = ?"
_OF_DAY: Final = TOTAL + " JOIN attempts a ON a.id = c.attempt_id WHERE a.started_at >= ?"
_OF_LEAD: Final = (
    TOTAL + " JOIN attempts a ON a.id = c.attempt_id JOIN jobs j ON j.id = a.job_id WHERE j.lead_id = ?"
)
_EARLIER_HOLDS: Final = """
    SELECT COALESCE(SUM(a.ceiling_microusd), 0)
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt JOIN runs r ON r.id = a.run_id
    WHERE j.state IN ('submitting', 'waiting', 'in_doubt') AND r.chain_id <> ?
"""


def load(connection: Connection, chain_id: int, day: str) -> Exposure:
    """The totals as the books have them now."""
    own = connection.execute(_OF_CHAIN, (chain_id,)).fetchone()[0]
    earlier = connection.execute(_EARLIER_HOLDS, (chain_id,)).fetchone()[0]
    today = connection.execute(_OF_DAY, (day,)).fetchone()[0]
    total = connection.execute(TOTAL).fetchone()[0]
    return Exposure(chain_id, day, own + earlier, today, total)


def of_lead(connection: Connection, lead_id: int) -> int:
    """Exposure of one lead over the ledger's life."""
    return int(connection.execute(_OF_LEAD, (lead_id,)).fetchone()[0])
