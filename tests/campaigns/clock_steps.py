"""A wall clock that steps, forwards and backwards, by a second to a year: during runs and between them.

    python tests/campaigns/clock_steps.py --rounds 200 --jobs 2 --log FILE

Two runs under a clock that steps at random readings, the first killed in half the rounds, then one under the
true clock. No lease, wait or deadline may hang on wall time: every run ends, nobody is paid twice, every
invariant holds. Judged by the sandbox's books. The control waits by the wall clock: it must hang or be late.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any, Final

import kill
import points
import totals
import warm

from ledger import crashpoints

STEPPED: Final = """\
import os, random
from datetime import timedelta
from ledger.clock import SystemClock
true, chance = SystemClock.now, random.Random(os.environ["CLOCK_SEED"])
log, away = open(os.environ["CLOCK_STEPS"], "a", buffering=1), 0.0
def stepped(self):
    global away
    if chance.random() < 0.2:
        away = chance.choice((-1, 1)) * chance.choice((1, 60, 3600, 86_400, 31_622_400)) * chance.random()
        log.write(f"{away}\\n")
    return true(self) + timedelta(seconds=away)
SystemClock.now = stepped
"""
BY_THE_WALL: Final = "SystemClock.monotonic = lambda self: self.now().timestamp()\n"
"""The control: what is waited for is measured on the clock that steps."""
KILLED_AT: Final = ("claim_after_commit", "post_after", "record_after_commit", "poll_after")
PATIENCE_S: Final = 30.0
"""A run takes half a second; one that waits for a wall clock that stepped back takes for ever …"""
CONTROL_PATIENCE_S: Final = 5.0
"""… and nobody needs to wait long for the control."""


def run_point(where: kill.Bench, key: str, planted: str) -> points.Row:
    """Two runs under a stepping clock, one under the true one."""
    chance = random.Random(key)
    db = kill.prepare(where, key)
    steps = db.with_suffix(".steps")
    codes = []
    for turn in range(2):
        more = {"CLOCK_SEED": f"{key}:{turn}", "CLOCK_STEPS": str(steps)}
        if turn == 0 and chance.random() < 0.5:
            more[crashpoints.VARIABLE] = f"{chance.choice(KILLED_AT)}:{chance.randint(1, 3)}"
        patience_s = CONTROL_PATIENCE_S if planted else PATIENCE_S
        codes.append(where.call("run", db, planted=STEPPED + planted, timeout_s=patience_s, **more))
        if codes[-1] == warm.HUNG:
            break
    taken = len(steps.read_text(encoding="utf-8").splitlines())
    killed = codes[0] == warm.KILLED
    row = {"killed": killed, "codes": codes, "steps": taken, **kill.resume(where, db, key)}
    if not set(codes) <= {0, 3, warm.KILLED} or codes[-1] == warm.KILLED:
        row["bad"].append(f"the runs under the stepping clock ended with {codes}")
    if row["doubts"] and not killed:
        row["bad"].append(f"{row['doubts']} doubts without a kill")
    return row


def campaign(rounds: int, seed: int, *, planted: str = "", jobs: int = 1, **more: Any) -> list[points.Row]:
    """Rounds, each drawing its steps from its key; `planted` goes in after the stepping clock."""
    plan = [(f"{seed}:{number}", planted) for number in range(rounds)]
    return points.play(plan, run_point, kill.bench, jobs=jobs, **more)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--control", type=int, default=6)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    rows = campaign(wanted.rounds, wanted.seed, jobs=wanted.jobs, log=wanted.log, shown=True)
    control = campaign(wanted.control, wanted.seed, planted=BY_THE_WALL, jobs=wanted.jobs)
    result = {
        "campaign": "clock_steps",
        "seed": wanted.seed,
        "rounds": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "killed": sum(row["killed"] for row in rows),
        "doubts_left": sum(row["doubts"] for row in rows),
        "control_rounds": len(control),
        "control_caught": sum(bool(row["bad"]) for row in control),
    }
    failed = "" if result["control_caught"] else "the control was not caught"
    if not result["steps"]:
        failed = "the clock never stepped"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
