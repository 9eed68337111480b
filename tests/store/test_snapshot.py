"""A snapshot holds no secret, masked nobody's data, keeps the money and every guard, and is no ledger."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import SystemClock
from ledger.errors import Bug, DiskTrouble, LedgerFileProblem, UsageProblem
from ledger.migrations.migrations import migrations
from ledger.states import State
from ledger.store import snapshot
from ledger.store.engine import sqlite3
from ledger.store.ledger import Ledger
from ledger.store.read import Reader

BEARER = "pb-needle-0815"
WHO = {
    "company": "Needle Plumbing",
    "dm_name": "Nadia Needle",
    "email": "nadia@needle.example",
    "number1": "+15205550123",
    "street": "77 Needle Street",
    "city": "Needleton",
    "zip": "85701",
    "domain": "needle.example",
}


@pytest.fixture
def lived(desk: Any) -> Any:
    """A ledger that is being written: one job answered, one waiting with a bearer, one in doubt."""
    others = [{"company": f"Needle Plumbing {n}", "email": f"n{n}@needle.example"} for n in (3, 4)]
    rows = [desk.row(n, **{**WHO, **other}) for n, other in enumerate([{}, *others], start=2)]
    desk.take(*rows, desk.row(5, rejection=("Company", "Needle Plumbing has no address")))
    desk.begin()
    desk.enqueue()
    desk.claim(3)
    desk.record(1, desk.accepted(bearer=BEARER + "-1"))
    desk.record(2, desk.accepted(bearer=BEARER + "-2"))
    desk.record(1, desk.finished(), polls=1)
    desk.doubt(3)
    return desk


def copy_of(desk: Any, file: Path, *, mask: bool) -> snapshot.Snapshot:
    return snapshot.take(desk.path, file, mask=mask)


def bytes_of(file: Path) -> bytes:
    return file.read_bytes().lower()


def guards(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("mask", [False, True])
def test_no_bearer_and_all_the_money(lived: Any, tmp_path: Path, mask: bool) -> None:
    file = tmp_path / "copy.db"
    beside = [path for path in lived.path.parent.glob(lived.path.name + "*") if path.is_file()]
    assert any(BEARER.encode() in path.read_bytes() for path in beside), (
        "control: the ledger and its log hold it"
    )
    done = copy_of(lived, file, mask=mask)
    assert (done.bearers_dropped, done.masked) == (1, mask)
    assert done.searched >= 1
    assert BEARER.encode() not in bytes_of(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    with Reader(file) as copy, Reader(lived.path) as ledger:
        assert copy.counts() == ledger.counts()
        assert copy.money() == ledger.money()
    assert guards(file) == guards(lived.path)


def test_masked_it_says_nobodys_name(lived: Any, tmp_path: Path) -> None:
    plain, masked = tmp_path / "plain.db", tmp_path / "masked.db"
    copy_of(lived, plain, mask=False)
    copy_of(lived, masked, mask=True)
    for value in WHO.values():
        assert value.lower().encode() in bytes_of(plain), "control"
        assert value.lower().encode() not in bytes_of(masked), value
    connection = sqlite3.connect(masked)
    shown = connection.execute(
        "SELECT company, charged_usd, last_state FROM lead_spend ORDER BY lead_id"
    ).fetchall()
    assert shown == [("Lead 1", 0.42, "matched"), ("Lead 2", 0.0, "waiting"), ("Lead 3", 0.0, "in_doubt")]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE costs SET amount_microusd = 0")
    connection.close()


def test_nothing_is_ever_sent_from_a_copy(lived: Any, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    copy_of(lived, file, mask=False)
    before = file.read_bytes()
    with pytest.raises(LedgerFileProblem, match="is a snapshot"):
        Ledger(file, "run", clock=SystemClock(), migrations=migrations)
    assert file.read_bytes() == before


def test_the_ledgers_own_files_are_not_written_over(lived: Any) -> None:
    before = lived.path.read_bytes()
    for suffix in ("", "-wal", ".lock", ".reserve", ".inbox"):
        with pytest.raises(UsageProblem, match="belongs to the ledger"):
            copy_of(lived, lived.path.with_name(lived.path.name + suffix), mask=False)
    assert lived.path.read_bytes() == before


def test_a_copy_that_fails_leaves_what_was_there(
    lived: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "copy.db"
    file.write_text("the old one")

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for step in ("_clean", "_check"):
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, step, full)
            with pytest.raises(DiskTrouble, match="disk is full"):
                copy_of(lived, file, mask=True)
        assert file.read_text() == "the old one"
        assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]


def test_control_a_copy_that_was_not_cleaned_is_found_out(
    lived: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted but not written anew: the bearer's bytes are still in the file."""

    def forgets(temporary: Path, *, mask: bool) -> None:
        del mask
        copy = sqlite3.connect(temporary, isolation_level=None)
        copy.execute("PRAGMA secure_delete = OFF")
        copy.execute("DELETE FROM poll_bearers")
        copy.close()

    monkeypatch.setattr(snapshot, "_clean", forgets)
    with pytest.raises(Exception, match="still holds"):
        copy_of(lived, tmp_path / "copy.db", mask=False)
    assert list(tmp_path.iterdir()) == []


