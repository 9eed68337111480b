"""Readers beside a busy writer: a thousand page requests while a run is on.

    python tests/campaigns/readers.py [--requests 1000] [--leads 1500] [--rounds 3]

Runs in turn with nobody looking and with `leadledger browse` asked all the time, in the same folder and
against a sandbox of the same settings (answers after 50 ms, ten at once). Every request must be answered, the
counts only grow, the log stays below its bound, and the run takes at most 1.10 times as long (the median of
the turns).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import totals

from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import KEY, running_process

ROUTE = "enrich/lead-session"
AT_ONCE = 10
WAL_BYTES_MAX = 64 * 1024 * 1024
SLOWER_MAX = 1.10
TIMEOUT_S = 300.0
PROFILE = f'[routes."{ROUTE}"]\nlatency_s = [0, 0.0]\n'
PAGES = (
    "/-/ledger?part=now",
    "/-/ledger",
    "/-/ledger/leads/7",
    "/-/ledger/runs",
    "/-/ledger/chart.json",
    "/leads/jobs?state=matched",
    "/leads/jobs.json?_shape=array&_size=5",
    "/leads/lead_spend",
    "/leads/attempts?_facet=outcome",
    "/leads/costs.csv",
    "/leads/transitions.json?_size=1&_shape=array&_sort_desc=id",
)
COUNT = "/leads/transitions.json?_size=1&_shape=array&_sort_desc=id&_col=id"


@dataclass
class Looked:
    """What the readers saw."""

    answered: int = 0
    bad: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    wal_bytes_max: int = 0
    ms: list[float] = field(default_factory=list)


def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    return {**ours, "LEADLEDGER_API_KEY": KEY}


@contextmanager
def browse(db: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "ledger.cli", "--db", str(db), "browse", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"].removesuffix("/-/ledger")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def night(folder: Path, requests: int, over_s: float = 0.0) -> tuple[float, Looked]:
    """One run, and what it took; with `requests` of them asked for meanwhile, over `over_s` seconds."""
    db = folder / "leads.db"
    for left in folder.glob("leads.db*"):
        left.unlink()
    shutil.copyfile(folder / "imported.db", db)
    looked = Looked()
    fast = {ROUTE: Latency("fixed", 0.0)}
    with running_process(Settings(opening_usd="10000000", answer_ms=50, latency_s=fast)) as sandbox:
        command = [
            *(sys.executable, "-m", "ledger.cli", "--db", str(db), "run", "--json", "--route", ROUTE),
            *("--budget", "1000000", "--profile", str(folder / "profile.toml"), "--base-url", sandbox),
            *("--concurrency", str(AT_ONCE), "--in-flight", str(AT_ONCE)),
        ]
        with browse(db) as url:
            ask(url, "/-/ledger", Looked())  # both are warm
            started = time.monotonic()
            quiet = subprocess.DEVNULL
            with subprocess.Popen(command, cwd=folder, env=environment(), stdout=quiet, stderr=quiet) as run:
                readers = threading.Thread(target=look, args=(url, db, run, requests, over_s, looked))
                if requests:
                    readers.start()
                code = run.wait(TIMEOUT_S)
            seconds = time.monotonic() - started
            if requests:
                readers.join(TIMEOUT_S)
            if code != 0:
                looked.bad.append(f"the run ended with {code}")
    return seconds, looked


def look(
    url: str, db: Path, run: subprocess.Popen[bytes], requests: int, over_s: float, looked: Looked
) -> None:
    """Ask one page after another until there were enough and the run is over, bounded as the run is."""
    begun = time.monotonic()
    ends = begun + TIMEOUT_S
    wal = db.with_name(db.name + "-wal")
    while (run.poll() is None or looked.answered < requests) and time.monotonic() < ends:
        ask(url, PAGES[looked.answered % len(PAGES)], looked)
        if looked.answered % 5 == 0:
            rows = json.loads(ask(url, COUNT, looked) or b"[]")
            looked.counts += [row["id"] for row in rows]
        if wal.exists():
            looked.wal_bytes_max = max(looked.wal_bytes_max, wal.stat().st_size)
        due = begun + over_s * looked.answered / requests  # the pace, not a wait for something to happen
        time.sleep(max(0.0, due - time.monotonic()))


def ask(url: str, path: str, looked: Looked) -> bytes:
    """One request, answered or noted."""
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            body: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        looked.bad.append(f"{path}: {error}")
        body = b""
    looked.answered += 1
    looked.ms.append((time.perf_counter() - started) * 1000)
    return body


def campaign(requests: int, leads: int, rounds: int) -> dict[str, Any]:
    """Quiet and looked at, in turn."""
    quiet, busy, seen = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "profile.toml").write_text(PROFILE, encoding="utf-8")
        rows = [f"Firm {n},{n} Main St,Tucson,AZ,857{n % 90 + 10}" for n in range(leads)]
        text = "\n".join(["Company,Street,City,State,Zip", *rows])
        (folder / "leads.csv").write_text(text + "\n", encoding="utf-8")
        take_in = [sys.executable, "-m", "ledger.cli", "--db", "imported.db", "import", "leads.csv"]
        subprocess.run(
            take_in, cwd=folder, env=environment(), check=True, capture_output=True, timeout=TIMEOUT_S
        )
        for _ in range(rounds):
            quiet.append(night(folder, 0)[0])
            seconds, looked = night(folder, requests, quiet[-1])
            busy.append(seconds)
            seen.append(looked)
    bad = [problem for looked in seen for problem in looked.bad]
    bad += [f"counts shrank: {one.counts}" for one in seen if one.counts != sorted(one.counts)]
    longest = max(one.wal_bytes_max for one in seen)
    bad += [f"the log grew to {longest} bytes"] if longest > WAL_BYTES_MAX else []
    ratio = statistics.median(one / other for one, other in zip(busy, quiet, strict=True))
    return {
        "campaign": "readers",
        "leads": leads,
        "requests": sum(one.answered for one in seen),
        "answer_ms_median": round(statistics.median(ms for one in seen for ms in one.ms), 1),
        "counts_seen": sum(len(set(one.counts)) for one in seen),
        "wal_mb_max": round(longest / 1048576, 1),
        "quiet_s": [round(one, 2) for one in quiet],
        "looked_at_s": [round(one, 2) for one in busy],
        "ratio": round(ratio, 3),
        "bad": bad,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False, seed=False)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--leads", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    result = campaign(wanted.requests, wanted.leads, wanted.rounds)
    bad = [{"what": what} for what in result.pop("bad")]
    failed = f"the run took {result['ratio']} times as long" if result["ratio"] > SLOWER_MAX else ""
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
