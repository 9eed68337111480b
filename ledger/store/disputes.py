"""Where the provider's books and ours part: the balance against what we expect, and the claims that follow.

Nothing here is written down; `store.balance` books what an audit of a run or a person decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ledger import events as ev
from ledger.store.balance import gap
from ledger.store.connect import Connection, rows

_LAST_COST: Final = """
    SELECT (SELECT COALESCE(MAX(id), 0) FROM costs) AS last_cost,
        EXISTS (SELECT 1 FROM jobs WHERE state IN ('submitting', 'waiting')) AS busy
"""
_DOUBTFUL: Final = """
    SELECT COALESCE(SUM(a.ceiling_microusd), 0)
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt WHERE j.state = 'in_doubt'
"""
_ASSUMED: Final = """
    SELECT COALESCE(SUM(c.amount_microusd), 0) FROM costs c
    WHERE c.kind = 'charge' AND c.assumed = 1
        AND c.id > (SELECT last_cost_id FROM balance_checks WHERE kind = 'opening' ORDER BY id DESC LIMIT 1)
        AND NOT EXISTS (SELECT 1 FROM costs x WHERE x.attempt_id = c.attempt_id AND x.kind = 'adjust')
"""
# The view `claims` names every attempt with an upward adjust; here only what a ceiling really was passed by.
_CALLS: Final = """
    SELECT CASE WHEN a.outcome = 'lost' THEN 'lost' ELSE 'above_ceiling' END AS kind, a.id AS attempt_id,
        a.job_id, j.lead_id, j.route, j.mode, a.idempotency_key, a.remote_job_id, a.started_at AS sent_at,
        a.ended_at, a.http_status, a.error, a.ceiling_microusd, c.charged_microusd, c.assumed, a.evidence,
        j.request
    FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN (
        SELECT attempt_id, MAX(assumed) AS assumed,
            SUM(CASE kind WHEN 'charge' THEN amount_microusd WHEN 'adjust' THEN amount_microusd ELSE 0 END)
                AS charged_microusd
        FROM costs WHERE attempt_id IS NOT NULL GROUP BY attempt_id
    ) c ON c.attempt_id = a.id
    WHERE a.outcome = 'lost' OR c.charged_microusd > a.ceiling_microusd ORDER BY a.id
"""
_BODIES: Final = """
    SELECT kind, http_status, body, received_at FROM answers WHERE attempt_id = ? ORDER BY id
"""
_AMOUNTS: Final = """
    SELECT 'unattributed' AS kind, at, amount_microusd, evidence FROM costs WHERE kind = 'unattributed'
    UNION ALL
    SELECT 'gap', at, gap_microusd, 'found before a run began' FROM balance_checks
    WHERE kind = 'opening' AND gap_microusd >= digit_microusd
    ORDER BY at
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """A balance against the books, in micro-dollars; the first two are None where nothing can be compared."""

    expected_microusd: int | None
    gap_microusd: int | None
    observed_microusd: int
    covered_microusd: int
    """What open doubts and assumed charges may have cost: a gap up to this has an explanation."""
    digit_microusd: int
    incomparable: str = ""
    """Why nothing can be compared, as a sentence."""

    @property
    def explained(self) -> bool:
        """True when the gap is below the last digit shown, or within what is known to be uncertain."""
        found = self.gap_microusd
        if found is None:
            return True
        return -self.digit_microusd < found < self.covered_microusd + self.digit_microusd


def quiet_at(connection: Connection) -> int | None:
    """The id of the newest cost when nothing is submitting or waiting; None while something is.

    The same id before and after the balance was asked for says that the books stood still meanwhile.
    """
    last_cost, busy = connection.execute(_LAST_COST).fetchone()
    return None if busy else int(last_cost)


def compared(connection: Connection, reading: ev.Balance) -> Compared:
    """How a balance compares with the books; writes nothing."""
    found = gap(connection, reading)
    covered = sum(int(connection.execute(query).fetchone()[0]) for query in (_DOUBTFUL, _ASSUMED))
    return Compared(
        found.expected_microusd,
        found.gap_microusd,
        reading.amount_microusd,
        covered,
        found.digit_microusd,
        found.incomparable,
    )


def claims(connection: Connection) -> Iterator[dict[str, Any]]:
    """What to ask the provider about, one dictionary a claim; its `kind` says which keys there are.

    `lost` and `above_ceiling`: one paid call, with its ids, times, amounts, our request and, as `answers`,
    every raw body kept of it. `unattributed` and `gap`: an amount and when it was found.
    """
    for call in rows(connection, _CALLS):
        yield {**call, "answers": list(rows(connection, _BODIES, (call["attempt_id"],)))}
    yield from rows(connection, _AMOUNTS)
