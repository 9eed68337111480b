"""Every sync and every 4th write fails, once and from then on (EIO, ENOSPC), by strace.

    python tests/campaigns/io_errors.py --every 4 --jobs 2 --log FILE

The runner must stop paying and exit; a healthy start afterwards must end with nobody paid twice and nothing
lost. Judged by the sandbox's books. Counted: points, and how often the injected error ended the process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import kill
import points
import totals

Point = tuple[str, str, int, str]
ERRORS: Final = (("fdatasync", "EIO"), ("fsync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"))


def plan_points(where: kill.Bench, every: int) -> list[Point]:
    """(call, error, number, once or for ever)."""
    numbers = kill.count_calls(where, "run")
    chosen = []
    for call, error in ERRORS:
        step = every if call == "pwrite64" else 1
        for number in numbers.get(call, [])[::step]:
            chosen += [(call, error, number, ""), (call, error, number, "+")]
    return chosen


def run_point(where: kill.Bench, key: str, point: Point) -> dict[str, Any]:
    """Inject one error into a run, then run again in health, and judge."""
    call, error, number, lasting = point
    db = kill.prepare(where, key)
    injected = f"inject={call}:error={error}:when={number}{lasting}"
    code = where.strace("run", db, "-o", "/dev/null", "-e", f"trace={call}", "-e", injected)
    row = {"point": point, "code": code, **kill.resume(where, db, key)}
    if code not in {0, 1, 2, 3}:
        row["bad"].append(f"the faulty run ended with {code}")
    return row


def campaign(
    every: int, seed: int, most: int | None = None, *, jobs: int = 1, log: Path | None = None
) -> list[points.Row]:
    """Every point, or the first `most` of them spread over the list."""
    with kill.bench() as where:
        plan = plan_points(where, every)
    if most is not None:
        plan = plan[:: max(1, len(plan) // most)]
    keyed = [(f"{seed}:{number}", point) for number, point in enumerate(plan)]
    return points.play(keyed, run_point, kill.bench, jobs=jobs, log=log, shown=most is None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser)
    parser.add_argument("--every", type=int, default=4)
    wanted = parser.parse_args()
    if kill.STRACE is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    begun = time.perf_counter()
    rows = campaign(wanted.every, wanted.seed, jobs=wanted.jobs, log=wanted.log)
    result = {
        "campaign": "io_errors",
        "seed": wanted.seed,
        "points": len(rows),
        "ended_the_process": sum(row["code"] == 1 for row in rows),
        "exit_codes": dict(Counter(str(row["code"]) for row in rows)),
        "doubts_left": sum(row["doubts"] for row in rows),
    }
    failed = "" if result["ended_the_process"] else "no injected error ended a run"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
