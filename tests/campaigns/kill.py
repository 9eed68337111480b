"""Kill -9 at the n-th system call, by strace, over import (with its migration), submit, poll, settle.

    python tests/campaigns/kill.py --kills 2000 --double 500 --control 60 [--seed 1] [--log FILE]

Each point: a fresh ledger and leads of its own, the command under strace with SIGKILL injected just before
one system call, then the same command again until it ends by itself. Judged by the sandbox's books. The log
is JSON Lines; a point that is in it already is not run again, so the campaign can be stopped and continued.
The control runs a resender that forgets doubts: it must be caught paying twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.clock import SystemClock
from ledger.intake import open_file
from ledger.migrations.migrations import migrations
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import running_process, tell
from ledger.store.engine import sqlite3
from ledger.store.ledger import Ledger

STRACE: Final = shutil.which("strace")
LEADS: Final = 3
SANDBOX_LASTS: Final = 50
"""Points judged by one sandbox: its books are read whole after each."""
Point = tuple[str, str, int, tuple[str, int] | None]
"""(phase, call, number of that call, a second kill inside the resume)."""
TIMEOUT_S: Final = 60
CALLS: Final = (
    "pwrite64,fdatasync,fsync,ftruncate,unlink,flock,connect,sendto,recvfrom,epoll_wait,write,socket"
)
"""What is counted and killed at: the calls that change a file or talk to the provider. The number of a call
is per name, and the runner has one thread; reading modules in is left out."""
PROFILE: Final = """\
freeze_s = 0.0
refund_settle_s = 0.0
[limits]
submit_total_s = 5.0
[routes."enrich/lead-session"]
latency_s = [0, 0]
"""
BLIND: Final = """\
import sys
from ledger.store import runs, steps
from ledger import events as ev
record = runs.record
def forget(books, job_id, fence, event, **rest):
    step = record(books, job_id, fence, event, **rest)
    if isinstance(event, ev.FoundAtStart):
        record(books, job_id, fence, ev.ProvedFree("planted bug: a doubt taken for nothing"))
    return step
