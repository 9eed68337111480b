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
    kill = campaigns("kill")
    with kill.bench(blind=True) as where:
        reads = kill.count_calls(where, "run")["recvfrom"]
        rows = [kill.run_point(where, f"c{n}", ("run", "recvfrom", n, None)) for n in reads[1:8]]
    assert any("paid twice" in str(row["bad"]) for row in rows), rows


@needs_strace
@pytest.mark.timeout(300)
def test_io_errors(campaigns: Any) -> None:
    rows = campaigns("io_errors").campaign(every=12, seed=411, most=6)
    assert [row for row in rows if row["bad"]] == []
    assert any(row["code"] == 1 for row in rows), "an injected error must end a run"


@pytest.mark.timeout(300)
def test_signals_and_two_runners(campaigns: Any) -> None:
    # Whether two short runs overlap is chance in so few races; tests/story shows the refusal itself.
    rows = campaigns("processes").campaign(signals=8, races=4, seed=411)
    assert [row for row in rows if row["bad"]] == []
