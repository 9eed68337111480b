"""The named crash points: a closed set, each passed in one place, and nothing without the variable.

That each really kills, and that the next run finishes what it left, is shown by tests/campaigns.
"""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ledger import crashpoints
from ledger.crashpoints import POINTS
from ledger.errors import UsageProblem

ROOT = Path(__file__).parents[2]
KILL = """\
from ledger import crashpoints as c
c.arm("post_after:2")
c.reach("post_after")
print("once", flush=True)
c.reach("post_before")
c.reach("post_after")
print("twice")
"""


def reached() -> Counter[str]:
    """Every `crashpoints.reach("…")` of the sources."""
    found: Counter[str] = Counter()
    for path in [*(ROOT / "ledger").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "crashpoints.reach":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}, line {node.lineno}: name the point"
                found[str(name.value)] += 1
    return found


def test_every_declared_point_is_passed_in_one_place_and_no_other_is() -> None:
    assert reached() == Counter(POINTS.keys())


def test_the_process_dies_at_the_passing_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")


@pytest.mark.parametrize(
    "wanted", ["nowhere", "post_after:", "post_after:0", "post_after:x", "post_after:²", ":1"]
)
def test_a_name_that_is_none_is_refused(wanted: str) -> None:
    with pytest.raises(UsageProblem, match="names no crash point"):
        crashpoints.arm(wanted)


@pytest.mark.parametrize("wanted", [None, ""])
def test_unarmed_a_point_does_nothing(wanted: str | None) -> None:
    crashpoints.arm(wanted)
    for name in POINTS:
        crashpoints.reach(name)


def test_the_command_says_which_points_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ledger.cli", "--db", str(tmp_path / "x.db"), "status"],
        env={"LEADLEDGER_CRASH_AT": "lunch"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "LEADLEDGER_CRASH_AT=lunch names no crash point" in done.stderr
    assert "Traceback" not in done.stderr