runs.record = forget
from ledger.cli.main import main
main()
"""
"""The control: recovery that sends whatever was in the air again."""


@dataclass(slots=True)
class Totals:
    """What a campaign counted."""

    points: int = 0
    fired: int = 0
    double_fired: int = 0
    doubts: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    by_call: Counter[str] = field(default_factory=Counter)

    def add(self, row: dict[str, Any]) -> None:
        self.points += 1
        self.fired += bool(row["fired"])
        self.double_fired += bool(row.get("double_fired"))
        self.doubts += row["doubts"]
        self.by_call[row["call"]] += bool(row["fired"])
        if row["bad"]:
            self.bad.append(row)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a point is run: the sandbox's address and a folder."""

    base_url: str
    folder: Path
    blind: bool = False

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LEADLEDGER_BASE_URL": self.base_url,
            "LEADLEDGER_API_KEY": "411_campaign",
            "LEADLEDGER_PROFILE": str(self.folder / "profile.toml"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, phase: str, db: Path) -> list[str]:
        start = ["-c", BLIND] if self.blind else ["-m", "ledger.cli"]
        tail = {
            "import": ["import", str(db.with_suffix(".csv"))],
            "run": ["run", "--route", "lead-session", "--budget", "100", "--no-audit", "--concurrency", "2"],
        }[phase]
        return [sys.executable, *start, "--db", str(db), *tail]

    def call(self, phase: str, db: Path, *strace: str) -> int:
        """Run one command, under strace if its options are given; returns the exit code (137: killed)."""
        traced = [str(STRACE), "-f", "-qq", *strace] if strace else []
        done = subprocess.run(
            [*traced, *self.command(phase, db)],
            env=self.environment(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if not strace and done.returncode not in {0, 3}:
            sys.stderr.write(done.stderr.decode(errors="replace")[-2000:])
        return 137 if done.returncode == -9 else done.returncode


@contextmanager
def bench(*, blind: bool = False) -> Iterator[Bench]:
    """A sandbox in a process of its own, and a folder that goes with it."""
    settings = Settings(
        opening_usd="1000000",
        latency_s={"enrich/lead-session": Latency("fixed", 0)},
        answer_ms_of={"submit": 3},
    )
    with tempfile.TemporaryDirectory() as folder, running_process(settings) as base_url:
        (Path(folder) / "profile.toml").write_text(PROFILE, encoding="utf-8")
        yield Bench(base_url, Path(folder), blind)


def write_leads(db: Path, name: str) -> None:
    rows = "".join(f"{name} {number},1 Main St,Tucson,AZ,85701\n" for number in range(LEADS))
    text = "Company Name,Street Address,City,State/Region,Postal Code\n" + rows
    db.with_suffix(".csv").write_text(text, encoding="utf-8")


def take_in(db: Path) -> None:
    """`leadledger import`, in this process."""
    with Ledger(db, "campaign", clock=SystemClock(), migrations=migrations) as ledger:
        file = open_file(db.with_suffix(".csv"))
        ledger.import_rows(file.facts, file.rows())


def count_calls(where: Bench, phase: str) -> dict[str, list[int]]:
    """The numbers of every call that the phase makes, by name, in each of three runs."""
    counted = [set(_count_once(where, phase, attempt)) for attempt in range(3)]
    numbers: dict[str, list[int]] = {}
    for call, number in sorted(set.intersection(*counted)):
        numbers.setdefault(call, []).append(number)
    return numbers


def _count_once(where: Bench, phase: str, attempt: int) -> list[tuple[str, int]]:
    db = where.folder / f"count-{phase}-{attempt}.db"
    write_leads(db, f"Count {phase} {attempt}")
    if phase == "run":
        take_in(db)
    log = db.with_suffix(".txt")
    code = where.call(phase, db, "-o", str(log), "-e", f"trace={CALLS},openat")
    assert code == 0, f"the baseline of {phase} ended with {code}"
    seen: Counter[str] = Counter()
    opened = False
    points = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.match(r"(?:\d+\s+)?(\w+)\(", line)
        if not found:
            continue
        seen[found.group(1)] += 1
        opened = opened or str(db) in line
        if opened and found.group(1) != "openat":
            points.append((found.group(1), seen[found.group(1)]))
    return points


def run_point(
    where: Bench, key: str, phase: str, call: str, number: int, second: tuple[str, int] | None
) -> dict[str, Any]:
    """Kill once (or twice), resume to the end, and judge. `key` names the point's leads: nobody else's."""
    name = f"Point {key}"
    db = where.folder / f"p{key.replace(':', '-')}.db"
    write_leads(db, name)
    if phase == "run":
        take_in(db)
    fired = where.call(phase, db, *_kill_at(call, number)) == 137
    double_fired = second is not None and where.call("run", db, *_kill_at(*second)) == 137
    codes = [where.call("import", db) if phase == "import" else 0, where.call("run", db)]
    bad, doubts = judge(where, db, name, codes)
    for path in where.folder.glob(db.stem + "*"):
        path.unlink()
    row: dict[str, Any] = {"phase": phase, "call": call, "number": number, "second": second}
    return {**row, "fired": fired, "double_fired": double_fired, "doubts": doubts, "bad": bad}


def _kill_at(call: str, number: int) -> tuple[str, ...]:
    # Never --seccomp-bpf: with it strace 6.1 silently delivers no signal (faults notes, 10.1).
    return ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")


def judge(where: Bench, db: Path, name: str, codes: list[int]) -> tuple[list[str], int]:
    """What the sandbox's books and the ledger say against each other; (complaints, open doubts)."""
    bad = [f"exit codes {codes}"] if codes[0] != 0 or codes[1] not in {0, 3} else []
    books = tell(where.base_url, "/sandbox/books")
    mine = [one for one in books["submissions"] if one["payload"]["lead"]["company"].startswith(name + " ")]
    charged = Counter(one["payload_sha256"] for one in mine if one["charged_microusd"] > 0)
    bad += [f"paid twice: {key[:8]}" for key, times in charged.items() if times > 1]
    if bad:
        return bad, 0
    connection = sqlite3.connect(db)
    states = Counter(state for (state,) in connection.execute("SELECT state FROM jobs"))
    costs = dict(
        connection.execute(
            "SELECT a.remote_job_id, SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd "
            "ELSE 0 END) FROM attempts a JOIN costs c ON c.attempt_id = a.id "
            "WHERE a.remote_job_id IS NOT NULL GROUP BY 1"
        ).fetchall()
    )
    ok = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    if ok != "ok":
        bad.append(f"integrity: {ok}")
    if sum(states.values()) != LEADS or set(states) - {"matched", "no_match", "in_doubt"}:
        bad.append(f"states {dict(states)}")
    for one in mine:
        known = one["remote_job_id"] in costs
        if known and costs[one["remote_job_id"]] != one["charged_microusd"]:
            bad.append(f"{one['remote_job_id']}: {costs[one['remote_job_id']]} != {one['charged_microusd']}")
    unknown = sum(one["remote_job_id"] not in costs for one in mine)
    if unknown > states["in_doubt"]:
        bad.append(f"{unknown} accepted, unknown and not in doubt")
    return bad, states["in_doubt"]


def plan_points(where: Bench, kills: int, double: int, seed: int) -> list[Point]:
    """A quarter of the kills inside import and migration, the rest in the run; every call name alike.

    Points repeat when there are more kills than calls: the provider is elsewhere each time.
    """
    chance = random.Random(seed)
    calls = {phase: count_calls(where, phase) for phase in ("run", "import")}

    def pick(phase: str) -> tuple[str, int]:
        call = chance.choice(sorted(calls[phase]))
        return call, chance.choice(calls[phase][call])

    phases = ["import" if number % 4 == 0 else "run" for number in range(kills)]
    plan: list[Point] = [(phase, *pick(phase), None) for phase in phases]
    return plan + [("run", *pick("run"), pick("run")) for _ in range(double)]


def campaign(
    kills: int, double: int, seed: int, log: Path | None = None, *, blind: bool = False, shown: bool = True
) -> Totals:
    """Run (or continue) a campaign: every point that is not in the log yet."""
    with bench(blind=blind) as where:
        plan = plan_points(where, kills, double, seed)
    done = _read_log(log)
    totals = Totals()
    for start in range(0, len(plan), SANDBOX_LASTS):
        with bench(blind=blind) as where:
            for number, point in enumerate(plan[start : start + SANDBOX_LASTS], start):
                key = f"{seed}:{number}"
                row = done.get(key)
                if row is None:
                    row = {"key": key, **run_point(where, key, *point)}
                    if log is not None:
                        with log.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
                totals.add(row)
        if shown:
            sys.stderr.write(f"{totals.points}/{len(plan)} fired {totals.fired} bad {len(totals.bad)}\n")
    return totals


def _read_log(log: Path | None) -> dict[str, dict[str, Any]]:
    if log is None or not log.exists():
        return {}
    rows = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--double", type=int, default=500)
    parser.add_argument("--control", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=None)
    wanted = parser.parse_args()
    if STRACE is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    totals = campaign(wanted.kills, wanted.double, wanted.seed, wanted.log)
    control = campaign(wanted.control, 0, wanted.seed + 1, blind=True, shown=False)
    result = {
        "campaign": "kill",
        "seed": wanted.seed,
        "points": totals.points,
        "fired": totals.fired,
        "fired_share": round(totals.fired / max(totals.points, 1), 4),
        "double_fired": totals.double_fired,
        "doubts_left": totals.doubts,
        "bad": len(totals.bad),
        "by_call": dict(totals.by_call),
        "control_points": control.points,
        "control_caught": sum("paid twice" in str(row["bad"]) for row in control.bad),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    for row in totals.bad[:20]:
        sys.stdout.write(json.dumps(row) + "\n")
    sys.exit(1 if totals.bad or not result["control_caught"] else 0)


if __name__ == "__main__":
    main()
