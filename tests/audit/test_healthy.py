"""A ledger that the verbs made breaks no invariant, whatever happened to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import events as ev
from ledger.migrations.migrations import migrations
from ledger.states import Outcome, Reason, State, StopReason
from ledger.store.audit import FILE_CHECKS, INVARIANTS, Audit
from ledger.store.connect import Connection
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps, of_lead
from ledger.store.read import Reader

CEILING = 1_500_000


def said(found: Audit) -> dict[str, Any]:
    return {failure.name: failure.rows for failure in found.failed}


def test_nothing_is_wrong_with_a_ledger_to_which_everything_has_happened(healthy: Path) -> None:
    with Reader(healthy) as reader:
        found = reader.audit(migrations)
    assert said(found) == {}
    assert found.current
    assert found.checked == len(INVARIANTS) + len(FILE_CHECKS)
    assert (found.jobs, found.transitions) > (20, 100)


def test_everything_has_happened_to_it(copy: Connection) -> None:
    def names(query: str) -> set[str]:
        return {row[0] for row in copy.execute(query)}

    assert names("SELECT state FROM jobs") == set(State)
    assert names("SELECT outcome FROM attempts WHERE outcome NOT NULL") == set(Outcome)
    not_built = {Reason.LACKS_FIELDS}
    assert names("SELECT reason FROM transitions") == set(Reason) - not_built
    kinds = {"hold", "charge", "release", "adjust", "unattributed", "top_up"}
    assert names("SELECT kind FROM costs") == kinds


def test_an_empty_ledger_holds_too(empty_ledger: Path) -> None:
    with Reader(empty_ledger) as reader:
        assert said(reader.audit(migrations)) == {}


def test_an_audit_reads_beside_the_writer_and_leaves_no_transaction(world: Any) -> None:
    world.take("company 1")
    world.begin()
    world.enqueue()
    with Reader(world.path) as reader:
        world.claim()
        assert said(reader.audit(migrations)) == {}
        world.record(1, world.accepted())
        assert reader.counts()["waiting"] == 1


def test_a_lead_with_a_name_like_a_secret_is_none(
    copy: Connection, check: Callable[[Connection], Audit]
) -> None:
    for name in ("Bearer Transportation", "tech_solutions_of_the_world", "411k_", "bi-ech_x"):
        copy.execute("INSERT INTO imports VALUES (NULL, 'x', ?, 's', '{}', '', 1, 1, 0, 0)", (name,))
        row = "INSERT INTO source_rows VALUES ((SELECT MAX(id) FROM imports), 2, ?, 3, NULL)"
        copy.execute(row, (f'{{"Company": "{name}"}}',))
    assert said(check(copy)) == {}


def test_an_older_schema_is_reported_and_not_asked(
    copy: Connection, check: Callable[[Connection], Audit]
) -> None:
    copy.execute("DROP VIEW claims")
    copy.execute("PRAGMA user_version = 0")
    found = check(copy)
    assert not found.current
    assert [failure.name for failure in found.failed] == ["schema_is_current"]
    assert found.checked == len(FILE_CHECKS)


def test_a_missing_table_fails_checks_instead_of_the_audit(
    copy: Connection, check: Callable[[Connection], Audit]
) -> None:
    copy.execute("DROP TABLE answers")
    found = said(check(copy))
    assert {"guards_in_place", "final_answers_are_kept_raw"} <= found.keys()
    assert "no such table" in found["final_answers_are_kept_raw"][0]["error"]


def test_a_torn_page_is_found(healthy: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(healthy)) as file:
        page = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'balance_checks'").fetchone()[0]
        size = file.execute("PRAGMA page_size").fetchone()[0]
    torn = bytearray(healthy.read_bytes())
    torn[size * (page - 1) : size * page] = b"\xff" * size
    path = tmp_path / "torn.db"
    path.write_bytes(torn)
    with Reader(path) as reader:
        found = said(reader.audit(migrations))
    assert "integrity_check" in found
    assert "malformed" in found["balance_gaps_add_up"][0]["error"]


def test_caps_are_held_to_the_micro_dollar(world: Any, check: Callable[[Connection], Audit]) -> None:
    """The audit counts what the writer counted: a cap just reached holds, one micro-dollar less is broken."""
    world.take("company 1", "company 2")
    world.begin()
    world.enqueue()
    world.claim(2)
    world.record(1, world.accepted(), world.finished(1_500_100))  # an earlier chain's, above its ceiling
    world.record(2, ev.Unknown("read_timeout", None, None))  # an earlier chain's, open while ours spends
    world.ledger.end_run(StopReason.FINISHED)
    world.clock.advance(86_400)
    world.begin()
    world.take("company 3", "company 4", "company 5")
    world.enqueue()
    world.claim(1)
    world.record(3, world.accepted(), world.finished(700_000))
    world.claim(1, ceiling=1_000_001)
    world.ledger.write_off(world.ledger.doubts(2), resend=True)
    world.record(4, world.accepted(), world.finished(1_000_002))
    world.claim(2)
    exposure = world.ledger.books.exposure
    connection = world.ledger.books.connection
    full = {
        "budget": exposure.chain_microusd,
        "budget_day": exposure.day_microusd,
        "budget_total": exposure.total_microusd,
        "budget_lead": max(of_lead(connection, lead_id) for lead_id in range(1, 6)),
    }
    assert full == {
        "budget": 4_700_002,
        "budget_day": 4_700_002,
        "budget_total": 7_700_102,
        "budget_lead": 3_000_000,
    }
    for option, reached in full.items():
        for cap, broken in ((reached, []), (reached - 1, [f"{option}_held"])):
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as capped:
                connection.backup(capped)
                capped.execute(f"UPDATE runs SET {option}_microusd = ? WHERE id = 2", (cap,))
                assert list(said(check(capped))) == broken


def happen(world: Any, caps: Caps, what: str, which: int, how: int) -> None:
    """One move that can happen now, chosen by the numbers."""
    if what == "claim":
        world.clock.advance(5)
        world.enqueue()
        world.claim(1 + how % 2)
    elif what == "run":
        RUN[how % len(RUN)](world, caps)
    elif what == "doubts":
        doubts = world.ledger.doubts()
        if doubts:
            DOUBTS[how % len(DOUBTS)](world, doubts)
    else:
        found = world.sql(ALIVE)
        if found:
            job_id, state, polled = found[which % len(found)]
            events = [*BY_STATE.get(state, ()), *(POLLED if polled and state != "submitting" else ())]
            if events:
                world.record(job_id, events[how % len(events)](world))


ALIVE = """
    SELECT j.id, j.state, a.remote_job_id NOT NULL
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.state IN ('submitting', 'waiting', 'in_doubt') OR (j.state = 'lost' AND a.remote_job_id NOT NULL)
    ORDER BY j.state = 'lost', j.id
