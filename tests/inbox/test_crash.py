"""A wish is carried out exactly once, whoever is killed before whichever step."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLED = Path(__file__).parent / "killed.py"


def lives(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(KILLED), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_killed_before_every_step_a_wish_is_carried_out_exactly_once(tmp_path: Path) -> None:
    rows = lives(tmp_path)
    killed = [row for row in rows if row["ended"] == -signal.SIGKILL]
    assert len(killed) == len(rows) - 1 > 25, "every step but the last life was deadly"
    assert sum(row["again"] == -signal.SIGKILL for row in rows) > 10, "and so was many a next start"
    assert {row["last"] for row in rows} == {0}
    given = [row["applications"] for row in rows if row["given"]]
    assert set(given) == {1}
    assert len(given) > 15
    never = [row["applications"] for row in rows if not row["given"]]
    assert set(never) == {0}, "killed before the file was in place: nobody asked for anything"
    assert [row for row in rows if row["left"]] == []


@pytest.mark.slow
def test_the_control_that_notes_no_id_is_caught_applying_twice(tmp_path: Path) -> None:
    rows = lives(tmp_path, "--forget")
    assert max(row["applications"] for row in rows) > 1
