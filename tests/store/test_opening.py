"""What is refused before anything is written, who may read the files, what a kill at birth leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import SystemClock
from ledger.errors import DiskTrouble, LedgerFileProblem
from ledger.migrations.migrations import migrations
from ledger.store import connect as opening
from ledger.store.connect import (
    check_file,
    check_place,
    connect,
    connect_readonly,
    file_system_of,
    transaction,
)
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.read import Reader

MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
proc /proc proc rw 0 0
filer:/x /mnt/team nfs4 rw 0 0
/dev/sdb1 /mnt/team/local ext4 rw 0 0
//nas/y /mnt/with\\040space cifs rw 0 0
tmpfs /mnt/te tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/x", "ext4"),
        ("/mnt/team", "nfs4"),
        ("/mnt/team/deep/er", "nfs4"),
        ("/mnt/team/local/x", "ext4"),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/teammate", "ext4"),
        ("/mnt/te/x", "tmpfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = f"/dev/vda1 / ext4 rw 0 0\nfiler:/x {tmp_path} nfs4 rw 0 0\n"
    with pytest.raises(LedgerFileProblem, match=r"network file system \(nfs4\)"):
        check_place(tmp_path / "leads.db", mounts)
    check_place(tmp_path / "leads.db", "/dev/vda1 / ext4 rw 0 0\n")


@pytest.mark.parametrize(
    "kind", ["lustre", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "vboxsf", "virtiofs", "9p"]
)
def test_what_another_machine_shares_with_us_is_a_network_file_system_too(tmp_path: Path, kind: str) -> None:
    with pytest.raises(LedgerFileProblem, match=rf"\({kind}\)"):
        check_place(tmp_path / "leads.db", f"somewhere {tmp_path} {kind} rw 0 0\n")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerFileProblem, match="There is no folder"):
        check_place(tmp_path / "gone" / "leads.db")


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode & os.W_OK))
    with pytest.raises(LedgerFileProblem, match="cannot be written to"):
        check_place(tmp_path / "leads.db")


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leads.db"
    path.touch()
    monkeypatch.setattr(os, "access", lambda asked, _: asked != path)
    with pytest.raises(LedgerFileProblem, match=r"leads\.db cannot be written to"):
        check_place(path)


def test_a_file_system_mounted_read_only_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_read_only", lambda folder: folder == tmp_path)
    with pytest.raises(LedgerFileProblem, match="cannot be written to"):
        check_place(tmp_path / "leads.db")


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, clock: Any) -> None:
    text, folder, other = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "c.db"
    text.write_text("company;city\n" * 50)
    folder.mkdir()
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = other.read_bytes()
    for path in (text, folder, other):
        with pytest.raises(LedgerFileProblem, match="is not a"):
            Ledger(path, "test", clock=clock, migrations=migrations)
    assert other.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.db", "b.db", "c.db"]


def test_a_torn_file_is_refused(tmp_path: Path, empty_ledger: Path) -> None:
    path = tmp_path / "torn.db"
    path.write_bytes(empty_ledger.read_bytes()[:60] + b"\xff" * 5000)
    with pytest.raises(LedgerFileProblem, match="is not a ledger"):
        check_file(path)


def test_a_newer_schema_is_refused(tmp_path: Path, empty_ledger: Path, clock: Any) -> None:
    path = tmp_path / "newer.db"
    path.write_bytes(empty_ledger.read_bytes())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerFileProblem, match=r"newer version of leadledger \(schema 99"):
        Ledger(path, "test", clock=clock, migrations=migrations)
    with pytest.raises(LedgerFileProblem, match="newer version"):
        Reader(path)


def test_a_missing_or_an_empty_file_becomes_a_ledger(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    Ledger(path, "test", clock=clock, migrations=migrations).close()
    with Reader(path) as reader:
        assert reader.leads() == 0


def test_a_reader_makes_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(LedgerFileProblem, match="There is no ledger"):
        Reader(path)
    path.touch()
    with pytest.raises(LedgerFileProblem, match="is empty"):
        Reader(path)
    assert path.stat().st_size == 0


def test_a_reader_cannot_write(story: Path) -> None:
    connection = connect_readonly(story)
    with pytest.raises(sqlite3.OperationalError, match=r"readonly|read-only"):
        connection.execute("UPDATE jobs SET priority = 1")
    connection.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from ledger.clock import SystemClock
from ledger.migrations.migrations import migrations
from ledger.store.connect import connect
from ledger.store.ledger import Ledger
if sys.argv[2] == "before the first migration":
    connection = connect(Path(sys.argv[1]))
else:
    ledger = Ledger(Path(sys.argv[1]), "test", clock=SystemClock(), migrations=migrations)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["before the first migration", "before the first checkpoint"])
def test_a_ledger_killed_at_its_birth_opens_again(tmp_path: Path, clock: Any, when: str) -> None:
    path = tmp_path / "leads.db"
    dead = subprocess.run([sys.executable, "-c", KILLED, str(path), when], check=False)
    assert dead.returncode == -signal.SIGKILL
    with Ledger(path, "test", clock=clock, migrations=migrations) as ledger:
        assert ledger.doubts() == []


def test_nobody_else_may_read_any_file_of_a_ledger_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        opening, "_private", lambda _: None
    )  # the mode is right at birth, not put right later
    umask = os.umask(0)
    try:
        with Ledger(tmp_path / "leads.db", "test", clock=SystemClock(), migrations=migrations) as ledger:
            ledger.top_up(1)
            ledger.begin_run(origin="http://127.0.0.1", settings={}, caps=Caps())
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
        assert os.umask(0) == 0
    finally:
        os.umask(umask)
    names = ("leads.db", "leads.db-wal", "leads.db-shm", "leads.db.lock", "leads.db.reserve")
    assert modes == dict.fromkeys(names, 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(story: Path) -> None:
    story.chmod(0o644)
    connect(story).close()
    assert stat.S_IMODE(story.stat().st_mode) == 0o600


def test_a_refused_row_is_not_called_disk_trouble_and_everything_else_is(ledger: Ledger) -> None:
    connection = ledger.books.connection
    insert = "INSERT INTO costs (kind, amount_microusd, at) VALUES ('top_up', ?, 'x')"
    with pytest.raises(sqlite3.IntegrityError), transaction(connection):
        connection.executemany(insert, [(1,), (-1,)])
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DiskTrouble, match="full"), transaction(connection):
        connection.execute("CREATE TABLE more AS SELECT zeroblob(1000000) AS x")
    assert not connection.in_transaction
    assert connection.execute("SELECT COUNT(*) FROM costs").fetchone() == (0,)


def test_a_transaction_inside_another_is_refused_and_the_outer_one_undone(ledger: Ledger) -> None:
    connection = ledger.books.connection
    with pytest.raises(DiskTrouble), transaction(connection), transaction(connection):
        pass
    assert not connection.in_transaction


def test_a_file_that_cannot_be_read_is_called_that(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(
        opening.sqlite3,
        "connect",
        lambda *_, **__: type("C", (), {"execute": cannot, "close": lambda _: None})(),
    )
    with pytest.raises(LedgerFileProblem, match="cannot be read: unable to open"):
        check_file(story)


LOCKS_OF = """
import fcntl, os, struct, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
    except OSError:
        print("held")
    else:
        print("free")
"""


def test_looking_at_a_ledger_does_not_drop_the_locks_of_its_writer(story: Path, clock: Any) -> None:
    """Closing a plain file handle would: POSIX locks belong to the process, not to the handle."""
    with Ledger(story, "run", clock=clock, migrations=migrations) as ledger:
        assert ledger.doubts()
        with Reader(story) as reader:
            assert reader.leads() == 8
        check_file(story)
        seen = subprocess.run(
            [sys.executable, "-c", LOCKS_OF, str(story)], check=True, capture_output=True, text=True
        )
        assert seen.stdout == "held\n"
