"""A POST that lands after everybody gave it up: why the freeze is as long as it is (faults notes, F16)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from comparing import charged_twice
from faults import FAULTS, complaints, play

ACCEPT_LATE = next(fault for fault in FAULTS if fault.behaviour == "accept_late")
FREEZE_S = 1200.0


def test_a_freeze_longer_than_the_latest_landing_never_pays_twice(tmp_path: Path) -> None:
    played = asyncio.run(
        play(tmp_path, ACCEPT_LATE, leads=4, rate=1.0, late_s=(600.0, FREEZE_S), freeze_s=FREEZE_S)
    )
    assert played.did["landed"] == 4
    assert complaints(ACCEPT_LATE, played) == []
    assert played.verdict.attempts == 4
    assert played.verdict.states == {"in_doubt": 4}


def test_control_a_freeze_shorter_than_the_landing_pays_twice(tmp_path: Path) -> None:
    played = asyncio.run(
        play(tmp_path, ACCEPT_LATE, leads=4, rate=1.0, late_s=(1800.0, 2100.0), freeze_s=30.0)
    )
    assert played.did["landed"] == 4
    twice = charged_twice(played.books)
    assert twice
    assert {f"lead {lead} was charged twice" for lead in twice} <= set(complaints(ACCEPT_LATE, played))
