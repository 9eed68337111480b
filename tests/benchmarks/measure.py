"""What every benchmark shares: a process and what it used, two programs in turn, and a report."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

T = TypeVar("T")

PROCESS_S_MAX: Final = 300.0
"""A measured process that takes longer than this is killed: the benchmark failed."""
LEADLEDGER: Final = (sys.executable, "-m", "ledger.cli")
KEY: Final = "411_sandbox_benchmark_key"
ROUTE: Final = "enrich/lead-session"


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process used."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    """Peak resident memory."""
    output: str
    """Its standard output."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found: lines for a person, figures for a program."""

    lines: list[str]
    figures: dict[str, Any]


def environment() -> dict[str, str]:
    """Ours without any `LEADLEDGER_…` setting of the person who runs this, and with a sandbox key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    return {**kept, "LEADLEDGER_API_KEY": KEY}


def run(command: Sequence[str], folder: Path) -> Spent:
    """Run a command in `folder`, measured from outside, from its start to its end.

    Raises:
        RuntimeError: It failed, or took longer than `PROCESS_S_MAX`.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        started = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as child:
            alarm = threading.Timer(PROCESS_S_MAX, child.kill)
            alarm.start()
            assert child.stdout is not None
            output = child.stdout.read()
            # Not Popen.wait: only wait4 tells what this one child used.
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall_s = time.perf_counter() - started
            alarm.cancel()
        if child.returncode != 0:
            complaints.seek(0)
            raise RuntimeError(f"{' '.join(command)}: exit {child.returncode}: {complaints.read()[-2000:]}")
    return Spent(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def in_turn(rounds: int, ours: Callable[[], T], theirs: Callable[[], T]) -> tuple[list[T], list[T]]:
    """A B A B …: what drifts on the machine meets both alike."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def middle(values: Iterable[float]) -> float:
    """The median."""
    return median(values)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each turn: a slow minute of the machine slows both halves of a turn."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the most beside it."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
