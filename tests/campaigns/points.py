"""Playing a list of points: spread over processes, each with a sandbox of its own, and continued from a log.

A point is a key and whatever its campaign makes of it. Its row goes to the log (JSON Lines) as soon as it is
played, so a campaign that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

SANDBOX_LASTS: Final = 50
"""Points judged by one sandbox: its books are read whole after each."""

Row = dict[str, Any]
Opened = Callable[[], AbstractContextManager[Any]]
Work = Callable[[Any, str, Any], Row]
"""(bench, key, point) -> row. Must be importable: it goes to other processes by name."""


def play(
    plan: Sequence[tuple[str, Any]],
    work: Work,
    opened: Opened,
    *,
    jobs: int = 1,
    log: Path | None = None,
    shown: bool = False,
) -> list[Row]:
    """The rows of all points of `plan`, in its order; those in the log already are not played again.

    `shown`: a line a sandbox on stderr, with the rate.
    """
    assert len(dict(plan)) == len(plan), "two points of one key would share their leads"
    rows = read_log(log)
    left = [(key, point) for key, point in plan if key not in rows]
    chunks = [left[start : start + SANDBOX_LASTS] for start in range(0, len(left), SANDBOX_LASTS)]
    begun, played = time.perf_counter(), 0
    for done in _played(chunks, work, opened, jobs, log):
        rows.update((row["key"], row) for row in done)
        played += len(done)
        if shown:
            rate = played / (time.perf_counter() - begun)
            bad = sum(bool(rows[key]["bad"]) for key, _ in plan if key in rows)
            sys.stderr.write(f"{played}/{len(left)} points, {rate:.2f} a second, bad {bad}\n")
    return [rows[key] for key, _ in plan]


def _played(
    chunks: list[list[tuple[str, Any]]], work: Work, opened: Opened, jobs: int, log: Path | None
) -> Any:
    if jobs == 1:
        for chunk in chunks:
            yield _play_chunk(chunk, work, opened, log)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("forkserver")) as pool:
        futures = [pool.submit(_play_chunk, chunk, work, opened, log) for chunk in chunks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _play_chunk(chunk: list[tuple[str, Any]], work: Work, opened: Opened, log: Path | None) -> list[Row]:
    rows = []
    with opened() as where:
        for key, point in chunk:
            row = {"key": key, **work(where, key, point)}
            note(log, row)
            rows.append(row)
    return rows


def note(log: Path | None, row: Row) -> None:
    """Append one row; a single write, so that two processes' rows do not mix."""
    if log is None:
        return
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, json.dumps(row).encode() + b"\n")
    finally:
        os.close(descriptor)


def read_log(log: Path | None) -> dict[str, Row]:
    """Rows by key; a last line that a kill cut short is played again."""
    rows: dict[str, Row] = {}
    if log is None or not log.exists():
        return rows
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["key"]] = row
    return rows
