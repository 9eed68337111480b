"""A snapshot holds no secret, masked nobody's data, keeps the money and every guard, and is no ledger."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import SystemClock
from ledger.errors import DiskTrouble, LedgerFileProblem, UsageProblem
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
        "leads": {"id", "source", "state", "suppressed", "created_at", "forgotten_at"},
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
