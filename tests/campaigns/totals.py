"""`tests/campaigns/results.jsonl`: the newest result of every campaign, one JSON object a line, kept in git.

Fields of every line:

    campaign   its name; one line each, sorted by it
    commit     the commit it was run on
    dirty      true when the tree had other changes than this file
    date       UTC, when it ended
    seconds    how long it took (this time: points that a log already held are not in it)
    seed       what it drew from
    bad        points that broke a promise; 0, or the campaign failed
    …          the campaign's own counts; `control_…` counts what its control was caught at, never 0

Written only with `--record`, as `make campaign` does, so that a small trial leaves the figures alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.jsonl")
SHOWN_MAX: Final = 20


def add_options(parser: argparse.ArgumentParser, *, jobs: bool = True, seed: bool = True) -> None:
    """What every campaign can be asked for."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if seed:
        parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help=f"write the result into {RESULTS.name}")
    if jobs:
        parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--log", type=Path, help="JSON Lines; continued when it exists")


def finish(
    result: dict[str, Any], bad: list[dict[str, Any]], *, begun: float, record: bool, failed: str = ""
) -> int:
    """Print the result line and the first bad rows, record it, and return the exit code.

    Args:
        result: The line, without what this file adds.
        bad: Rows of broken points.
        begun: `time.perf_counter()` at the start.
        record: Whether it goes into the file of results.
        failed: Why the campaign proves nothing (a control not caught, kills that did not happen).
    """
    line = {**result, "bad": len(bad), **_now(begun)}
    sys.stdout.write(json.dumps(line) + "\n")
    for row in bad[:SHOWN_MAX]:
        sys.stdout.write(json.dumps(row) + "\n")
    if failed:
        sys.stderr.write(f"{result['campaign']}: {failed}\n")
    elif record:
        _record(line)
    sys.stdout.flush()
    return 1 if bad or failed else 0


def _now(begun: float) -> dict[str, Any]:
    changed = [line for line in _git("status", "--porcelain").splitlines() if RESULTS.name not in line]
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD").strip(),
        "dirty": bool(changed),
    }


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False).stdout


def _record(line: dict[str, Any], results: Path = RESULTS) -> None:
    old = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    lines = {json.loads(text)["campaign"]: text for text in old} | {line["campaign"]: json.dumps(line)}
    results.write_text("".join(lines[name] + "\n" for name in sorted(lines)), encoding="utf-8")
