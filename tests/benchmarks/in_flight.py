"""Ten thousand jobs in flight in one process, and what `leadledger run` costs meanwhile.

The sandbox's time stands still until every job is accepted, so all are at the provider together. Then the
runner is killed twice: the first restart polls all of them at once and finds all still running, the second
finds all done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import leads
from measure import LEADLEDGER, PROCESS_S_MAX, ROUTE, Report, environment, run

from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import running_process, tell

JOBS: Final = 10_000
AT_ONCE: Final = 20
"""Paid POSTs in the air: enough to get 10,000 accepted before the benchmark bores."""
WORK_S: Final = 60.0
WATCH_S: Final = 15.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Watched:
    """A runner that works while we look at it."""

    pid: int
    wait: Callable[[float], int]

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        """Its peak resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) / 1024


def measure(folder: Path, scale: float) -> Report:
    """Accept all, watch them wait, poll all at once, settle all."""
    jobs = max(50, round(JOBS * scale))
    leads.write_night(folder / "leads.csv", jobs)
    run([*LEADLEDGER, "--db", "leads.db", "import", "leads.csv"], folder)
    settings = Settings(opening_usd="10000000", speed=0, latency_s={ROUTE: Latency("fixed", WORK_S)})
    with running_process(settings) as url:
        figures: dict[str, Any] = {"jobs": jobs, "posts_at_once": AT_ONCE}
        with _runner(folder, url) as runner:
            figures |= _accept(url, jobs) | _wait(runner, url)
        with _runner(folder, url) as runner:
            figures |= _poll_all(runner, url, jobs)
        tell(url, "/sandbox/advance", {"seconds": WORK_S + 1})
        with _runner(folder, url) as runner:
            figures |= _settle(runner, url, jobs)
    return Report(_lines(figures), figures)


@contextmanager
def _runner(folder: Path, url: str) -> Iterator[Watched]:
    """A runner that is killed when the block ends, as a power cut would; the next one goes on."""
    command = [
        *(*LEADLEDGER, "--db", "leads.db", "run", "--route", ROUTE, "--budget", "1000000", "--base-url", url),
        *("--concurrency", str(AT_ONCE), "--in-flight", str(JOBS * 2)),
    ]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=quiet, stderr=quiet) as child:
        try:
            yield Watched(child.pid, child.wait)
        finally:
            child.send_signal(signal.SIGKILL)


def _until(enough: Callable[[], bool], what: str) -> float:
    """Seconds until something is so. It asks twenty times a second, which costs the sandbox little.

    Raises:
        RuntimeError: It took longer than `PROCESS_S_MAX`.
    """
    started = time.perf_counter()
    while not enough():
        if time.perf_counter() - started > PROCESS_S_MAX:
            raise RuntimeError(f"{what} took longer than {PROCESS_S_MAX:.0f} s")
        time.sleep(0.05)
    return time.perf_counter() - started


def _requests(url: str, endpoint: str) -> int:
    return sum(tell(url, "/sandbox/books?submissions=0")["requests"].get(endpoint, {}).values())


def _accept(url: str, jobs: int) -> dict[str, Any]:
    seconds = _until(lambda: _requests(url, "submit") >= jobs, "accepting")
    return {"accept_s": seconds, "accepted_per_s": jobs / seconds}


def _wait(runner: Watched, url: str) -> dict[str, Any]:
    """What waiting costs: the built-in profile's pauses between two polls of a job."""
    polls, cpu_s, started = _requests(url, "poll"), runner.cpu_s(), time.perf_counter()
    time.sleep(WATCH_S)
    seconds = time.perf_counter() - started
    return {
        "waiting_cores": (runner.cpu_s() - cpu_s) / seconds,
        "waiting_polls_per_s": (_requests(url, "poll") - polls) / seconds,
        "waiting_rss_mb": runner.rss_mb(),
    }


def _poll_all(runner: Watched, url: str, jobs: int) -> dict[str, Any]:
    before = _requests(url, "poll")
    _until(lambda: _requests(url, "poll") > before, "the first poll")
    started, first, cpu_s = time.perf_counter(), _requests(url, "poll"), runner.cpu_s()
    _until(lambda: _requests(url, "poll") >= before + jobs, "polling all")
    seconds = time.perf_counter() - started
    polled = _requests(url, "poll") - first
    return {
        "due_polls_per_s": polled / seconds,
        "due_cpu_ms_per_poll": (runner.cpu_s() - cpu_s) * 1000 / polled,
        "due_rss_mb": runner.rss_mb(),
    }


def _settle(runner: Watched, url: str, jobs: int) -> dict[str, Any]:
    started = time.perf_counter()
    code = runner.wait(PROCESS_S_MAX)
    seconds = time.perf_counter() - started
    counts = tell(url, "/sandbox/books?submissions=0")["counts"]
    if code != 0 or counts["accepted"] != jobs or counts["running"]:
        raise RuntimeError(f"the runner ended with {code}, the sandbox says {counts}")
    return {"settle_s": seconds, "settled_per_s": jobs / seconds}


def _lines(found: dict[str, Any]) -> list[str]:
    return [
        f"{found['jobs']:,} jobs in flight in one process of leadledger run, {AT_ONCE} POSTs at once",
        f"    accepted in {found['accept_s']:.1f} s ({found['accepted_per_s']:,.0f}/s), start included",
        (
            f"    waiting: {found['waiting_cores']:.2f} of a core, "
            f"{found['waiting_polls_per_s']:,.0f} polls/s, peak {found['waiting_rss_mb']:.0f} MB"
        ),
        (
            f"    killed and started again, all due at once: {found['due_polls_per_s']:,.0f} polls/s, "
            f"{found['due_cpu_ms_per_poll']:.2f} ms of CPU each, peak {found['due_rss_mb']:.0f} MB"
        ),
        (
            f"    killed and started again, all done: settled in {found['settle_s']:.1f} s "
            f"({found['settled_per_s']:,.0f}/s), start included"
        ),
    ]
