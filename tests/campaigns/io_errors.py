"""Every sync and every 4th write fails, once and from then on (EIO, ENOSPC), by strace.

    python tests/campaigns/io_errors.py [--every 4] [--seed 1]

The runner must stop paying and exit; a healthy start afterwards must end with nobody paid twice and nothing
lost. Judged by the sandbox's books. Counted: points, and how often the injected error ended the process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any, Final

import kill

ERRORS: Final = (("fdatasync", "EIO"), ("fsync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"))


def points(where: kill.Bench, every: int) -> list[tuple[str, str, int, str]]:
    """(call, error, number, once or for ever)."""
    numbers = kill.count_calls(where, "run")
    chosen = []
    for call, error in ERRORS:
        step = every if call == "pwrite64" else 1
        for number in numbers.get(call, [])[::step]:
            chosen += [(call, error, number, ""), (call, error, number, "+")]
    return chosen


def run_point(where: kill.Bench, key: str, point: tuple[str, str, int, str]) -> dict[str, Any]:
    """Inject one error into a run, then run again in health, and judge."""
    call, error, number, lasting = point
    db = where.folder / f"p{key.replace(':', '-')}.db"
    kill.write_leads(db, f"Point {key}")
    kill.take_in(db)
    injected = f"inject={call}:error={error}:when={number}{lasting}"
    code = where.call("run", db, "-o", "/dev/null", "-e", f"trace={call}", "-e", injected)
    bad, doubts = kill.judge(where, db, f"Point {key}", [0, where.call("run", db)])
    if code not in {0, 1, 2, 3}:
        bad.append(f"the faulty run ended with {code}")
    for path in where.folder.glob(db.stem + "*"):
        path.unlink()
    return {"key": key, "point": point, "code": code, "doubts": doubts, "bad": bad}


def campaign(every: int, seed: int, most: int | None = None) -> list[dict[str, Any]]:
    """Every point, or the first `most` of them spread over the list."""
    with kill.bench() as where:
        plan = points(where, every)
    if most is not None:
        plan = plan[:: max(1, len(plan) // most)]
    rows = []
    for start in range(0, len(plan), kill.SANDBOX_LASTS):
        with kill.bench() as where:
            for number, point in enumerate(plan[start : start + kill.SANDBOX_LASTS], start):
                rows.append(run_point(where, f"{seed}:{number}", point))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    if kill.STRACE is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    rows = campaign(wanted.every, wanted.seed)
    bad = [row for row in rows if row["bad"]]
    result = {
        "campaign": "io_errors",
        "seed": wanted.seed,
        "points": len(rows),
        "ended_the_process": sum(row["code"] == 1 for row in rows),
        "exit_codes": dict(Counter(row["code"] for row in rows)),
        "doubts_left": sum(row["doubts"] for row in rows),
        "bad": len(bad),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    for row in bad[:20]:
        sys.stdout.write(json.dumps(row) + "\n")
    sys.exit(1 if bad or not result["ended_the_process"] else 0)


if __name__ == "__main__":
    main()
