"""What must be true, computed in Python from the rows alone: no statement of `ledger.store` is used.

Each function returns sentences, none when all is well. Amounts are micro-dollars.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ledger.sandbox.books import Books, Submission
from ledger.states import FINAL, NEW, STEPS

_COSTS = """
    SELECT c.id, c.kind, c.amount_microusd, c.attempt_id, r.chain_id, substr(a.started_at, 1, 10), j.lead_id,
        r.budget_microusd, r.budget_day_microusd, r.budget_lead_microusd, r.budget_total_microusd,
        (SELECT chain_id FROM runs WHERE started_at <= c.at ORDER BY id DESC LIMIT 1)
    FROM costs c LEFT JOIN attempts a ON a.id = c.attempt_id LEFT JOIN jobs j ON j.id = a.job_id
        LEFT JOIN runs r ON r.id = c.run_id
    ORDER BY c.id
"""
_SIGN = {"hold": 1, "release": -1, "adjust": 1, "unattributed": 1, "charge": 0, "top_up": 0}
_ATTEMPTS = """
    SELECT a.id, a.idempotency_key, a.job_id, j.state, j.attempt = a.number, a.outcome, a.remote_job_id,
        a.ceiling_microusd, COALESCE(a.evidence, '') LIKE 'person:%'
    FROM attempts a JOIN jobs j ON j.id = a.job_id ORDER BY a.id
"""
_UNDECIDED = frozenset({"submitting", "waiting", "in_doubt"})


def caps_kept(connection: sqlite3.Connection) -> list[str]:
    """No hold lifted exposure above a cap of the run that wrote it (DESIGN, promise 3)."""
    wrong: list[str] = []
    exposure: Counter[tuple[str, object]] = Counter()
    open_holds: dict[int, tuple[object, int]] = {}
    for cost, kind, amount, attempt, run_chain, day, lead, *caps, newest_chain in connection.execute(_COSTS):
        # What a person books between two runs is spent in the chain that the next run may continue.
        chain = newest_chain if run_chain is None else run_chain
        for scope in (("chain", chain), ("day", day), ("lead", lead), ("total", None)):
            exposure[scope] += _SIGN[kind] * amount
        if kind == "hold":
            elsewhere = sum(held for other, held in open_holds.values() if other != chain)
            open_holds[attempt] = (chain, amount)
            now = (
                exposure["chain", chain] + elsewhere,
                exposure["day", day],
                exposure["lead", lead],
                exposure["total", None],
            )
            names = ("chain", "day", "lead", "total")
            wrong += [
                f"hold {cost} lifts the {name} to {sum_}, above its cap of {cap}"
                for name, sum_, cap in zip(names, now, caps, strict=True)
                if cap is not None and sum_ > cap
            ]
        elif kind in ("charge", "release"):
            open_holds.pop(attempt, None)
    return wrong


def history_replays(connection: sqlite3.Connection) -> list[str]:
    """Every job's steps form a chain of allowed steps from `new` to where it is."""
    wrong: list[str] = []
    at: dict[int, str] = {}
    for job, before, after, reason in connection.execute(
        "SELECT job_id, from_state, to_state, reason FROM transitions ORDER BY id"
    ):
        if before != at.get(job, NEW) or (before, after, reason) not in STEPS:
            wrong.append(f"job {job}: {before} -> {after} ({reason}) after {at.get(job, NEW)}")
        at[job] = after
    states = dict(connection.execute("SELECT id, state FROM jobs"))
    return wrong + [
        f"job {job} is {now}, its history says {at.get(job)}"
        for job, now in states.items()
        if at.get(job) != now
    ]


@dataclass
class Paid:
    """One attempt and what was booked for it."""

    key: str
    job: int
    state: str
    latest: bool
    outcome: str | None
    remote: str | None
    ceiling: int
    by_person: bool
    money: Counter[str] = field(default_factory=Counter)
    assumed: bool = False

    @property
    def open(self) -> bool:
        return self.state in _UNDECIDED and self.latest

    @property
    def cost(self) -> int:
        return self.money["charge"] + self.money["adjust"]


