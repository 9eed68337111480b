"""Property: whatever happens, the running totals are the sums of the books and no hold passes a cap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import events as ev
from ledger.clock import to_text
from ledger.states import State, StopReason
from ledger.store import reserve
from ledger.store.exposure import Caps, load, of_lead

CEILING_MAX = 1_500_001
LEADS = 6
MUCH = 10**12
ODD_AMOUNT = st.integers(1, CEILING_MAX)
COST = st.none() | st.integers(0, 2 * CEILING_MAX)
PICK = st.integers(0, LEADS - 1)
POST = st.sampled_from(["accepted", "answered", "not_sent", "refused", "throttled", "unknown"])

STEP = st.one_of(
    st.tuples(st.just("claim"), ODD_AMOUNT, st.integers(1, 3)),
    st.tuples(st.just("claim"), ODD_AMOUNT, st.integers(1, 3)),
    st.tuples(st.just("post"), PICK, POST, COST),
    st.tuples(st.just("post"), PICK, POST, COST),
    st.tuples(st.just("settle"), PICK, COST),
    st.tuples(st.just("unreachable"), PICK),
    st.tuples(st.just("free")),
    st.tuples(st.just("write_off"), PICK, st.booleans()),
    st.tuples(st.just("late"), PICK, COST),
    st.tuples(st.just("audit"), ODD_AMOUNT),
    st.tuples(st.just("write_off_all"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 7200.0, 50_000.0])),
    st.tuples(st.just("die")),
    st.tuples(st.just("end"), st.sampled_from([StopReason.FINISHED, StopReason.INTERRUPTED]), st.booleans()),
)
CAP = st.none() | st.integers(0, 5 * CEILING_MAX)
CAPS = st.builds(Caps, CAP, CAP, CAP, CAP)

CLOSED_ODDLY = """
    SELECT a.id FROM attempts a WHERE EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id
        AND c.kind IN ('charge', 'release')) AND (SELECT SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd
        WHEN 'adjust' THEN 0 ELSE -c.amount_microusd END) FROM costs c WHERE c.attempt_id = a.id) <> 0
"""
NOT_HELD = """
    SELECT a.id FROM attempts a WHERE a.ceiling_microusd IS NOT
        (SELECT c.amount_microusd FROM costs c WHERE c.attempt_id = a.id AND c.kind = 'hold')
"""
OPEN_BUT_CLOSED = """
    SELECT j.id, j.state FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE (j.state IN ('submitting', 'waiting', 'in_doubt')) <> (a.id IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'release')))
"""
NEGATIVE = """
    SELECT attempt_id FROM costs WHERE kind IN ('charge', 'adjust') GROUP BY attempt_id
    HAVING SUM(amount_microusd) < 0
"""


class Player:
    """Plays steps at a desk; a step that cannot happen now is passed over."""

    def __init__(self, desk: Any, caps: Caps) -> None:
        self.desk, self.caps = desk, caps
        desk.ready(LEADS, caps)
        desk.ledger.note_balance("opening", ev.Balance(MUCH, 1))

    def in_state(self, pick: int, *states: State) -> int | None:
        marks = ", ".join("?" * len(states))
        found = self.desk.sql(f"SELECT id FROM jobs WHERE state IN ({marks}) ORDER BY id", *states)
        return found[pick % len(found)][0] if found else None

    def claim(self, ceiling: int, limit: int) -> None:
        claim = self.desk.claim(limit, ceiling)
        if not claim.calls:
            return
        now = self.desk.ledger.books.exposure
        for exposure, cap in (
            (now.chain_microusd, self.caps.chain_microusd),
            (now.day_microusd, self.caps.day_microusd),
            (now.total_microusd, self.caps.total_microusd),
        ):
            assert cap is None or exposure <= cap
        for call in claim.calls:
            lead = self.desk.one("SELECT lead_id FROM jobs WHERE id = ?", call.job_id)
            spent = of_lead(self.desk.ledger.books.connection, lead)
            assert self.caps.lead_microusd is None or spent <= self.caps.lead_microusd

    def post(self, pick: int, name: str, cost: int | None) -> None:
        job = self.in_state(pick, State.SUBMITTING)
        if job is not None:
            desk = self.desk
            events = {
                "accepted": desk.accepted,
                "answered": lambda: ev.Answered(desk.verdict(cost), ev.Answer("answered", 200, "{}")),
                "not_sent": lambda: ev.NotSent("dns"),
                "refused": desk.refused,
                "throttled": lambda: desk.throttled(None),
                "unknown": desk.unknown,
            }
            desk.record(job, events[name]())

    def settle(self, pick: int, cost: int | None) -> None:
        job = self.in_state(pick, State.WAITING, State.IN_DOUBT)
        if job is not None:
            self.desk.record(job, self.desk.finished(cost))

    def unreachable(self, pick: int) -> None:
        job = self.in_state(pick, State.WAITING)
        if job is not None:
            self.desk.record(job, ev.BecameUnreachable("gone"))

    def free(self) -> None:
        self.desk.ledger.prove_free(ev.Balance(1, 1), "audit")

    def write_off(self, pick: int, resend: bool) -> None:
        job = self.in_state(pick, State.IN_DOUBT)
        if job is not None:
            self.desk.ledger.write_off(self.desk.ledger.doubts(job), resend=resend)

    def audit(self, gap: int) -> None:
        expected = self.desk.ledger.balance_gap(ev.Balance(MUCH, 1)).expected_microusd
        self.desk.ledger.note_balance("audit", ev.Balance(expected - gap, 1))

    def write_off_all(self, resend: bool) -> None:
        self.desk.ledger.write_off(self.desk.ledger.doubts(), resend=resend)

    def late(self, pick: int, cost: int | None) -> None:
        job = self.in_state(pick, State.LOST)
        if job is not None:
            self.desk.record(job, self.desk.finished(cost))

    def pass_(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)

    def die(self) -> None:
        self.desk.die()
        self.desk.begin(self.caps)
        self.desk.enqueue()

    def end(self, reason: StopReason, new_budget: bool) -> None:
        self.desk.ledger.end_run(reason)
        self.desk.begin(self.caps, new_budget=new_budget)
        self.desk.enqueue()

    def check(self) -> None:
        books = self.desk.ledger.books
        kept = books.exposure
        assert kept == load(books.connection, kept.chain_id, kept.day)
        for query in (CLOSED_ODDLY, NOT_HELD, OPEN_BUT_CLOSED, NEGATIVE):
            assert self.desk.sql(query) == []


@patch.object(reserve, "SIZE", 4096)  # speed, as above and below: nothing here is about the disk
@settings(max_examples=150)
@given(caps=CAPS, steps=st.lists(STEP, min_size=5, max_size=30))
def test_totals_are_sums_and_no_hold_passes_a_cap(
    new_desk: Callable[[], Any], caps: Caps, steps: list[tuple[Any, ...]]
) -> None:
    desk = new_desk()
    desk.sql("PRAGMA synchronous = OFF")
    try:
        player = Player(desk, caps)
        for name, *drawn in steps:
            getattr(player, "pass_" if name == "pass" else name)(*drawn)
            player.check()
        desk.ledger.end_run(StopReason.FINISHED)
    finally:
        desk.close()


def test_the_day_of_the_totals_is_the_clocks(new_desk: Callable[[], Any]) -> None:
    desk = new_desk()
    desk.ready(1)
    desk.clock.advance(86_400)
    desk.claim()
    assert desk.ledger.books.exposure.day == to_text(desk.clock.now())[:10] == "2026-03-03"
    desk.close()
