"""A person with an SQL shell (no foreign keys, no recursive triggers) cannot break the books by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.states import FINAL, NEW, STEPS, Reason, State
from ledger.store.engine import sqlite3

AT = "2026-03-02T09:00:00.000000Z"
NEW_JOB = (
    "INSERT {how} INTO jobs (id, lead_id, route, mode, request_key, generation, state, reason, attempt, "
    "created_at, updated_at, finished_at) VALUES ({id}, {lead}, '{route}', 'sync', 'k', 1, '{state}', "
    "'{reason}', {attempt}, 'x', 'x', {finished})"
)
NEW_ATTEMPT = (
    "INSERT {how} INTO attempts (id, job_id, number, run_id, idempotency_key, ceiling_microusd, started_at, "
    "remote_job_id) VALUES ({id}, {job}, {number}, 1, {key}, 5, 'x', {remote})"
)

NEW_STEP = "INSERT INTO transitions (job_id, from_state, to_state, reason, at) VALUES (5, ?, ?, ?, 'x')"


@pytest.fixture
def shell(story: Path) -> Iterator[sqlite3.Connection]:
    """The story's ledger in a plain SQLite shell with its defaults."""
    connection = sqlite3.connect(story, isolation_level=None)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
    assert connection.execute("PRAGMA recursive_triggers").fetchone() == (0,)
    yield connection
    connection.close()


def new_job(**said: object) -> str:
    known = {
        "how": "",
        "id": 90,
        "lead": 1,
        "state": "queued",
        "reason": "enqueued",
        "route": "enrich/phone",
        "attempt": 0,
        "finished": "NULL",
    }
    return NEW_JOB.format(**(known | said))


def new_attempt(**said: object) -> str:
    known = {"how": "", "id": 90, "job": 5, "number": 2, "key": "'k-90'", "remote": "NULL"}
    return NEW_ATTEMPT.format(**(known | said))


def new_cost(kind: str, amount: int, attempt: object = 1, how: str = "", number: object = "NULL") -> str:
    return (
        f"INSERT {how} INTO costs (id, attempt_id, run_id, kind, amount_microusd, at) "
        f"VALUES ({number}, {attempt}, 1, '{kind}', {amount}, 'x')"
    )


def test_what_the_forms_above_write_is_accepted_when_it_is_right(shell: sqlite3.Connection) -> None:
    shell.execute(new_job())
    shell.execute(new_attempt())
    shell.execute(new_cost("hold", 5, 90))
    shell.execute(new_cost("charge", 2, 90))
    shell.execute(new_cost("release", 3, 90))
    shell.execute(new_cost("adjust", -1, 90))
    shell.execute(new_cost("unattributed", 1, "NULL"))


