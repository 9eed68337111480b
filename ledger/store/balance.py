"""What the provider's balance should be by our books, and what each look at it showed.

expected = opening + top-ups - charges - adjusts - unattributed, of everything booked since the opening;
*assumed* charges count as 0 and the holds of doubts are not subtracted (DESIGN, "Closing a doubt", 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger import events as ev
from ledger.clock import from_text, later, to_text
from ledger.store.books import Books
from ledger.store.connect import Connection
from ledger.store.steps import record
from ledger.transition import Transition

_OPENING: Final = """
    SELECT observed_microusd, last_cost_id, agent_id FROM balance_checks WHERE kind = 'opening'
    ORDER BY id DESC LIMIT 1
"""
# A late answer's adjust says what an assumed charge really was: from then on both count. The adjust of an
# attempt closed before the opening moves nothing: the provider took that money before the opening was read.
_STILL_ASSUMED: Final = """
    c.kind = 'charge' AND c.assumed = 1
        AND NOT EXISTS (SELECT 1 FROM costs x WHERE x.attempt_id = c.attempt_id AND x.kind = 'adjust')
"""
_MOVED: Final = (
    """
    SELECT COALESCE(SUM(CASE WHEN c.kind = 'top_up' THEN c.amount_microusd
        WHEN c.kind IN ('hold', 'release') THEN 0
        WHEN """
    + _STILL_ASSUMED
    + """ THEN 0
        WHEN c.kind = 'adjust' AND EXISTS (SELECT 1 FROM costs x WHERE x.attempt_id = c.attempt_id
            AND x.kind IN ('charge', 'release') AND x.id <= ?1) THEN 0
        ELSE -c.amount_microusd END), 0)
    FROM costs c WHERE c.id > ?1
"""
)
_ASSUMED: Final = "SELECT COUNT(*) FROM costs c WHERE c.id > ? AND " + _STILL_ASSUMED
_NOTE: Final = """
    INSERT INTO balance_checks (run_id, kind, observed_microusd, digit_microusd, expected_microusd,
        gap_microusd, last_cost_id, conclusion, at, agent_id)
    VALUES (?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(id), 0) FROM costs), ?, ?, ?)
"""
_TOP_UP: Final = """
    INSERT INTO costs (run_id, kind, amount_microusd, at, evidence) VALUES (?, 'top_up', ?, ?, 'person')
"""
_AUDITED: Final = """
    SELECT b.gap_microusd,
        (SELECT COUNT(*) FROM costs c WHERE c.id > b.last_cost_id
            AND NOT (c.kind IN ('charge', 'release') AND c.evidence LIKE 'person:%')),
        (SELECT COALESCE(SUM(c.amount_microusd), 0) FROM costs c
            WHERE c.id > b.last_cost_id AND c.kind = 'charge')
    FROM balance_checks b WHERE b.kind = 'audit' ORDER BY b.id DESC LIMIT 1
"""
_STILL_REFUNDED: Final = """
    SELECT COUNT(*), MAX(a.ended_at) FROM transitions t JOIN attempts a ON a.id = t.attempt_id
    WHERE t.to_state = 'lost' AND t.reason IN ('written_off', 'resent_by_person') AND a.ended_at > ?
        AND NOT EXISTS (SELECT 1 FROM transitions l WHERE l.job_id = t.job_id AND l.reason = 'late_answer')
"""
_OPENED_AT: Final = "SELECT at FROM balance_checks WHERE kind = 'opening' ORDER BY id DESC LIMIT 1"
_LAST_BOOKED: Final = "SELECT at FROM costs ORDER BY id DESC LIMIT 1"
_NO_PRE_CHARGE: Final = """
    SELECT EXISTS (SELECT 1 FROM attempts WHERE billing_mode IS NOT NULL
        AND billing_mode <> 'virtual_balance')
"""
_LAST_COST: Final = "SELECT COALESCE(MAX(id), 0) FROM costs"
_UNATTRIBUTED: Final = """
    INSERT INTO costs (run_id, kind, amount_microusd, at, evidence)
    VALUES (COALESCE(?, (SELECT MAX(id) FROM runs)), 'unattributed', ?, ?, ?)
"""
_DOUBTS: Final = """
    SELECT j.id, j.attempt, a.ended_at, a.ceiling_microusd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.state = 'in_doubt' ORDER BY j.id
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One attempt whose outcome is unknown."""

    job_id: int
    fence: int
    ended_at: str
    ceiling_microusd: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Our books against the provider's: `gap` = expected - observed; None when nothing can be compared."""

    expected_microusd: int | None
    gap_microusd: int | None
    digit_microusd: int
    assumed_charges: int
    incomparable: str = ""
    """Why there is no gap, as a sentence."""


def doubts(connection: Connection) -> list[Doubt]:
    """Every open doubt."""
    return [Doubt(*row) for row in connection.execute(_DOUBTS)]