"""
IN_THE_AIR: tuple[Callable[[Any], ev.Event], ...] = (
    lambda world: world.accepted(),
    lambda world: world.answered(),
    lambda _: ev.Refused(422, "X", "", ev.Answer("refused", 422, "{}")),
    lambda _: ev.NotSent("connect_error"),
    lambda _: ev.Throttled(None, ev.Answer("refused", 429, "")),
    lambda _: ev.NoMoney("X", "", ev.Answer("refused", 402, "")),
    lambda _: ev.Unknown("read_timeout", None, None),
)
POLLED: tuple[Callable[[Any], ev.Event], ...] = (
    lambda world: world.finished(),
    lambda world: world.finished(CEILING + 7),
    lambda world: world.finished(None),
    lambda world: world.finished(0, State.NO_MATCH),
    lambda world: world.finished(1, State.FAILED),
    lambda _: ev.StillRunning("running", known=True, answer=None),
)
BY_STATE: dict[str, tuple[Callable[[Any], ev.Event], ...]] = {
    "submitting": IN_THE_AIR,
    "waiting": (lambda _: ev.BecameUnreachable("gone"),),
    "in_doubt": (lambda _: ev.SameKeyResend(),),
}


def _prove_charged(world: Any, doubts: list[Any]) -> None:
    if len(doubts) == 1:
        world.ledger.prove_charged(ev.Balance(world.expected() - 9, 1), doubts[0], 9, "audit: 9 gone")


def _write_off_all(world: Any, doubts: list[Any]) -> None:
    world.ledger.note_balance("audit", ev.Balance(world.expected() - 11, 1))
    world.ledger.write_off(doubts, resend=False)


def _by_person(world: Any, doubts: list[Any]) -> None:
    """Only of a doubt that has no remote id yet: another one is refused."""
    name = f"person-{doubts[0].job_id}-{doubts[0].fence}"
    known = world.sql(
        "SELECT 1 FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt "
        "WHERE j.id = ? AND a.remote_job_id NOT NULL",
        doubts[0].job_id,
    )
    if not known:
        world.ledger.accept(doubts[0], name, None)


def _next_run(reason: StopReason, **rest: Any) -> Callable[[Any, Caps], None]:
    def after(world: Any, caps: Caps) -> None:
        world.ledger.end_run(reason)
        world.begin(caps, **rest)

    return after


def _die(world: Any, caps: Caps) -> None:
    world.die()
    world.begin(caps)


DOUBTS: tuple[Callable[[Any, list[Any]], object], ...] = (
    lambda world, _: world.ledger.prove_free(ev.Balance(world.expected(), 1), "audit: gap 0"),
    _prove_charged,
    lambda world, doubts: world.ledger.write_off(doubts[:1], resend=False),
    _write_off_all,
    lambda world, doubts: world.ledger.write_off(doubts[-1:], resend=True),
    _by_person,
)
RUN: tuple[Callable[[Any, Caps], object], ...] = (
    lambda world, _: world.ledger.top_up(1_000_000),
    lambda world, _: world.note_opening(),
    lambda world, _: world.clock.advance(86_400),
    _die,
    _next_run(StopReason.INTERRUPTED),
    _next_run(StopReason.FINISHED),
    _next_run(StopReason.DISK, new_budget=True),
)
KINDS = ("claim", "job", "job", "job", "job", "doubts", "run")
MOVES = st.tuples(st.sampled_from(KINDS), st.integers(0, 7), st.integers(0, 41))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=20, max_size=80))
def test_no_order_of_verbs_breaks_an_invariant(
    new_world: Callable[[], Any], check: Callable[[Connection], Audit], moves: list[tuple[str, int, int]]
) -> None:
    with closing(new_world()) as world:
        world.take(*(f"company {n}" for n in range(1, 7)))
        caps = Caps(5_000_000, 6_000_000, 3_000_000, 9_000_000)
        world.begin(caps)
        world.note_opening()
        for move in moves:
            happen(world, caps, *move)
        assert said(check(world.ledger.books.connection)) == {}
        world.path.unlink()
