"""Signals at random moments, and two runners on one ledger.

    python tests/campaigns/processes.py [--signals 200] [--races 200] [--seed 1]

A signal: SIGTERM or SIGINT (sometimes both) some milliseconds into a run; it must end with 143, 130 or by
itself, leave no doubt that the sandbox did not cause, and the same command must finish the rest. A race: two
runs started at once; one works, the other exits 5 or finds nothing left; nobody is paid twice.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import kill


def _start(where: kill.Bench, db: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        where.command("run", db),
        env=where.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _prepare(where: kill.Bench, key: str) -> Path:
    db = where.folder / f"p{key}.db"
    kill.write_leads(db, f"Point {key}")
    kill.take_in(db)
    return db


def signal_point(where: kill.Bench, key: str, chance: random.Random) -> dict[str, Any]:
    """One run, one or two signals, one run more."""
    db = _prepare(where, key)
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
    again = where.call("run", db)
    bad, doubts = kill.judge(where, db, f"Point {key}", [0, again])
    # Before the handlers are in place Python's own answer to a signal ends the process: nothing is sent yet.
    if code not in {0, 130, 143, -signal.SIGTERM, -signal.SIGINT}:
        bad.append(f"ended with {code}")
    return {"key": key, "code": code, "drained": drained, "doubts": doubts, "bad": bad}


def race_point(where: kill.Bench, key: str) -> dict[str, Any]:
    """Two runs at once."""
    db = _prepare(where, key)
    both = [_start(where, db), _start(where, db)]
    codes = sorted(run.wait(kill.TIMEOUT_S) for run in both)
    bad, doubts = kill.judge(where, db, f"Point {key}", [0, where.call("run", db)])
    if codes not in ([0, 5], [0, 0]):
        bad.append(f"the two ended with {codes}")
    return {"key": key, "refused": codes == [0, 5], "doubts": doubts, "bad": bad}


def campaign(signals: int, races: int, seed: int) -> dict[str, Any]:
    """Run both, and count."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for start in range(0, signals + races, kill.SANDBOX_LASTS):
        with kill.bench() as where:
            for number in range(start, min(start + kill.SANDBOX_LASTS, signals + races)):
                key = f"{seed}-{number}"
                one = number < signals
                rows.append(signal_point(where, key, chance) if one else race_point(where, key))
    sent, raced = rows[:signals], rows[signals:]
    return {
        "campaign": "processes",
        "seed": seed,
        "signals": len(sent),
        "drained": sum(row["drained"] for row in sent),
        "exit_codes": dict(Counter(str(row["code"]) for row in sent)),
        "races": len(raced),
        "second_runner_refused": sum(row["refused"] for row in raced),
        "doubts": sum(row["doubts"] for row in rows),
        "bad": [row for row in rows if row["bad"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    result = campaign(wanted.signals, wanted.races, wanted.seed)
    sys.stdout.write(json.dumps(result) + "\n")
    fired = result["drained"] and (result["second_runner_refused"] or not wanted.races)
    sys.exit(1 if result["bad"] or not fired else 0)


if __name__ == "__main__":
    main()
