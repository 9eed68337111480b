"""Kill -9 at the n-th system call, by strace, over import (with its migration), submit, poll, settle.

    python tests/campaigns/kill.py --kills 2000 --double 600 --jobs 2 --log FILE

Each point: a fresh ledger and leads of its own, the command under strace with SIGKILL injected just before
one system call, then the same command again until it ends by itself. Judged by the sandbox's books. The log
is JSON Lines; a point that is in it already is not run again, so the campaign can be stopped and continued.
The control is a resender that forgets doubts, killed just before it reads an answer: it must be caught paying
twice.
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import points
import totals
import warm

from ledger.clock import SystemClock
from ledger.intake import open_file
from ledger.migrations.migrations import migrations
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import running_process, tell
from ledger.store.audit import INVARIANTS
from ledger.store.engine import sqlite3
from ledger.store.ledger import Ledger

ROOT: Final = Path(__file__).parents[2]
STRACE: Final = shutil.which("strace")
LEADS: Final = 3
FIRED_SHARE_MIN: Final = 0.98
"""A campaign whose kills do not happen proves nothing."""
Point = tuple[str, str, int, tuple[str, int] | None]
"""(phase, call, number of that call, a second kill inside the resume)."""
TIMEOUT_S: Final = 60.0
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
from ledger.store import runs, steps
from ledger import events as ev
record = runs.record
def forget(books, job_id, fence, event, **rest):
    step = record(books, job_id, fence, event, **rest)
    if isinstance(event, ev.FoundAtStart):
        record(books, job_id, fence, ev.ProvedFree("planted bug: a doubt taken for nothing"))
    return step
runs.record = forget
"""
"""The control: recovery that sends whatever was in the air again."""


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

    def arguments(self, phase: str, db: Path) -> list[str]:
        """The command line of a phase, after `leadledger`."""
        run = ["run", "--route", "lead-session", "--budget", "100", "--concurrency", "2"]
        tail = {
            "import": ["import", str(db.with_suffix(".csv"))],
            "run": [*run, "--no-audit"],
            "audit": run,
        }[phase]
        return ["--db", str(db), *tail]

    def command(self, phase: str, db: Path, planted: str = "") -> list[str]:
        """A phase as a command for a process of its own, with a bug planted into it."""
        return [sys.executable, "-c", self._source(planted), *self.arguments(phase, db)]

    def _source(self, planted: str) -> str:
        return (BLIND if self.blind else "") + planted + warm.COMMAND

    def call(
        self,
        phase: str,
        db: Path,
        *,
        planted: str = "",
        faulty: bool = False,
        timeout_s: float = TIMEOUT_S,
        **more: str,
    ) -> int:
        """Run a phase in a warm process, `more` in its environment; returns the exit code (137: killed).

        What a run says that should have gone well and did not is shown.
        """
        said = self.folder / f"{db.stem}.said"  # not beside a ledger whose disk may be full
        environment = {**self.environment(), **more}
        code = warm.run(self._source(planted), self.arguments(phase, db), environment, said, timeout_s)
        if code not in {0, 3, warm.KILLED} and not (planted or more or faulty):
            sys.stderr.write(said.read_text(encoding="utf-8", errors="replace")[-2000:])
        return code

    def strace(self, phase: str, db: Path, *options: str, planted: str = "") -> int:
        """Run a phase under strace, in a fresh process; returns the exit code (137: killed)."""
        done = subprocess.run(
            [str(STRACE), "-f", "-qq", *options, *self.command(phase, db, planted)],
            env=self.environment(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return warm.KILLED if done.returncode == -9 else done.returncode


@contextmanager
def bench(*, blind: bool = False) -> Iterator[Bench]:
    """A sandbox in a process of its own, and a folder that goes with it."""
    for part in ("ledger", "cli", "migrations"):  # else every traced process compiles all of it anew
        compileall.compile_dir(ROOT / part, quiet=2)
    settings = Settings(
        opening_usd="1000000",
        latency_s={"enrich/lead-session": Latency("fixed", 0)},
        answer_ms_of={"submit": 3},
    )
    with tempfile.TemporaryDirectory() as folder, running_process(settings) as base_url:
        (Path(folder) / "profile.toml").write_text(PROFILE, encoding="utf-8")
        yield Bench(base_url, Path(folder), blind)


def write_leads(db: Path, name: str, leads: int = LEADS) -> None:
    rows = "".join(f"{name} {number},1 Main St,Tucson,AZ,85701\n" for number in range(leads))
    text = "Company Name,Street Address,City,State/Region,Postal Code\n" + rows
    db.with_suffix(".csv").write_text(text, encoding="utf-8")


def take_in(db: Path) -> None:
    """`leadledger import`, in this process."""
    with Ledger(db, "campaign", clock=SystemClock(), migrations=migrations) as ledger:
        file = open_file(db.with_suffix(".csv"))
        ledger.import_rows(file.facts, file.rows())


def count_calls(where: Bench, phase: str, after: tuple[str, int] | None = None) -> dict[str, list[int]]:
    """The numbers of every call that the phase makes, by name, in each of three runs.

    `after`: a kill in an earlier run, which this one then resumes.
    """
    counted = [set(_count_once(where, phase, after, attempt)) for attempt in range(3)]
    numbers: dict[str, list[int]] = {}
    for call, number in sorted(set.intersection(*counted)):
        numbers.setdefault(call, []).append(number)
    return numbers


def _count_once(
    where: Bench, phase: str, after: tuple[str, int] | None, attempt: int
) -> list[tuple[str, int]]:
    db = prepare(where, f"count {phase} {bool(after)} {attempt}", phase)
    if after is not None:
        where.strace(phase, db, *_kill_at(*after))
    log = db.with_suffix(".txt")
    code = where.strace(phase, db, "-o", str(log), "-e", f"trace={CALLS},openat")
    assert code in {0, 3}, f"the baseline of {phase} ended with {code}"
    seen: Counter[str] = Counter()
    opened = False
    found = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        named = re.match(r"(?:\d+\s+)?(\w+)\(", line)
        if not named:
            continue
        seen[named.group(1)] += 1
        opened = opened or str(db) in line
        if opened and named.group(1) != "openat":
            found.append((named.group(1), seen[named.group(1)]))
    return found


def run_point(where: Bench, key: str, point: Point) -> dict[str, Any]:
    """Kill once (or twice), resume to the end, and judge. `key` names the point's leads: nobody else's."""
    phase, call, number, second = point
    db = prepare(where, key, phase)
    fired = where.strace(phase, db, *_kill_at(call, number)) == warm.KILLED
    double_fired = second is not None and where.strace("run", db, *_kill_at(*second)) == warm.KILLED
    row: dict[str, Any] = {"phase": phase, "call": call, "number": number, "second": second}
    return {**row, "fired": fired, "double_fired": double_fired, **resume(where, db, key, phase)}


def prepare(where: Bench, key: str, phase: str = "run") -> Path:
    """The point's leads in a file of their own; taken in already when the phase comes after that."""
    db = where.folder / f"p{key.replace(':', '-')}.db"
    write_leads(db, f"Point {key}")
    if phase != "import":
        take_in(db)
    return db


def resume(where: Bench, db: Path, key: str, phase: str = "run") -> dict[str, Any]:
    """Go on to the end without faults, judge, and clear away."""
    codes = [where.call("import", db) if phase == "import" else 0, where.call("run", db)]
    bad, doubts = judge(where, db, f"Point {key}", codes, audited=phase == "audit")
    for path in where.folder.glob(db.stem + "*"):
        path.unlink()
    return {"doubts": doubts, "bad": bad}


def _kill_at(call: str, number: int) -> tuple[str, ...]:
    # Never --seccomp-bpf: with it strace 6.1 silently delivers no signal (faults notes, 10.1).
    return ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")


def judge(
    where: Bench, db: Path, name: str, codes: list[int], *, audited: bool = False
) -> tuple[list[str], int]:
    """What the sandbox's books and the ledger say against each other; (complaints, open doubts).

    Only an audit may have closed a doubt: as lost (charged, its answer gone with the process), or as free,
    and then nothing may have been charged for it.
    """
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
    bad += [f"invariant {one.name}" for one in INVARIANTS if connection.execute(one.sql).fetchone()]
    connection.close()
    if ok != "ok":
        bad.append(f"integrity: {ok}")
    fine = {"matched", "no_match", "in_doubt"} | ({"lost"} if audited else set())
    if sum(states.values()) != LEADS or set(states) - fine:
        bad.append(f"states {dict(states)}")
    for one in mine:
        known = one["remote_job_id"] in costs
        if known and costs[one["remote_job_id"]] != one["charged_microusd"]:
            bad.append(f"{one['remote_job_id']}: {costs[one['remote_job_id']]} != {one['charged_microusd']}")
    unknown = sum(
        one["remote_job_id"] not in costs and not (audited and one["charged_microusd"] == 0) for one in mine
    )
    if unknown > states["in_doubt"] + states["lost"]:
        bad.append(f"{unknown} accepted, unknown and neither in doubt nor lost")
    return bad, states["in_doubt"]


def plan_points(where: Bench, kills: int, double: int, seed: int) -> list[Point]:
    """A quarter of the kills inside import and migration, the rest in the run; every call name alike.

    Points repeat when there are more kills than calls: the provider is elsewhere each time. The first of two
    kills falls into the first half of a run, the second on a call that a resume from the half still makes.
    """
    chance = random.Random(seed)
    calls = {phase: count_calls(where, phase) for phase in ("run", "import")}

    def pick(numbers: dict[str, list[int]]) -> tuple[str, int]:
        call = chance.choice(sorted(numbers))
        return call, chance.choice(numbers[call])

    phases = ["import" if number % 4 == 0 else "run" for number in range(kills)]
    plan: list[Point] = [(phase, *pick(calls[phase]), None) for phase in phases]
    if double:
        early = {call: numbers[: -(-len(numbers) // 2)] for call, numbers in calls["run"].items()}
        resumed = count_calls(where, "run", after=("pwrite64", early["pwrite64"][-1]))
        plan += [("run", *pick(early), pick(resumed)) for _ in range(double)]
    return plan


def campaign(
    kills: int,
    double: int,
    seed: int,
    log: Path | None = None,
    *,
    jobs: int = 1,
    shown: bool = False,
) -> list[points.Row]:
    """Run (or continue) a campaign: every point that is not in the log yet."""
    with bench() as where:
        plan = plan_points(where, kills, double, seed)
    keyed = [(f"{seed}:{number}", point) for number, point in enumerate(plan)]
    return points.play(keyed, run_point, bench, jobs=jobs, log=log, shown=shown)


def control(kills: int, *, jobs: int = 1) -> list[points.Row]:
    """The blind resender, killed where what it forgets has been accepted."""
    with bench(blind=True) as where:
        reads = count_calls(where, "run")["recvfrom"][1:]  # the first one reads the balance
    plan: list[Point] = [("run", "recvfrom", reads[number % len(reads)], None) for number in range(kills)]
    keyed = [(f"control:{number}", point) for number, point in enumerate(plan)]
    return points.play(keyed, run_point, partial(bench, blind=True), jobs=jobs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--double", type=int, default=600)
    parser.add_argument("--control", type=int, default=40)
    wanted = parser.parse_args()
    if STRACE is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    begun = time.perf_counter()
    rows = campaign(wanted.kills, wanted.double, wanted.seed, wanted.log, jobs=wanted.jobs, shown=True)
    blind = control(wanted.control, jobs=wanted.jobs)
    fired = [row for row in rows if row["fired"]]
    result = {
        "campaign": "kill",
        "seed": wanted.seed,
        "points": len(rows),
        "fired": len(fired),
        "fired_share": round(len(fired) / max(len(rows), 1), 4),
        "double": sum(row["second"] is not None for row in rows),
        "double_fired": sum(row["double_fired"] for row in rows),
        "doubts_left": sum(row["doubts"] for row in rows),
        "by_call": dict(Counter(row["call"] for row in fired)),
        "control_points": len(blind),
        "control_caught": sum("paid twice" in str(row["bad"]) for row in blind),
    }
    failed = "" if result["control_caught"] else "the control was not caught"
    if result["fired_share"] < FIRED_SHARE_MIN:
        failed = "too few kills happened"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
