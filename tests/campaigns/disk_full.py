"""A disk that fills up in the middle of a run: a tmpfs of a size drawn for each round. Needs root.

    python tests/campaigns/disk_full.py --rounds 200 --jobs 2 --log FILE

Beside the ledger and the reserve there is room for a part of a run only. Whatever the provider accepted must
then be known, by remote id and bearer, in the ledger or in `LEDGER.reserve`; no POST may follow; and with
room again the next start takes it in and leaves no doubt. Judged by the sandbox's books. The control runs
without the reserve: it must lose an accepted job.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import kill
import points
import totals

from ledger import events as ev
from ledger.sandbox.testing import tell
from ledger.store import reserve
from ledger.store.engine import sqlite3

ROOMY: Final = "64m"
KIB: Final = 1024
NEEDED_KIB: Final = 520
"""What a run of the campaign's leads writes beside the reserve: log, shared memory, lock (measured)."""
AT_ONCE: Final = 2
"""`--concurrency` of the runs: so many POSTs can be in the air when the disk fills up."""
FORGETFUL: Final = """\
from ledger.store.ledger import Ledger
Ledger.keep_in_reserve = lambda self, job_id, fence, event: False
"""
"""The control: a paid answer that the ledger does not take is gone."""
Point = tuple[int, bool]
"""(KiB free beside ledger and reserve, with the reserve in use)."""


def impossible() -> str:
    """Why it cannot be played here; empty when it can."""
    if os.geteuid() != 0:
        return "mounting a small tmpfs needs root"
    return "" if shutil.which("mount") else "there is no mount command"


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A tmpfs on a new folder, roomy to begin with."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY},mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def resize(folder: Path, size: str) -> None:
    """Leave room for `size` in all."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def run_point(where: kill.Bench, key: str, point: Point) -> points.Row:
    """One run on a disk with so much room, a look at what is on it, and one run with room again."""
    free_kib, kept = point
    with mounted(where.folder / f"full-{key.replace(':', '-')}") as folder:
        db = folder / f"p{key.replace(':', '-')}.db"
        kill.write_leads(db, f"Point {key}")
        kill.take_in(db)
        used = sum(path.stat().st_size for path in folder.iterdir()) // KIB + 2 * 4  # two files' last pages
        resize(folder, f"{used + reserve.SIZE // KIB + free_kib}k")
        code = where.call("run", db, planted="" if kept else FORGETFUL, faulty=True)
        found = look(where, db, f"Point {key}")
        resize(folder, ROOMY)
        after = kill.resume(where, db, key)
    bad = [*found.pop("bad"), *after["bad"]]
    if code not in {0, 1}:
        bad.append(f"the run on a full disk ended with {code}")
    if after["doubts"]:
        bad.append(f"{after['doubts']} doubts although every answer had come")
    return {"point": point, "code": code, **found, "doubts": after["doubts"], "bad": bad}


def look(where: kill.Bench, db: Path, name: str) -> dict[str, Any]:
    """What the provider accepted so far against what the full disk knows; read from a copy of it."""
    copy = where.folder / db.name
    for path in db.parent.glob(db.name + "*"):
        if not path.name.endswith("-shm"):
            shutil.copyfile(path, where.folder / path.name)
    with closing(sqlite3.connect(copy)) as connection:
        known = dict(
            connection.execute(
                "SELECT a.remote_job_id, b.bearer IS NOT NULL OR j.state NOT IN ('waiting', 'in_doubt') "
                "FROM attempts a JOIN jobs j ON j.id = a.job_id LEFT JOIN poll_bearers b "
                "ON b.attempt_id = a.id WHERE a.remote_job_id IS NOT NULL"
            )
        )
    kept = {
        event.remote_job_id: event.bearer is not None
        for _, _, event in reserve.read(copy)
        if isinstance(event, ev.Accepted)
    }
    books = tell(where.base_url, "/sandbox/books")
    mine = [one for one in books["submissions"] if one["payload"]["lead"]["company"].startswith(name + " ")]
    accepted = [one["remote_job_id"] for one in mine]
    bad = [f"lost: {one}" for one in accepted if not {**known, **kept}.get(one)]
    if len(kept) > AT_ONCE:
        bad.append(f"{len(kept)} answers in the reserve: something was sent after the disk was full")
    for path in where.folder.glob(db.name + "*"):
        path.unlink()
    return {"accepted": len(accepted), "kept": len(kept), "bad": bad}


def campaign(
    rounds: int, seed: int, *, kept: bool = True, jobs: int = 1, log: Path | None = None, shown: bool = False
) -> list[points.Row]:
    """Rounds with random room; `kept` False plays the control."""
    chance = random.Random(seed)
    plan = [(f"{seed}:{n}:{kept}", (chance.randrange(0, NEEDED_KIB, 4), kept)) for n in range(rounds)]
    return points.play(plan, run_point, kill.bench, jobs=jobs, log=log, shown=shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--control", type=int, default=30)
    wanted = parser.parse_args()
    if why := impossible():
        sys.exit(f"disk_full cannot be played here: {why}.")
    begun = time.perf_counter()
    rows = campaign(wanted.rounds, wanted.seed, jobs=wanted.jobs, log=wanted.log, shown=True)
    control = campaign(wanted.control, wanted.seed, kept=False, jobs=wanted.jobs)
    result = {
        "campaign": "disk_full",
        "seed": wanted.seed,
        "rounds": len(rows),
        "full_before_a_post": sum(row["code"] == 1 and not row["accepted"] for row in rows),
        "full_after_a_post": sum(row["code"] == 1 and row["accepted"] > 0 for row in rows),
        "answers_in_the_reserve": sum(row["kept"] for row in rows),
        "exit_codes": dict(Counter(str(row["code"]) for row in rows)),
        "doubts_left": sum(row["doubts"] for row in rows),
        "control_rounds": len(control),
        "control_lost": sum("lost" in str(row["bad"]) for row in control),
    }
    failed = "" if result["control_lost"] else "the control lost nothing"
    if not result["answers_in_the_reserve"]:
        failed = "the disk was never full after a 202"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
