"""The pages of `leadledger browse` on a million jobs, asked over a socket of a process of its own.

The ledger is filled as for `claim`: nine tenths of the jobs finished, each with an attempt, its costs and its
history. A page's first answer is told apart: the overview reads the whole ledger once, then only what is new.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from claim import filled
from measure import LEADLEDGER, Report, environment, middle

JOBS: Final = 1_000_000
TIMES: Final = 15
"""Times that a page is asked for, after the first."""
FEW: Final = 3
"""Times that a slow one is."""
GOAL_MS: Final = {"page": 300, "sorted": 3000}
PAGES: Final[dict[str, tuple[str, str]]] = {
    "overview": ("page", "/-/ledger"),
    "overview, refreshed": ("page", "/-/ledger?part=now"),
    "one lead": ("page", "/-/ledger/leads/7"),
    "one run": ("page", "/-/ledger/runs/1"),
    "jobs": ("page", "/leads/jobs"),
    "jobs, one state": ("page", "/leads/jobs?state=matched"),
    "jobs, a small state": ("page", "/leads/jobs?state=queued"),
    "history of a job": ("page", "/leads/transitions?job_id=5"),
    "attempts of a run": ("page", "/leads/attempts?run_id=1"),
    "what leads cost": ("page", "/leads/lead_spend"),
    "what leads cost, dearest first": ("sorted", "/leads/lead_spend?_sort_desc=charged_usd"),
    "most expensive leads": ("sorted", "/leads/most-expensive-leads"),
    "spend by day": ("sorted", "/leads/spend-by-day"),
    "spend by route": ("sorted", "/leads/spend-by-route"),
}
"""Name -> (goal, path)."""


def measure(folder: Path, scale: float) -> Report:
    """Every page, first and again, on one large ledger."""
    jobs = max(1000, round(JOBS * scale))
    db = folder / "leads.db"
    filled(db, jobs).close()
    found: dict[str, dict[str, float]] = {}
    with _served(db) as (url, process, ready_s):
        for name, (goal, path) in PAGES.items():
            first = _asked_ms(url + path)
            times, before_s = TIMES if goal == "page" else FEW, _cpu_s(process)
            again = [_asked_ms(url + path) for _ in range(times)]
            cpu_ms = (_cpu_s(process) - before_s) * 1000 / times
            found[name] = {"first_ms": first, "ms": middle(again), "cpu_ms": cpu_ms, "goal_ms": GOAL_MS[goal]}
    lines = [f"{jobs:,} jobs; the first page {ready_s:.1f} s after the start of the command"]
    for name, told in found.items():
        verdict = "" if told["ms"] <= told["goal_ms"] else f"  ABOVE {told['goal_ms']} ms"
        lines.append(
            f"    {name:32} first {told['first_ms']:6.0f} ms, then {told['ms']:5.0f} ms "
            f"({told['cpu_ms']:.0f} ms of CPU){verdict}"
        )
    return Report(lines, {"jobs": jobs, "ready_s": ready_s, "pages": found})


@contextmanager
def _served(db: Path) -> Iterator[tuple[str, int, float]]:
    """A `leadledger browse`: address, process number, and the seconds until it answered."""
    started = time.perf_counter()
    command = [*LEADLEDGER, "--db", str(db), "browse", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"].removesuffix("/-/ledger")
            _asked_ms(url + "/-/ledger/find")
            yield url, process.pid, time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _cpu_s(process: int) -> float:
    """CPU seconds of a process so far: what a busy machine does not add to."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _asked_ms(url: str) -> float:
    """Milliseconds until the whole answer is there.

    Raises:
        HTTPError: The page was refused, or took longer than its time limit.
    """
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=120) as answer:
        answer.read()
    return (time.perf_counter() - started) * 1000
