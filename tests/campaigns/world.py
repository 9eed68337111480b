"""Play many small worlds (tests/world/world.py) and say which seeds broke a promise.

    python tests/campaigns/world.py --seeds 0:10000 [--log worlds.jsonl]

One JSON line a seed goes to the log; a seed that is in it already is not played again, so the campaign can be
stopped, continued, and split over processes by seed ranges. Failing seeds go to stderr as they are found, the
summary is one JSON object on stdout. Exit code 1 when a seed failed. The control forgets its doubts: worlds
are played until one of them has seen it pay twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "world"))

import totals
from world import make_template, memory_folder, play

from ledger import events as ev
from ledger import machine
from ledger.states import State


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False, seed=False)
    parser.add_argument("--seeds", default="0:10000", help="FIRST:END")
    parser.add_argument("--control", type=int, default=200, help="worlds of the control, at most")
    asked = parser.parse_args()
    first, end = (int(part) for part in asked.seeds.split(":"))
    told = _read(asked.log)
    begun, already = time.perf_counter(), len(told.keys() & set(range(first, end)))
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        template = make_template(Path(folder))
        for seed in range(first, end):
            if seed not in told:
                told[seed] = _play(seed, Path(folder), template)
                _note(asked.log, told[seed])
        caught = _control(asked.control, Path(folder), template)
    chosen = [told[seed] for seed in range(first, end)]
    summary = _summary(chosen, asked.seeds, len(chosen) - already, time.perf_counter() - begun)
    failed = [{"seed": one["seed"], "wrong": one["wrong"]} for one in chosen if one["wrong"]]
    summary["control_caught"] = caught
    why = "" if caught else "the control was not caught"
    return totals.finish(summary, failed, begun=begun, record=asked.record, failed=why)


def _control(worlds: int, folder: Path, template: Path) -> int:
    """1 when one of so many worlds catches a runner for which a lost POST was never sent, else 0."""
    sound = machine._HANDLERS[State.SUBMITTING]

    def forgetful(job: machine.Job, event: ev.Event, now: Any, policy: Any) -> machine.Transition | None:
        lost = isinstance(event, ev.Unknown | ev.FoundAtStart)
        return sound(job, ev.NotSent("forgotten") if lost else event, now, policy)

    with patch.dict(machine._HANDLERS, {State.SUBMITTING: forgetful}):
        return int(any("was paid" in str(play(seed, folder, template).wrong) for seed in range(worlds)))


def _play(seed: int, folder: Path, template: Path) -> dict[str, Any]:
    told = play(seed, folder, template)
    if told.wrong:
        sys.stderr.write(f"seed {seed}: {'; '.join(told.wrong)}\n")
    return {**vars(told), "happened": dict(told.happened)}


def _read(log: Path | None) -> dict[int, dict[str, Any]]:
    """What was played before; a last line that a kill cut short is played again."""
    told: dict[int, dict[str, Any]] = {}
    if log is None or not log.exists():
        return told
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        told[one["seed"]] = one
    return told


def _note(log: Path | None, told: dict[str, Any]) -> None:
    if log is None:
        return
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def _summary(chosen: list[dict[str, Any]], seeds: str, played: int, seconds: float) -> dict[str, Any]:
    happened: Counter[str] = Counter()
    for one in chosen:
        happened.update(one["happened"])
    return {
        "campaign": "world",
        "seed": seeds,
        "worlds": len(chosen),
        "trusty": sum(one["trusty"] for one in chosen),
        "misled": sum(one["misled"] for one in chosen),
        "exact": sum(one["trusty"] and one["exact"] for one in chosen),
        "played_now": played,
        "worlds_per_second": round(played / seconds, 2) if played else None,
        "happened": dict(sorted(happened.items())),
    }


if __name__ == "__main__":
    raise SystemExit(main())
