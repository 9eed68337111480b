"""One writer a ledger: whoever comes second is told by whom it is held, and a kill frees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import LedgerBusy
from ledger.migrations.migrations import migrations
from ledger.store.ledger import Ledger
from ledger.store.lock import Lock, describe, is_held, lock_path, read_holder
from ledger.store.read import Reader

HOLDER = """
import sys
from pathlib import Path
from ledger.clock import SystemClock
from ledger.migrations.migrations import migrations
from ledger.store.ledger import Ledger
with Ledger(Path(sys.argv[1]), "run", clock=SystemClock(), migrations=migrations):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the ledger until its standard input closes."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


def test_the_second_is_told_who_holds_it_and_a_kill_frees_it(story: Path, clock: Any) -> None:
    with held_by_another(story) as child:
        with pytest.raises(LedgerBusy) as busy:
            Ledger(story, "import", clock=clock, migrations=migrations)
        assert f"process {child.pid} (run, since " in str(busy.value)
        assert os.uname().nodename in str(busy.value)
        assert busy.value.exit_code == 5
        with Reader(story) as reader:
            assert reader.counts()["matched"] == 1
        assert is_held(story)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not is_held(story)
    with Ledger(story, "import", clock=clock, migrations=migrations):
        assert read_holder(story)["pid"] == os.getpid()


def test_a_second_opening_in_the_same_process_is_refused_too(story: Path, clock: Any) -> None:
    with Ledger(story, "run", clock=clock, migrations=migrations):
        with pytest.raises(LedgerBusy, match=f"process {os.getpid()} "):
            Ledger(story, "import", clock=clock, migrations=migrations)
        assert read_holder(story)["command"] == "run"
    Ledger(story, "import", clock=clock, migrations=migrations).close()


def test_two_names_of_one_file_share_a_lock(story: Path, tmp_path: Path, clock: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    alias = other / "alias.db"
    alias.symlink_to(story)
    (tmp_path / "folder").symlink_to(tmp_path)
    assert lock_path(alias) == lock_path(tmp_path / "folder" / story.name) == lock_path(story)
    with Ledger(alias, "run", clock=clock, migrations=migrations) as ledger:
        assert ledger.path == story.resolve()
        for name in (story, tmp_path / "folder" / story.name):
            assert is_held(name)
            with pytest.raises(LedgerBusy):
                Ledger(name, "import", clock=clock, migrations=migrations)
    assert list(other.iterdir()) == [alias]


def test_looking_disturbs_nobody_and_creates_nothing(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "leads.db"
    assert not is_held(path)
    assert list(tmp_path.iterdir()) == []
    with Lock(path, "run", clock):
        facts = read_holder(path)
        for _ in range(20):
            assert is_held(path)
        assert read_holder(path) == facts
        with pytest.raises(LedgerBusy):
            Lock(path, "import", clock)
    assert not is_held(path)
    Lock(path, "import", clock).release()


def test_letting_go_twice_is_harmless_and_the_file_stays_empty(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "leads.db"
    lock = Lock(path, "run", clock)
    assert read_holder(path)["since"] == "2026-03-02T09:00:00.000000Z"
    lock.release()
    lock.release()
    assert lock_path(path).read_bytes() == b""
    assert read_holder(path) == {}


@pytest.mark.parametrize("left", [b"", b"{half", b"[1]", b"\xff\xfe"])
def test_an_unreadable_holder_is_another_process(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "leads.db"
    lock_path(path).write_bytes(left)
    assert describe(read_holder(path)) == "another process"


def test_a_ledger_that_cannot_be_opened_lets_go_of_its_lock(tmp_path: Path, clock: Any) -> None:
    class Broken:
        def pending(self, _: Any) -> list[Any]:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Ledger(tmp_path / "leads.db", "run", clock=clock, migrations=Broken())
    assert not is_held(tmp_path / "leads.db")
