"""The schema is the one in tests/golden/schema.sql, however it was made. `pytest --golden` writes it anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.states import STEPS, Outcome, State, StopReason
from ledger.store.connect import APPLICATION_ID, SCHEMA_VERSION
from ledger.store.engine import sqlite3

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "schema.sql"


def schema(path: Path) -> str:
    """Every table, index, trigger and view of ours as it was written, by kind and name."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name <> '_sqlite_migrations' "
            "ORDER BY type, name"
        ).fetchall()
    finally:
        connection.close()
    return "".join(f"{sql};\n\n" for (sql,) in found)


def test_the_schema_is_the_golden_one(empty_ledger: Path, request: pytest.FixtureRequest) -> None:
    found = schema(empty_ledger)
    if request.config.getoption("--golden"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8"), (
        "meant? then run: pytest --golden tests/store/test_schema.py"
    )


def test_the_golden_schema_holds_every_guard_and_view() -> None:
    golden = GOLDEN.read_text(encoding="utf-8")
    for name in ("lead_spend", "job_timeline", "spend_by_day", "in_doubt", "claims", "stuck"):
        assert f"CREATE VIEW {name} " in golden
    for name in ("jobs_allowed_step", "costs_no_update", "costs_within_hold", "attempts_one_open"):
        assert f"CREATE TRIGGER {name} " in golden
    assert "CREATE UNIQUE INDEX costs_once " in golden


def test_every_table_of_ours_is_strict(empty_ledger: Path) -> None:
    connection = sqlite3.connect(empty_ledger)
    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    connection.close()
    loose = {name for name, strict in tables if not strict and not name.startswith(("sqlite_", "_sqlite_"))}
    views = {line.split()[2] for line in GOLDEN.read_text().splitlines() if line.startswith("CREATE VIEW")}
    assert loose == views


def test_sqlite_utils_by_hand_makes_the_same_schema(empty_ledger: Path, tmp_path: Path) -> None:
    path = tmp_path / "by-hand.db"
    command = [sys.executable, "-m", "sqlite_utils", "migrate", str(path), str(ROOT / "migrations")]
    subprocess.run(command, check=True, capture_output=True)
    assert schema(path) == schema(empty_ledger)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


def test_the_steps_in_the_database_are_the_steps_in_the_code(desk: Any) -> None:
    found = desk.sql("SELECT from_state, to_state, reason FROM allowed_transitions")
    assert sorted(found) == sorted(tuple(map(str, step)) for step in STEPS)


@pytest.mark.parametrize(("table", "words"), [("jobs", State), ("attempts", Outcome), ("runs", StopReason)])
def test_the_words_a_check_allows_are_the_words_in_the_code(desk: Any, table: str, words: Any) -> None:
    sql = desk.one("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", table)
    for word in words:
        assert f"'{word}'" in sql


def test_the_file_says_what_it_is(desk: Any) -> None:
    assert desk.one("PRAGMA application_id") == APPLICATION_ID
    assert desk.one("PRAGMA user_version") == SCHEMA_VERSION
    assert desk.one("PRAGMA journal_mode") == "wal"


def test_the_writer_has_every_guard_pragma_on(desk: Any) -> None:
    wanted = {
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "secure_delete": 1,
        "trusted_schema": 0,
    }
    assert {name: desk.one(f"PRAGMA {name}") for name in wanted} == wanted


VIEWS = (
    "lead_spend job_timeline spend_by_day spend_by_route run_summary in_doubt claims stuck duplicates_avoided"
)


@pytest.mark.parametrize("view", VIEWS.split())
def test_every_view_answers(story: Path, view: str) -> None:
    connection = sqlite3.connect(story, isolation_level=None)
    connection.execute("UPDATE jobs SET paused_at = 'x' WHERE id = 5")  # nothing is stuck before
    rows = connection.execute(f"SELECT * FROM {view}").fetchall()
    connection.close()
    assert rows