REFUSED = {
    "a job born in another state": new_job(state="submitting", reason="claimed"),
    "a job born final": new_job(state="matched", reason="answered", finished="'x'"),
    "a job born with a reason of its own": new_job(reason="because"),
    "a job born with attempts": new_job(attempt=1),
    "a second open job of a lead": new_job(lead=2, route="enrich/websearch"),
    "a job replaced": new_job(how="OR REPLACE", id=1),
    "an open job replaced by its key": new_job(how="OR REPLACE", lead=2, route="enrich/websearch"),
    "a job deleted": "DELETE FROM jobs WHERE id = 7",
    "a job asked otherwise": "UPDATE jobs SET request = '{}' WHERE id = 5",
    "a job of another lead": "UPDATE jobs SET lead_id = 2 WHERE id = 5",
    "a job on another route": "UPDATE jobs SET route = 'enrich/phone' WHERE id = 5",
    "a final job without its time": "UPDATE jobs SET finished_at = NULL WHERE id = 1",
    "a final job moved": "UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = 1",
    "an open job with an end": "UPDATE jobs SET finished_at = 'x' WHERE id = 5",
    "an attempt deleted": "DELETE FROM attempts WHERE id = 5",
    "a second open attempt": new_attempt(job=2),
    "an attempt replaced by its id": new_attempt(how="OR REPLACE", id=1),
    "an attempt replaced by its number": new_attempt(how="OR REPLACE", number=1),
    "an attempt replaced by its remote id": new_attempt(how="OR REPLACE", remote="'remote-1'"),
    "an attempt replaced by its key": new_attempt(
        how="OR REPLACE", key="(SELECT idempotency_key FROM attempts WHERE id = 1)"
    ),
    "a remote id changed": "UPDATE attempts SET remote_job_id = 'other' WHERE id = 2",
    "a remote id forgotten": "UPDATE attempts SET remote_job_id = NULL WHERE id = 2",
    "a remote id taken over": "UPDATE OR REPLACE attempts SET remote_job_id = 'remote-1' WHERE id = 3",
    "a ceiling changed": "UPDATE attempts SET ceiling_microusd = 1 WHERE id = 2",
    "a key changed": "UPDATE attempts SET idempotency_key = 'x' WHERE id = 2",
    "a run deleted": "DELETE FROM runs",
    "a run replaced": "INSERT OR REPLACE INTO runs "
    "(id, chain_id, started_at, pid, host, version, origin, settings) "
    "VALUES (1, 1, 'x', 1, 'x', 'x', 'x', '{}')",
    "a run with a stop of its own": "UPDATE runs SET stop_reason = 'bored'",
    "a cost changed": "UPDATE costs SET amount_microusd = 0 WHERE id = 1",
    "a cost deleted": "DELETE FROM costs WHERE id = 1",
    "a cost replaced by its id": new_cost("adjust", 1, how="OR REPLACE", number=1),
    "a cost replaced by its kind": new_cost("hold", 1, how="OR REPLACE"),
    "a second hold": new_cost("hold", 1),
    "a second charge": new_cost("charge", 1),
    "a charge above the hold": new_cost("charge", 1_500_001, 2),
    "a release above what the charge left": new_cost("release", 1_500_001, 2),
    "a charge without a hold": new_cost("charge", 1, 77),
    "a hold of no attempt": new_cost("hold", 1, "NULL"),
    "a negative hold": new_cost("hold", -1, 5),
    "a cost of another kind": new_cost("gift", 1),
    "a transition changed": "UPDATE transitions SET reason = 'x' WHERE id = 1",
    "a transition deleted": "DELETE FROM transitions WHERE id = 1",
    "a transition replaced": "INSERT OR REPLACE INTO transitions "
    "(id, job_id, from_state, to_state, reason, at) VALUES (1, 1, 'new', 'queued', 'enqueued', 'x')",
    "an answer changed": "UPDATE answers SET body = 'x' WHERE id = 1",
    "an answer's digest changed": "UPDATE answers SET body = NULL, sha256 = 'x' WHERE id = 1",
    "an answer deleted": "DELETE FROM answers WHERE id = 1",
    "an answer replaced": "INSERT OR REPLACE INTO answers (id, attempt_id, kind, sha256, received_at) "
    "VALUES (1, 1, 'poll', 'x', 'x')",
    "a result changed": "UPDATE results SET body = 'x'",
    "a result's verdict changed": "UPDATE results SET body = NULL, matched = 0 WHERE job_id = 1",
    "a result deleted": "DELETE FROM results",
    "a result replaced": "INSERT OR REPLACE INTO results (job_id, received_at) VALUES (1, '')",
    "a source row changed": "UPDATE source_rows SET raw = 'x' WHERE row_number = 2",
    "a source row given away": "UPDATE source_rows SET raw = NULL, lead_id = 2 WHERE row_number = 2",
    "a source row deleted": "DELETE FROM source_rows",
    "a source row replaced": "INSERT OR REPLACE INTO source_rows "
    "(import_id, row_number, problem) VALUES (1, 2, 'x')",
    "an allowed step added by update": "UPDATE allowed_transitions SET to_state = 'queued'",
    "an allowed step removed": "DELETE FROM allowed_transitions",
    "an allowed step replaced": "INSERT OR REPLACE INTO allowed_transitions "
    "VALUES ('lost', 'failed', 'late_answer')",
    "text where a number belongs": "UPDATE leads SET suppressed = 'no'",
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_shell_is_refused(shell: sqlite3.Connection, what: str) -> None:
    tables = ("jobs", "attempts", "runs", "costs", "transitions", "answers", "results", "source_rows")
    before = [shell.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(REFUSED[what])
    assert [shell.execute(f"SELECT * FROM {table}").fetchall() for table in tables] == before


@pytest.mark.parametrize(
    "erased",
    [
        "UPDATE jobs SET request = NULL WHERE id = 1",
        "UPDATE answers SET body = NULL",
        "UPDATE results SET body = NULL",
        "UPDATE source_rows SET raw = NULL",
        "UPDATE leads SET company = NULL, forgotten_at = 'x'",
    ],
)
def test_a_person_can_be_erased(shell: sqlite3.Connection, erased: str) -> None:
    assert shell.execute(erased).rowcount > 0


def test_a_remote_id_may_be_learnt_later(shell: sqlite3.Connection) -> None:
    assert shell.execute("UPDATE attempts SET remote_job_id = 'r-9' WHERE id = 3").rowcount == 1


def ways_to_each_state() -> dict[str, list[tuple[str, str]]]:
    """For each state a path of (state, reason) from a queued job."""
    ways: dict[str, list[tuple[str, str]]] = {State.QUEUED: []}
    for _ in State:
        for step in STEPS:
            if step.from_state in ways and step.to_state not in ways:
                ways[step.to_state] = [*ways[step.from_state], (step.to_state, step.reason)]
    return ways


def move(shell: sqlite3.Connection, state: str, reason: str) -> None:
    finished = AT if state in FINAL else None
    shell.execute(
        "UPDATE jobs SET state = ?, reason = ?, finished_at = ? WHERE id = 5", (state, reason, finished)
    )


def allows(shell: sqlite3.Connection, state: str, reason: str) -> bool:
    shell.execute("SAVEPOINT try")
    try:
        move(shell, state, reason)
    except sqlite3.IntegrityError:
        return False
    finally:
        shell.execute("ROLLBACK TO try")
        shell.execute("RELEASE try")
    return True


@pytest.mark.parametrize("start", list(State))
def test_a_job_moves_by_the_steps_of_the_table_and_no_other(shell: sqlite3.Connection, start: State) -> None:
    shell.execute("BEGIN")
    for state, reason in ways_to_each_state()[start]:
        move(shell, state, reason)
    tried = [(to, reason) for to in State for reason in Reason if to is not start]
    allowed = {(to, reason) for to, reason in tried if allows(shell, to, reason)}
    assert allowed == {(step.to_state, step.reason) for step in STEPS if step.from_state == start}
    shell.execute("ROLLBACK")


def test_history_can_only_tell_of_allowed_steps(shell: sqlite3.Connection) -> None:
    shell.execute("BEGIN")
    written = set()
    for start in (NEW, *State):
        for to in State:
            for reason in Reason:
                try:
                    shell.execute(NEW_STEP, (start, to, reason))
                except sqlite3.IntegrityError:
                    continue
                written.add((start, to, reason))
    shell.execute("ROLLBACK")
    assert written == set(STEPS)


def test_an_attempt_after_a_closed_one_is_allowed_and_one_after_an_open_one_is_not(
    shell: sqlite3.Connection,
) -> None:
    shell.execute(new_attempt())
    with pytest.raises(sqlite3.IntegrityError, match="still open"):
        shell.execute(new_attempt(id=91, number=3, key="'k-91'"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE balance_checks SET observed_microusd = 1",
        "UPDATE balance_checks SET id = 9 WHERE id = 1",
        "DELETE FROM balance_checks",
        (
            "INSERT OR REPLACE INTO balance_checks (id, run_id, kind, observed_microusd, digit_microusd, "
            "last_cost_id, at) VALUES (1, 1, 'audit', 1, 1, 0, 'x')"
        ),
    ],
    ids=range(4),
)
def test_what_the_balance_was_is_not_altered(shell: sqlite3.Connection, statement: str) -> None:
    look = (
        "INSERT INTO balance_checks (run_id, kind, observed_microusd, digit_microusd, last_cost_id, at) "
        "VALUES (1, 'audit', 7, 1, 0, 'x')"
    )
    shell.execute(look)
    shell.execute(look)
    before = shell.execute("SELECT * FROM balance_checks").fetchall()
    assert len(before) >= 2
    with pytest.raises(sqlite3.IntegrityError, match="balance_checks is append-only"):
        shell.execute(statement)
    assert shell.execute("SELECT * FROM balance_checks").fetchall() == before
