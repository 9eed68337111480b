"""A small honest sample of each campaign, with its control; the campaigns themselves: `make campaign`."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="strace is not installed (Debian: apt-get install strace)",
)


@pytest.fixture
def campaigns(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module


@needs_strace
@pytest.mark.timeout(300)
def test_kills_at_system_calls(campaigns: Any) -> None:
    rows = campaigns("kill").campaign(8, 2, seed=411)
    assert [row for row in rows if row["bad"]] == []
    assert sum(row["fired"] for row in rows) >= 9, "the kills must really happen"


@needs_strace
@pytest.mark.timeout(300)
def test_the_control_that_forgets_doubts_is_caught(campaigns: Any) -> None:
    """Killed just before it reads an answer, a runner that sends again pays twice."""
    rows = campaigns("kill").control(6)
    assert any("paid twice" in str(row["bad"]) for row in rows), rows


@needs_strace
@pytest.mark.timeout(300)
def test_io_errors(campaigns: Any) -> None:
    rows = campaigns("io_errors").campaign(every=12, seed=411, most=6)
    assert [row for row in rows if row["bad"]] == []
    assert any(row["code"] == 1 for row in rows), "an injected error must end a run"


@pytest.mark.timeout(300)
def test_webhooks_signed_and_forged(campaigns: Any) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed here")
    result = campaigns("webhooks").campaign(cases=40, seed=411)
    assert (result["bad"], result["server_errors"], result["control_refused"]) == ([], 0, 20)
    assert result["cases"] >= 40
    assert result["accepted"] * 2 >= result["cases"], "refusals alone test nothing behind the signature"
    assert result["taken_in"] == result["different"] > 10


@pytest.mark.timeout(300)
def test_readers_beside_a_busy_writer(campaigns: Any) -> None:
    """Answered, and growing; how much longer the run takes is for the campaign to say, on a quiet machine."""
    result = campaigns("readers").campaign(requests=40, leads=40, rounds=1)
    assert result["bad"] == []
    assert result["requests"] >= 40
    assert result["counts_seen"] >= 2, "the run went on while it was looked at"


@pytest.mark.timeout(300)
def test_signals_and_two_runners(campaigns: Any) -> None:
    # Whether two short runs overlap is chance in so few races; tests/story shows the refusal itself.
    rows = campaigns("processes").campaign(signals=5, races=2, pauses=3, seed=411, control=2)
    assert [row for row in rows if row["bad"] and row["kind"] != "control"] == []
    assert any(row["bad"] for row in rows if row["kind"] == "control"), (
        "a run without the lock must be noticed"
    )


@pytest.mark.timeout(300)
def test_a_wall_clock_that_steps(campaigns: Any) -> None:
    clock_steps = campaigns("clock_steps")
    rows = clock_steps.campaign(6, seed=411)
    assert [row for row in rows if row["bad"]] == []
    assert sum(row["steps"] for row in rows) > 0
    control = clock_steps.campaign(2, seed=411, planted=clock_steps.BY_THE_WALL)
    assert any(row["bad"] for row in control), "waits by the wall clock must be noticed"


@pytest.mark.timeout(300)
def test_a_disk_that_fills_up(campaigns: Any) -> None:
    disk_full = campaigns("disk_full")
    if why := disk_full.impossible():
        pytest.skip(why)
    rows = disk_full.campaign(10, seed=411)
    assert [row for row in rows if row["bad"]] == []
    assert any(row["kept"] for row in rows), "the disk must be full after a 202"
    control = disk_full.campaign(10, seed=411, kept=False)
    assert any("lost" in str(row["bad"]) for row in control), "without the reserve a job must be lost"


@pytest.mark.timeout(300)
def test_kills_at_every_named_crash_point(campaigns: Any) -> None:
    statements = campaigns("statements")
    first = {what: (phase, what, n) for phase, what, n in reversed(statements.every_point())}
    named = [point for what, point in sorted(first.items()) if what != statements.STATEMENT]
    rows = statements.campaign(named, seed=411)
    assert [row for row in rows if row["bad"] or not row["fired"]] == []
    assert {row["point"][1] for row in rows} == set(statements.crashpoints.POINTS)
    control = statements.control(named)
    assert any("paid twice" in str(row["bad"]) for row in control), control


@pytest.mark.timeout(300)
def test_kills_at_sql_statements(campaigns: Any) -> None:
    statements = campaigns("statements")
    plan = [(phase, statements.STATEMENT, n) for phase in statements.PHASES for n in (40, 90)]
    plan += [("audit", statements.STATEMENT, 120)]
    rows = statements.campaign(plan, seed=411)
    assert [row for row in rows if row["bad"] or not row["fired"]] == []


@needs_strace
@pytest.mark.timeout(300)
def test_power_cuts_leave_the_store_whole(campaigns: Any) -> None:
    power = campaigns("power")
    lost = power.store(200, seed=411)
    assert (lost.damaged, lost.broken, lost.forgetful) == (0, 0, 0)
    assert lost.images > 100
    assert power.store(100, seed=411, planted=power.NORMAL).forgetful, "the control must lose commits"


@needs_strace
@pytest.mark.timeout(300)
def test_runs_go_on_after_power_cuts(campaigns: Any, tmp_path: Path) -> None:
    power = campaigns("power")
    rows = power.resumed(power.recording_of(tmp_path / "full"), 12, seed=411)
    assert [row for row in rows if row["bad"]] == []
    assert any(row["posts"] for row in rows)
    hasty = power.resumed(power.recording_of(tmp_path / "normal", planted=power.NORMAL), 24, seed=411)
    assert any("paid twice" in str(row["bad"]) for row in hasty), "the control must pay twice"