def test_every_column_that_may_name_a_person_is_masked(desk: Any) -> None:
    """A column that a later schema adds must be looked at: it is masked, or listed here as harmless."""
    harmless = {
        "leads": {"id", "source", "suppressed", "created_at", "forgotten_at"},
        "imports": {"id", "file_sha256", "source", "imported_at", "rows_read", "leads_new", "leads_known"}
        | {"rows_rejected"},
        "deliveries": {"id", "received_at", "remote_job_id", "verdict", "sha256", "applied_at", "route"}
        | {"attempt_id"},
        "source_rows": {"import_id", "row_number", "lead_id"},
        "results": {"job_id", "matched", "billed", "cache_hit", "received_at"},
        "answers": {"id", "attempt_id", "kind", "http_status", "sha256", "received_at"},
        "intents": {
            "id",
            "kind",
            "dropped_at",
            "applied_at",
            "refused",
            "jobs",
            "charged_microusd",
            "outcome",
        },
    }
    for table, known in harmless.items():
        columns = {row[1] for row in desk.sql(f"PRAGMA table_info({table})")}
        assert columns == known | set(snapshot._MASK[table]), table


def test_an_older_schema_can_be_copied_too(new_desk: Callable[[], Any], tmp_path: Path) -> None:
    desk = new_desk()
    desk.leads(2)
    desk.ledger.books.connection.execute("DROP TABLE intents")
    copy_of(desk, tmp_path / "copy.db", mask=True)
    desk.close()
    with Reader(tmp_path / "copy.db") as reader:
        assert reader.counts()[State.QUEUED] == 0
        assert reader.leads() == 2


def test_what_others_wrote_is_masked_and_codes_stay(desk: Any, tmp_path: Path) -> None:
    desk.take(
        desk.row(2, **{**WHO, "state": "Needle State"}),
        desk.row(3, company="Other Needle", email="o@needle.example", state="NV"),
    )
    desk.begin()
    desk.enqueue()
    desk.claim(2)
    desk.doubt(1)
    write = desk.ledger.books.connection.execute
    write(
        "UPDATE attempts SET error = 'Nadia Needle said no', evidence = 'person: Nadia Needle' WHERE id = 1"
    )
    write(
        "UPDATE attempts SET error = 'resent: http_502', evidence = 'ask nadia@needle.example' WHERE id = 2"
    )
    write("INSERT INTO costs (kind, amount_microusd, at, evidence) VALUES ('top_up', 1, 'x', 'person')")
    write(
        "INSERT INTO deliveries (received_at, event_type, sha256, delivery_id, correlation) "
        "VALUES ('x', 'Needle event', 'a', 'needle-1', 'needle-2'), ('x', 'job.completed', 'b', NULL, NULL)"
    )
    write("UPDATE imports SET mapping = json_set(mapping, '$.headers', json('[\"Nadia Needle\"]'))")
    plain, masked = tmp_path / "plain.db", tmp_path / "masked.db"
    copy_of(desk, plain, mask=False)
    copy_of(desk, masked, mask=True)
    assert b"needle" in bytes_of(plain), "control"
    assert b"needle" not in bytes_of(masked)
    connection = sqlite3.connect(masked)

    def told(query: str) -> list[Any]:
        return connection.execute(query).fetchall()

    assert told("SELECT state FROM leads ORDER BY id") == [(None,), ("NV",)]
    assert told("SELECT error, evidence FROM attempts ORDER BY id") == [
        ("masked", "person: masked"),
        ("resent: http_502", "masked"),
    ]
    assert told("SELECT evidence FROM costs WHERE kind = 'top_up'") == [("person",)]
    assert told("SELECT event_type FROM deliveries ORDER BY id") == [("masked",), ("job.completed",)]
    assert told("SELECT DISTINCT json_extract(mapping, '$.encoding') IS NOT NULL FROM imports") == [(1,)]
    connection.close()


@pytest.mark.parametrize("column", ["dm_name", "street", "company", "email", "number1"])
def test_control_a_column_that_was_forgotten_is_found_out(
    lived: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    masked = {name: value for name, value in snapshot._MASK["leads"].items() if name != column}
    monkeypatch.setitem(snapshot._MASK, "leads", masked)
    with pytest.raises(Bug, match="still holds"):
        copy_of(lived, tmp_path / "copy.db", mask=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from ledger.store import snapshot
snapshot._clean = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
snapshot.take(Path(sys.argv[1]), Path(sys.argv[2]), mask=True)
"""


def test_what_a_kill_left_goes_with_the_next_snapshot(lived: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(lived.path), str(tmp_path / "one.db")]
    done = subprocess.run(command, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert BEARER.encode() in bytes_of(left[0]), "control: it is the copy with everything in it"
    assert stat.S_IMODE(left[0].stat().st_mode) == 0o600
    others = tmp_path / ".other.db.swp"
    others.write_text("not ours")
    with snapshot._temporary(tmp_path / "three.db") as held:
        copy_of(lived, tmp_path / "two.db", mask=True)
        assert {path.name for path in tmp_path.iterdir()} == {"two.db", others.name, held.name}
    assert {path.name for path in tmp_path.iterdir()} == {"two.db", others.name}
