"""A night's work: `leadledger run` against a plain asyncio script that keeps nothing.

Both run as processes against a sandbox process of their own, on the same leads, ten at a time; every job is
done when it is polled first. The import is not counted: the ledger is a copy of one imported before.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import leads
from measure import LEADLEDGER, ROUTE, Report, Spent, in_turn, middle, ratio, run, spread

from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import running_process, tell

LEADS: Final = 1500
ROUNDS: Final = 3
AT_ONCE: Final = 10
PROFILE: Final = f'[routes."{ROUTE}"]\nlatency_s = [0, 0.0]\n'
"""Laid over the built-in profile: a route that is done at once is polled at once."""


@dataclass(frozen=True, slots=True)
class Night:
    """One night of one program."""

    spent: Spent
    polls: int


def measure(folder: Path, scale: float) -> Report:
    """The night with answers that take 50 ms, and with answers that take none."""
    count = max(20, round(LEADS * scale))
    rounds = ROUNDS if scale >= 0.1 else 1  # so small a night only shows that it works
    leads.write_night(folder / "leads.csv", count)
    (folder / "profile.toml").write_text(PROFILE, encoding="utf-8")
    run([*LEADLEDGER, "--db", "imported.db", "import", "leads.csv"], folder)
    lines = [f"{count:,} leads, {AT_ONCE} at once, {rounds} turns; A = leadledger run, B = plain script"]
    figures: dict[str, Any] = {"leads": count, "at_once": AT_ONCE, "rounds": rounds}
    for answer_ms in (50, 0):
        ours, theirs = in_turn(
            rounds,
            lambda ms=answer_ms: _ledger(folder, count, ms),  # type: ignore[misc] # mypy cannot infer defaults
            lambda ms=answer_ms: _plain(folder, count, ms),  # type: ignore[misc] # the same
        )
        lines += [f"  answers after {answer_ms} ms:", *_lines(ours, theirs, count)]
        figures[f"answer_{answer_ms}_ms"] = _figures(ours, theirs, count)
    return Report(lines, figures)


def _settings(answer_ms: float) -> Settings:
    return Settings(
        opening_usd="10000000",
        answer_ms=answer_ms,
        latency_s={ROUTE: Latency("fixed", 0.0)},
        cost_spread=(0.5, 1.0),
    )


def _ledger(folder: Path, count: int, answer_ms: float) -> Night:
    book = folder / "night.db"
    shutil.copyfile(folder / "imported.db", book)
    with running_process(_settings(answer_ms)) as url:
        spent = run(
            [
                *(*LEADLEDGER, "--db", book.name, "run", "--json", "--route", ROUTE, "--budget", "1000000"),
                *("--profile", "profile.toml", "--base-url", url),
                *("--concurrency", str(AT_ONCE), "--in-flight", str(AT_ONCE)),
            ],
            folder,
        )
        polls = _check(url, count)
    with closing(sqlite3.connect(book)) as connection:
        done = connection.execute("SELECT COUNT(*) FROM results").fetchone()[0]
    if done != count:
        raise RuntimeError(f"{done} of {count} results are in the ledger")
    book.unlink()
    return Night(spent, polls)


def _plain(folder: Path, count: int, answer_ms: float) -> Night:
    script = str(Path(__file__).with_name("plain_script.py"))
    with running_process(_settings(answer_ms)) as url:
        spent = run([sys.executable, script, url, "leads.csv", str(AT_ONCE)], folder)
        polls = _check(url, count)
    told = json.loads(spent.output)
    if told.get("matched", 0) + told.get("not matched", 0) != count:
        raise RuntimeError(f"the plain script says {told}")
    return Night(spent, polls)


def _check(url: str, count: int) -> int:
    """The provider's own books: every job done once. Returns the polls it answered."""
    books = tell(url, "/sandbox/books?submissions=0")
    if books["counts"]["completed"] != count or books["counts"]["accepted"] != count:
        raise RuntimeError(f"the sandbox says {books['counts']}")
    return int(sum(books["requests"]["poll"].values()))


def _figures(ours: list[Night], theirs: list[Night], count: int) -> dict[str, Any]:
    def side(nights: list[Night]) -> dict[str, Any]:
        return {
            "wall_s": [night.spent.wall_s for night in nights],
            "cpu_ms_per_lead": [night.spent.cpu_s * 1000 / count for night in nights],
            "polls_per_job": [night.polls / count for night in nights],
            "rss_mb": [night.spent.rss_mb for night in nights],
        }

    mine, other = side(ours), side(theirs)
    return {
        "ours": mine,
        "theirs": other,
        "wall_ratio": ratio(mine["wall_s"], other["wall_s"]),
        "cpu_ratio": ratio(mine["cpu_ms_per_lead"], other["cpu_ms_per_lead"]),
    }


def _lines(ours: list[Night], theirs: list[Night], count: int) -> list[str]:
    found = _figures(ours, theirs, count)
    lines = []
    for name, side in (("A", found["ours"]), ("B", found["theirs"])):
        lines.append(
            f"    {name}: wall {spread(side['wall_s'])} s, CPU {middle(side['cpu_ms_per_lead']):.2f} ms "
            f"a lead, {middle(side['polls_per_job']):.2f} polls a job, {middle(side['rss_mb']):.0f} MB"
        )
    lines.append(f"    A/B: wall {found['wall_ratio']:.2f}, CPU {found['cpu_ratio']:.2f}")
    return lines
