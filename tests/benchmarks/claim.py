"""One claim (intent, hold, history and the check of every cap) as the ledger grows, nine tenths finished.

The ledgers are filled by SQL, without their guards, which are put back before anything is measured.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from measure import ROUTE, Report, middle

from ledger.clock import SystemClock
from ledger.migrations.migrations import migrations
from ledger.states import StopReason
from ledger.store.claims import ClaimRules, claim
from ledger.store.connect import Connection
from ledger.store.enqueue import Asked
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

SIZES: Final = (10_000, 100_000, 1_000_000)
ROUNDS: Final = 20
CLAIMS: Final = 40
"""Claims of one turn; the queue of the smallest ledger must carry those of all turns."""
RULES: Final = ClaimRules(ROUTE, "async", 1_500_000, Caps(total_microusd=10**15, lead_microusd=10**9))
_AT: Final = "'2026-01-01T00:00:00.000000Z'"
_NUMBERS: Final = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :upto)"
_STEPS: Final = (
    ("queued", "submitting", "claimed"),
    ("submitting", "waiting", "accepted"),
    ("waiting", "matched", "completed"),
)
_FILL_ALL: Final = (
    f"""{_NUMBERS} INSERT INTO leads (id, source, company, street, city, state, zip, place_key, created_at)
    SELECT i, 'file', 'Company ' || i, i || ' Oak Street', 'Tucson', 'AZ', '85701', 'company ' || i, {_AT}
    FROM n""",
    f"""{_NUMBERS} INSERT INTO jobs (id, lead_id, route, mode, request, request_key, state, reason, attempt,
        created_at, updated_at, finished_at)
    SELECT i, i, :route, 'async',
        '{{"lead":{{"company":"Company ' || i || '","city":"Tucson","zip":"85701"}}}}',
        lower(hex(randomblob(32))), iif(i <= :finished, 'matched', 'queued'),
        iif(i <= :finished, 'completed', 'enqueued'), i <= :finished, {_AT}, {_AT},
        iif(i <= :finished, {_AT}, NULL)
    FROM n""",
    f"""{_NUMBERS} INSERT INTO transitions (job_id, from_state, to_state, reason, at)
    SELECT i, 'new', 'queued', 'enqueued', {_AT} FROM n""",
)
_FILL_FINISHED: Final = (
    f"""INSERT INTO runs (id, chain_id, started_at, ended_at, pid, host, version, origin, settings,
        stop_reason)
    VALUES (1, 1, {_AT}, {_AT}, 1, 'host', '0', 'http://127.0.0.1', '{{}}', 'finished')""",
    f"""{_NUMBERS} INSERT INTO attempts (id, job_id, number, run_id, idempotency_key, ceiling_microusd,
        started_at, ended_at, outcome, http_status, remote_job_id, polls)
    SELECT i, i, 1, 1, lower(hex(randomblob(16))), 1500000, {_AT}, {_AT}, 'accepted', 202,
        lower(hex(randomblob(16))), 2 FROM n""",
    *(
        f"""{_NUMBERS} INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at)
        SELECT i, 1, '{kind}', {amount}, {_AT} FROM n"""
        for kind, amount in (("hold", 1_500_000), ("charge", 900_000), ("release", 600_000))
    ),
    *(
        f"""{_NUMBERS} INSERT INTO transitions (job_id, attempt_id, run_id, from_state, to_state, reason, at)
        SELECT i, i, 1, '{before}', '{after}', '{reason}', {_AT} FROM n"""
        for before, after, reason in _STEPS
    ),
)


def measure(folder: Path, scale: float) -> Report:
    """The same claims on a small, a middling and a large ledger, in turn, all in this process."""
    sizes = [max(1000, round(size * scale)) for size in SIZES]
    at_a_turn = min(CLAIMS, sizes[0] // 10 // ROUNDS)
    with ExitStack() as stack:
        ledgers = [
            stack.enter_context(filled(folder / f"ledger-{number}.db", size))
            for number, size in enumerate(sizes)
        ]
        start_s = [_start(ledger) for ledger in ledgers]
        times: list[list[float]] = [[] for _ in sizes]
        for _ in range(ROUNDS):
            for ledger, taken in zip(ledgers, times, strict=True):
                taken.extend(_claims(ledger, at_a_turn))
        for ledger in ledgers:
            ledger.end_run(StopReason.INTERRUPTED)
    claim_us = [middle(taken) for taken in times]
    ratios = [one / claim_us[0] for one in claim_us]
    lines = [
        (
            "one claim, in its transaction, without the commit; 90 % of the jobs finished; "
            f"{len(times[0])} claims on each ledger"
        )
    ]
    for size, one_us, times_smallest, begun_s in zip(sizes, claim_us, ratios, start_s, strict=True):
        lines.append(
            f"    {size:>9,} jobs: {one_us:6.0f} µs, {times_smallest:.2f} times the smallest; "
            f"a run can claim {begun_s:.2f} s after it opened the ledger"
        )
    figures: dict[str, Any] = {"rounds": ROUNDS, "claims": len(times[0]), "jobs": sizes}
    figures |= {"claim_us": claim_us, "ratios": ratios, "start_s": start_s}
    return Report(lines, figures)


def filled(path: Path, size: int) -> Ledger:
    """A new ledger with `size` jobs, nine tenths of them finished; open."""
    ledger = Ledger(path, "benchmark", clock=SystemClock(), migrations=migrations)
    connection = ledger.books.connection
    connection.execute("PRAGMA synchronous = OFF")
    guards = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
    ).fetchall()
    for kind, name, _ in guards:
        connection.execute(f"DROP {kind} {name}")
    _fill(connection, size)
    for _, _, sql in guards:
        connection.execute(sql)
    connection.execute("PRAGMA synchronous = FULL")
    return ledger


def _fill(connection: Connection, size: int) -> None:
    finished = size * 9 // 10
    connection.execute("BEGIN")
    for statement in _FILL_ALL:
        connection.execute(statement, {"upto": size, "finished": finished, "route": ROUTE})
    for statement in _FILL_FINISHED:
        connection.execute(statement, {"upto": finished})
    connection.execute("COMMIT")


def _start(ledger: Ledger) -> float:
    """Seconds until a run could claim: recover, begin, enqueue what was never asked (nothing)."""
    started = time.perf_counter()
    ledger.recover()
    ledger.begin_run(origin="http://127.0.0.1", settings={}, caps=RULES.caps)
    ledger.enqueue(ROUTE, "async", Selection(), lambda _, lead: Asked("{}", lead["company"]))
    return time.perf_counter() - started


def _claims(ledger: Ledger, count: int) -> list[float]:
    """Microseconds of `count` claims, each of one job, committed together."""
    taken = []
    with ledger.books.transaction():
        for _ in range(count):
            started = time.perf_counter_ns()
            found = claim(ledger.books, RULES, 1)
            taken.append((time.perf_counter_ns() - started) / 1000)
            if len(found.calls) != 1:
                raise RuntimeError("there was nothing to claim")
    return taken
