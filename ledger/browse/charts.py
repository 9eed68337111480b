"""The two charts' numbers: spend over time, and jobs per minute by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ledger.browse.tally import Tally
from ledger.states import State

POINTS_MAX: Final = 240
"""As many as a screen can tell apart."""
_WIDTHS_MIN: Final = (1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440, 10080)
SHOWN: Final = (State.WAITING, State.MATCHED, State.NO_MATCH, State.FAILED, State.IN_DOUBT, State.LOST)
"""States a job can enter that tell how a night goes."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Equal steps of time and what happened in each."""

    width_min: int
    """Minutes a step."""
    times: list[int]
    """POSIX seconds at which each step begins."""
    charged_microusd: list[int]
    """Charged since the beginning, at the end of each step."""
    held_microusd: list[int]
    """Set aside at the end of each step."""
    entered: dict[str, list[float]]
    """State -> jobs that entered it, per minute."""


def chart(tally: Tally, run_ids: Iterable[int]) -> Chart:
    """What these runs did, in at most `POINTS_MAX` steps. Empty lists before anything has moved."""
    money: dict[int, Counter[str]] = {}
    states: dict[int, Counter[str]] = {}
    for run_id in run_ids:
        for minute, kinds in list(tally.spend.get(run_id, {}).items()):
            money.setdefault(_minute(minute), Counter()).update(kinds)
        for minute, steps in list(tally.steps.get(run_id, {}).items()):
            bucket = states.setdefault(_minute(minute), Counter())
            for (state, _), number in steps.items():
                bucket[state] += number
    minutes = money.keys() | states.keys()
    if not minutes:
        return Chart(1, [], [], [], {state.value: [] for state in SHOWN})
    return _cut(money, states, min(minutes), max(minutes))


def _cut(money: dict[int, Counter[str]], states: dict[int, Counter[str]], first: int, last: int) -> Chart:
    needed = (last - first) // POINTS_MAX + 1
    width = next((one for one in _WIDTHS_MIN if one >= needed), needed)
    steps = range(first, last + 1, width)
    charged, held = [0] * len(steps), [0] * len(steps)
    entered = {state.value: [0.0] * len(steps) for state in SHOWN}
    for minute, kinds in money.items():
        place = (minute - first) // width
        charged[place] += kinds["charge"] + kinds["adjust"] + kinds["unattributed"]
        held[place] += kinds["hold"] - kinds["charge"] - kinds["release"]
    for minute, entries in states.items():
        for state, numbers in entered.items():
            numbers[(minute - first) // width] += entries[state] / width
    return Chart(width, [step * 60 for step in steps], _running(charged), _running(held), entered)


def _running(steps: list[int]) -> list[int]:
    total, sums = 0, []
    for step in steps:
        total += step
        sums.append(total)
    return sums


def _minute(text: str) -> int:
    """Minutes since 1970 of `2026-11-26T21:04`."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC).timestamp()) // 60