def freeze_ends(connection: Connection, wait_s: float) -> float | None:
    """The POSIX time from which no doubtful POST can still land; None without doubts.

    Args:
        connection: The ledger.
        wait_s: Freeze plus the longest client deadline, in seconds from the attempt's end.
    """
    ends = [from_text(doubt.ended_at).timestamp() for doubt in doubts(connection)]
    return max(ends) + wait_s if ends else None


def gap(connection: Connection, balance: ev.Balance) -> Gap:
    """Compare a balance with what the books expect.

    The digit is the finest one any reading has shown: JSON numbers drop trailing zeros, and a digit taken
    too coarse would call a small charge nothing.
    """
    finest = connection.execute("SELECT MIN(digit_microusd) FROM balance_checks").fetchone()[0]
    digit = balance.digit_microusd if finest is None else min(finest, balance.digit_microusd)
    opening = connection.execute(_OPENING).fetchone()
    if opening is None:
        return Gap(None, None, digit, 0, "There is no opening balance to compare with.")
    observed, last_cost_id, agent_id = opening
    if None not in {agent_id, balance.agent_id} and agent_id != balance.agent_id:
        why = f"This is the balance of {balance.agent_id}; the opening was that of {agent_id}."
        return Gap(None, None, digit, 0, why)
    expected = observed + connection.execute(_MOVED, (last_cost_id,)).fetchone()[0]
    assumed = connection.execute(_ASSUMED, (last_cost_id,)).fetchone()[0]
    return Gap(expected, expected - balance.amount_microusd, digit, assumed)


def note(books: Books, kind: str, balance: ev.Balance, conclusion: str | None = None) -> Gap:
    """Record one look at the balance (inside the caller's transaction). `kind`: opening, reading, audit."""
    found = gap(books.connection, balance)
    books.connection.execute(
        _NOTE,
        (
            books.run_id,
            kind,
            balance.amount_microusd,
            balance.digit_microusd,
            found.expected_microusd,
            found.gap_microusd,
            conclusion,
            to_text(books.now),
            balance.agent_id,
        ),
    )
    return found


def why_unprovable(books: Books) -> str | None:
    """Why the balance cannot prove anything now, as a sentence; None when it can.

    A call that a person gave up may still have been running at the provider when the opening was read, its
    pre-charge out; the refund that comes later hides what another doubt was charged. So nothing is concluded
    until a run has started with nothing open `job_deadline_s` after such a call. And a job that is not paid
    from the balance leaves no trace in it. (Both found by the model, docs/model.md.)
    """
    opening = books.connection.execute(_OPENED_AT).fetchone()
    if opening is None:
        return None  # there is nothing to compare with either, which the audit says
    since = to_text(later(from_text(opening[0]), -books.policy.job_deadline_s))
    count, last = books.connection.execute(_STILL_REFUNDED, (since,)).fetchone()
    if count:
        until = to_text(later(from_text(last), books.policy.job_deadline_s))[:16].replace("T", " ")
        return (
            f"{count} calls were given up by a person and may still be refunded: the balance proves nothing "
            f"until a run has started with nothing open after {until} UTC. A person decides."
        )
    if books.connection.execute(_NO_PRE_CHARGE).fetchone()[0]:
        return "Some jobs were not paid from the balance, so it proves nothing. A person decides."
    return None


def settled(books: Books) -> bool:
    """True when the last booking is `refund_settle_s` old: its refund has come."""
    last = books.connection.execute(_LAST_BOOKED).fetchone()
    if last is None:
        return True
    return (books.now - from_text(last[0])).total_seconds() >= books.policy.refund_settle_s


def last_cost(connection: Connection) -> int:
    """The newest booking: two readings of the balance are comparable only if it is the same for both."""
    return int(connection.execute(_LAST_COST).fetchone()[0])


def audited_gap(connection: Connection) -> int | None:
    """What is left of the gap the newest audit found, after what a person has written off since.

    Micro-dollars; None when there was no gap, or anything else has been booked since.
    """
    row = connection.execute(_AUDITED).fetchone()
    if row is None or row[0] is None or row[0] <= 0 or row[1]:
        return None
    return max(int(row[0]) - int(row[2]), 0)


def book_unattributed(books: Books, amount_microusd: int, evidence: str) -> None:
    """Book money that is gone and belongs to no single attempt (inside the caller's transaction).

    Between two runs the last one pays: else its budget chain would forget the money and spend it again.
    """
    books.connection.execute(_UNATTRIBUTED, (books.run_id, amount_microusd, to_text(books.now), evidence))
    if books.exposure is not None:
        books.exposure.unattributed(amount_microusd)


def top_up(books: Books, amount_microusd: int) -> None:
    """Record that a person added money to the balance (inside the caller's transaction)."""
    books.connection.execute(_TOP_UP, (books.run_id, amount_microusd, to_text(books.now)))


def proved_free(books: Books, found: list[Doubt], evidence: str) -> list[Transition]:
    """Send every doubt back to the queue, in the caller's transaction; those proved too often stay."""
    steps = (record(books, doubt.job_id, doubt.fence, ev.ProvedFree(evidence)) for doubt in found)
    return [step for step in steps if step is not None]
