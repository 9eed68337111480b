"""Signals at random moments, two runners on one ledger, and a runner that is stopped while another tries.

    python tests/campaigns/processes.py --signals 200 --races 200 --pauses 100 --log FILE

A signal: SIGTERM or SIGINT (sometimes both) some milliseconds into a run; it must end with 143, 130 or by
itself, leave no doubt that the sandbox did not cause, and the same command must finish the rest. A race: two
runs started at once; one works, the other exits 5 or finds nothing left; nobody is paid twice. A pause:
SIGSTOP while a run holds the ledger; a second one must be refused by the kernel's lock however long the first
sleeps, and after SIGCONT the first finishes. The control's second run takes no lock: it must be noticed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import kill
import points
import totals

from ledger.store.lock import is_held

UNLOCKED: Final = """\
from ledger.store.lock import Lock
Lock._take = lambda self: True
"""


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
    match kind:
        case "signal":
            return {"kind": kind, **signal_point(where, key, chance)}
        case "race":
            return {"kind": kind, **race_point(where, key)}
    planted = UNLOCKED if kind == "control" else ""
    return {"kind": kind, **pause_point(where, key, chance, planted)}


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


def pause_point(where: kill.Bench, key: str, chance: random.Random, planted: str) -> dict[str, Any]:
    """A run stopped while it holds the ledger, a second run, and the first one woken."""
    db = kill.prepare(where, key)
    run = _start(where, db)
    with suppress(subprocess.TimeoutExpired):
        while not is_held(db) and run.poll() is None:  # bounded: it takes the lock, or it ends
            with suppress(subprocess.TimeoutExpired):
                run.wait(0.005)
        run.wait(0 if planted else chance.uniform(0, 0.2))
    run.send_signal(signal.SIGSTOP)
    held = is_held(db)
    second = where.call("run", db, planted=planted, faulty=True)
    run.send_signal(signal.SIGCONT)
    code = run.wait(kill.TIMEOUT_S)
    row = {"held": held, "second": second, "code": code, **kill.resume(where, db, key)}
    if second != (5 if held else 0) or code not in {0, 3}:
        row["bad"].append(f"first {code}, second {second}, ledger held: {held}")
    return row


def campaign(
    signals: int, races: int, pauses: int, seed: int, *, control: int = 0, log: Path | None = None
) -> list[points.Row]:
    """Run all. One after the other: two runs that share the cores with others would seldom overlap."""
    kinds = ["signal"] * signals + ["race"] * races + ["pause"] * pauses + ["control"] * control
    plan = [(f"{seed}-{number}", kind) for number, kind in enumerate(kinds)]
    return points.play(plan, run_point, kill.bench, log=log)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--pauses", type=int, default=100)
    parser.add_argument("--control", type=int, default=10)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    sizes = (wanted.signals, wanted.races, wanted.pauses)
    rows = campaign(*sizes, wanted.seed, control=wanted.control, log=wanted.log)
    sent, raced, paused, control = (
        [row for row in rows if row["kind"] == kind] for kind in ("signal", "race", "pause", "control")
    )
    result = {
        "campaign": "processes",
        "seed": wanted.seed,
        "signals": len(sent),
        "drained": sum(row["drained"] for row in sent),
        "exit_codes": dict(Counter(str(row["code"]) for row in sent)),
        "races": len(raced),
        "second_runner_refused": sum(row["refused"] for row in raced),
        "pauses": len(paused),
        "paused_holding_the_ledger": sum(row["held"] for row in paused),
        "doubts_left": sum(row["doubts"] for row in rows if row["kind"] != "control"),
        "control_points": len(control),
        "control_caught": sum(bool(row["bad"]) for row in control),
    }
    failed = "" if result["control_caught"] else "the second runner without a lock was not noticed"
    for count, why in (
        ("drained", "no signal met a run"),
        ("second_runner_refused", "no two runs overlapped"),
        ("paused_holding_the_ledger", "no run was stopped while it held the ledger"),
    ):
        failed = failed if result[count] else why
    bad = [row for row in rows if row["bad"] and row["kind"] != "control"]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
