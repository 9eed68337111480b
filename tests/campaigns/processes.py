"""Signals at random moments, and two runners on one ledger.

    python tests/campaigns/processes.py --signals 200 --races 200 --log FILE

A signal: SIGTERM or SIGINT (sometimes both) some milliseconds into a run; it must end with 143, 130 or by
itself, leave no doubt that the sandbox did not cause, and the same command must finish the rest. A race: two
runs started at once; one works, the other exits 5 or finds nothing left; nobody is paid twice.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import kill
import points
import totals


def _start(where: kill.Bench, db: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        where.command("run", db),
        env=where.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run_point(where: kill.Bench, key: str, kind: str) -> dict[str, Any]:
    """One point of its kind; what it draws hangs on its key alone."""
    chance = random.Random(key)
    return {
        "kind": kind,
        **(signal_point(where, key, chance) if kind == "signal" else race_point(where, key)),
    }


def signal_point(where: kill.Bench, key: str, chance: random.Random) -> dict[str, Any]:
    """One run, one or two signals, one run more."""
    db = kill.prepare(where, key)
    first = chance.choice([signal.SIGTERM, signal.SIGINT])
    run = _start(where, db)
    try:
        run.wait(chance.uniform(0.05, 0.8))
    except subprocess.TimeoutExpired:
        run.send_signal(first)
        if chance.random() < 0.2:
            run.send_signal(first)
    code = run.wait(kill.TIMEOUT_S)
    drained = code in {130, 143}
    row = {"code": code, "drained": drained, **kill.resume(where, db, key)}
    # Before the handlers are in place Python's own answer to a signal ends the process: nothing is sent yet.
    if code not in {0, 130, 143, -signal.SIGTERM, -signal.SIGINT}:
        row["bad"].append(f"ended with {code}")
    return row


def race_point(where: kill.Bench, key: str) -> dict[str, Any]:
    """Two runs at once."""
    db = kill.prepare(where, key)
    both = [_start(where, db), _start(where, db)]
    codes = sorted(run.wait(kill.TIMEOUT_S) for run in both)
    row = {"refused": codes == [0, 5], **kill.resume(where, db, key)}
    if codes not in ([0, 5], [0, 0]):
        row["bad"].append(f"the two ended with {codes}")
    return row


def campaign(signals: int, races: int, seed: int, log: Path | None = None) -> list[points.Row]:
    """Run both. One after the other: two runs that share the cores with others would seldom overlap."""
    kinds = ["signal"] * signals + ["race"] * races
    plan = [(f"{seed}-{number}", kind) for number, kind in enumerate(kinds)]
    return points.play(plan, run_point, kill.bench, log=log)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--races", type=int, default=200)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    rows = campaign(wanted.signals, wanted.races, wanted.seed, wanted.log)
    sent = [row for row in rows if row["kind"] == "signal"]
    raced = [row for row in rows if row["kind"] == "race"]
    result = {
        "campaign": "processes",
        "seed": wanted.seed,
        "signals": len(sent),
        "drained": sum(row["drained"] for row in sent),
        "exit_codes": dict(Counter(str(row["code"]) for row in sent)),
        "races": len(raced),
        "second_runner_refused": sum(row["refused"] for row in raced),
        "doubts_left": sum(row["doubts"] for row in rows),
    }
    failed = "" if result["drained"] or not sent else "no signal met a run"
    if raced and not result["second_runner_refused"]:
        failed = "no two runs overlapped"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