def attempts(connection: sqlite3.Connection) -> list[Paid]:
    """Every attempt with its movements of money."""
    made = {row[0]: Paid(*row[1:]) for row in connection.execute(_ATTEMPTS)}
    moves = "SELECT attempt_id, kind, amount_microusd, assumed FROM costs WHERE attempt_id IS NOT NULL"
    for attempt, kind, amount, assumed in connection.execute(moves):
        made[attempt].money[kind] += amount
        made[attempt].assumed |= bool(assumed)
    return list(made.values())


def money_adds_up(paid: list[Paid]) -> list[str]:
    """hold = charge + release once closed, and only open jobs have an open hold."""
    wrong = []
    for one in paid:
        closed = one.money["charge"] + one.money["release"]
        if one.money["hold"] != one.ceiling or closed != (0 if one.open else one.ceiling):
            wrong.append(f"attempt {one.key} of job {one.job} ({one.state}): {dict(one.money)}")
    return wrong


@dataclass
class Comparison:
    """Our books beside the provider's."""

    wrong: list[str]
    misled: bool
    """The provider told one call the job id of another; whose cost is whose cannot be known from outside."""
    exact: bool
    """Nothing was assumed, lumped together or left open, so the sums had to be equal."""


def compare(connection: sqlite3.Connection, books: Books) -> Comparison:
    """What an honest provider's books say about ours, call by call and in total."""
    paid = attempts(connection)
    by_key: defaultdict[str, list[Submission]] = defaultdict(list)
    for one in books.submissions:
        by_key[one.idempotency_key or ""].append(one)
    ours = {one.key for one in paid}
    wrong = [f"{key}: paid for, and no intent is on disk" for key in by_key.keys() - ours]
    wrong += [f"{key}: the POST was accepted {len(s)} times" for key, s in by_key.items() if len(s) > 1]
    misled = any(
        one.remote in books.jobs and books.jobs[one.remote].idempotency_key != one.key
        for one in paid
        if one.remote is not None
    )
    if not misled:
        charged = Counter(one.job for one in paid for s in by_key[one.key] if s.charged_microusd)
        wrong += [f"job {job} was paid {times} times" for job, times in charged.items() if times > 1]
        wrong += _costs_agree(paid, by_key)
    lumped = _lumped(connection)
    doubtful = sum(one.ceiling for one in paid if one.open)
    known = sum(one.cost for one in paid) + lumped
    theirs = sum(one.charged_microusd + one.held_microusd for one in books.submissions)
    above = sum(max(0, s.charged_microusd - s.pre_charge_microusd) for s in books.submissions)
    if theirs > known + doubtful + above:
        wrong.append(f"the provider took {theirs}; charged {known} and doubts {doubtful} do not explain it")
    exact = not (lumped or doubtful or any(one.assumed for one in paid))
    if exact and known != theirs:
        wrong.append(f"the ledger says {known}, the provider's books say {theirs}")
    return Comparison(wrong, misled, exact)


def _lumped(connection: sqlite3.Connection) -> int:
    query = "SELECT COALESCE(SUM(amount_microusd), 0) FROM costs WHERE kind = 'unattributed'"
    return int(connection.execute(query).fetchone()[0])


def _costs_agree(paid: list[Paid], by_key: dict[str, list[Submission]]) -> list[str]:
    """A closed call costs what the provider took for it, unless that was assumed or a person said so."""
    wrong = []
    for one in paid:
        took = sum(s.charged_microusd for s in by_key[one.key])
        if not (one.open or one.assumed or (one.outcome == "lost" and one.by_person)) and one.cost != took:
            wrong.append(
                f"attempt {one.key} of job {one.job} ({one.outcome}): booked {one.cost}, took {took}"
            )
    return wrong


def settled(connection: sqlite3.Connection) -> list[str]:
    """Everything is final, or in doubt with its hold (`money_adds_up` looks at it), or a person's to decide.

    A job that a person asked anew is paused when the answer that was given up comes after all.
    """
    allowed = {*FINAL, "in_doubt"}
    found = connection.execute(
        "SELECT id, state FROM jobs j WHERE NOT (state = 'queued' AND paused_at IS NOT NULL AND EXISTS ("
        "SELECT 1 FROM jobs o JOIN transitions t ON t.job_id = o.id AND t.reason = 'late_answer' "
        "WHERE o.lead_id = j.lead_id AND o.route = j.route AND o.generation = j.generation - 1))"
    ).fetchall()
    return [f"job {job} is still {state}" for job, state in found if state not in allowed]
