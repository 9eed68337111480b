"""The ledger beside the provider's books: everything that must be true after any night on any wire."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.migrations.migrations import migrations
from ledger.states import FINAL
from ledger.store.audit import audit

_ATTEMPTS: Final = """
    SELECT a.idempotency_key, a.job_id, j.state, j.attempt = a.number, a.remote_job_id,
        COALESCE((SELECT SUM(amount_microusd) FROM costs c
            WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'adjust')), 0),
        COALESCE((SELECT SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN 0
            ELSE -c.amount_microusd END) FROM costs c WHERE c.attempt_id = a.id), 0),
        EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.assumed), a.ceiling_microusd
    FROM attempts a JOIN jobs j ON j.id = a.job_id
"""
_HOLLOW: Final = """
    SELECT j.id FROM jobs j WHERE j.state IN ('matched', 'no_match') AND (
        NOT EXISTS (SELECT 1 FROM results r WHERE r.job_id = j.id AND length(r.body) > 2)
        OR NOT EXISTS (SELECT 1 FROM answers w JOIN attempts a ON a.id = w.attempt_id
            WHERE a.job_id = j.id AND length(w.body) > 2))
"""


@dataclass(slots=True)
class Verdict:
    """What a comparison found."""

    wrong: list[str] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of every step that was taken."""
    attempts: int = 0

    @property
    def doubts_ever(self) -> int:
        """How many calls were in doubt at some time."""
        return self.reasons["outcome_unknown"] + self.reasons["unreachable"]


def charged_twice(books: dict[str, Any]) -> list[str]:
    """The leads (payload hashes) that the provider charged more than once."""
    counted = Counter(one["payload_sha256"] for one in books["submissions"] if one["charged_microusd"] > 0)
    return [lead for lead, times in counted.items() if times > 1]


def compare(db: Path, books: dict[str, Any]) -> Verdict:
    """Every lead, call and micro-dollar of a ledger against `GET /sandbox/books`."""
    found = Verdict()
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    try:
        states = "SELECT state, COUNT(*) FROM jobs GROUP BY state"
        found.states = dict(connection.execute(states).fetchall())
        found.reasons = Counter(reason for (reason,) in connection.execute("SELECT reason FROM transitions"))
        attempts = connection.execute(_ATTEMPTS).fetchall()
        found.attempts = len(attempts)
        hollow = connection.execute(_HOLLOW).fetchall()
        failed = audit(connection, migrations).failed
    finally:
        connection.close()
    found.wrong += [f"{failure.name}: {failure.rows[:3]}" for failure in failed]
    found.wrong += [f"job {job} is settled without a body" for (job,) in hollow]
    found.wrong += [f"{n} jobs are {state}" for state, n in found.states.items() if state not in _RESTING]
    found.wrong += [f"lead {lead} was charged twice" for lead in charged_twice(books)]
    found.wrong += [] if books["balanced"] else ["the provider's books do not balance"]
    found.wrong += _calls_agree(attempts, books["submissions"])
    return found


_RESTING: Final = {*FINAL, "in_doubt"}


def _calls_agree(attempts: list[tuple[Any, ...]], submissions: list[dict[str, Any]]) -> list[str]:
    """Call by call, by the key that each POST carried; so nothing depends on what the answer said."""
    theirs: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in submissions:
        theirs[one["idempotency_key"]].append(one)
    wrong = [
        f"{key}: accepted, and no intent is on disk" for key in theirs.keys() - {row[0] for row in attempts}
    ]
    for key, job, state, latest, remote, cost, held, assumed, ceiling in attempts:
        accepted = theirs[key]
        took = sum(one["charged_microusd"] for one in accepted)
        in_doubt = state == "in_doubt" and latest
        if len(accepted) > 1:
            wrong.append(f"job {job}: one POST was accepted {len(accepted)} times")
        if held != (ceiling if in_doubt else 0):
            wrong.append(f"job {job} is {state} and holds {held}")
        if remote is not None and remote not in {one["remote_job_id"] for one in accepted}:
            wrong.append(f"job {job}: {remote} is another call's")
        if not in_doubt and not assumed and cost != took:
            wrong.append(f"job {job} is {state}: booked {cost}, the provider took {took}")
    return wrong
