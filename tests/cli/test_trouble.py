"""A full disk, a folder that takes no files: real ones, met by the program as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEADS = "Company,Street\n" + "".join(f"Firm {number},{number} Main St\n" for number in range(50))
# Takes from root what lets it write everywhere (PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH);
# anybody else has not got it.
HEED_MODES = "import ctypes; [ctypes.CDLL(None).prctl(24, which, 0, 0, 0) for which in (1, 2)]"
ROOM = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
"""No file may grow beyond so many bytes: SQLite sees the errors of a full disk."""
THEN = "; import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'ledger.cli', *sys.argv[1:]])"


def started(folder: Path, *arguments: str, before: str = "pass") -> subprocess.CompletedProcess[str]:
    """The program in `folder`, in a process that has done `before` first."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    done = subprocess.run(
        [sys.executable, "-c", before + THEN, *arguments],
        cwd=folder,
        env={**plain, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "unexpected" not in done.stderr, done.stderr
    return done


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    told = json.loads(done.stdout)["error"]
    return f"{told['what']} {told['money']} {told['next_step']}"


@pytest.mark.parametrize("room", [0, 4096, 8192, 40_960, 81_920, 122_880])
def test_an_import_that_a_full_disk_ends_says_so_and_is_whole_the_next_time(
    tmp_path: Path, room: int
) -> None:
    (tmp_path / "leads.csv").write_text(LEADS, encoding="utf-8")
    done = started(tmp_path, "import", "leads.csv", "--json", before=ROOM.format(room=room))
    assert done.returncode == 1, "the room did not run out"
    assert "The ledger cannot be written" in error_of(done)
    assert "Free space" in error_of(done)
    healthy = started(tmp_path, "import", "leads.csv", "--json")
    assert json.loads(healthy.stdout)["leads_new"] == 50


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder with a ledger that takes no more files."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "leads.csv").write_text(LEADS, encoding="utf-8")
    assert started(folder, "import", "leads.csv").returncode == 0
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def refused(folder: Path) -> None:
    """The control: the program really cannot write there."""
    done = started(folder, "import", "leads.csv", "--json", before=HEED_MODES)
    assert (done.returncode, "cannot be written to" in error_of(done)) == (2, True)


def test_a_ledger_in_a_folder_that_takes_no_files_can_be_read(closed: Path) -> None:
    refused(closed)
    before = sorted(closed.iterdir())
    for command in (["status"], ["jobs"], ["show", "1"], ["audit", "--no-balance"], ["export", "../out.csv"]):
        done = started(closed, *command, "--json", before=HEED_MODES)
        assert done.returncode == 0, done
    assert len((closed.parent / "out.csv").read_text(encoding="utf-8").splitlines()) == 51
    done = started(closed, "run", "--route", "phone", "--budget", "9", "--json", before=HEED_MODES)
    assert done.returncode == 2
    assert sorted(closed.iterdir()) == before


LEFT_BEHIND = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("INSERT INTO leads (source, created_at, company) VALUES ('x', 'x', 'Late')")
os._exit(0)
"""


def test_what_waits_in_a_log_is_read_or_said_to_be_missing(closed: Path) -> None:
    closed.chmod(0o755)
    subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(closed / "leads.db")], check=True)
    assert (closed / "leads.db-wal").stat().st_size > 0
    closed.chmod(0o555)
    done = started(closed, "status", "--json", before=HEED_MODES)
    assert json.loads(done.stdout)["leads"] == 51
    closed.chmod(0o755)
    (closed / "leads.db-shm").unlink()
    closed.chmod(0o555)
    for command in (["status"], ["jobs"], ["audit", "--no-balance"], ["export", "-"]):
        done = started(closed, *command, before=HEED_MODES)
        assert (done.returncode, "Make " in done.stderr, "writable" in done.stderr) == (2, True, True)
    elsewhere = closed.parent / "copy"
    shutil.copytree(closed, elsewhere)
    elsewhere.chmod(0o755)
    assert json.loads(started(elsewhere, "status", "--json", before=HEED_MODES).stdout)["leads"] == 51


def test_a_demo_in_a_folder_that_takes_no_files_is_a_sentence(closed: Path) -> None:
    done = started(closed, "demo", "--json", before=HEED_MODES)
    assert (done.returncode, "--folder" in error_of(done)) == (2, True)
