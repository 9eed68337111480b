"""Taking in a CSV: `leadledger import` against `sqlite-utils insert --csv` of the same file.

Ours normalises, finds duplicates by four keys and keeps each raw row; theirs only stores the cells.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from leads import EXPORT_HEADER, write_export
from measure import LEADLEDGER, Report, Spent, in_turn, middle, ratio, run, spread

ROWS: Final = 100_000
ROUNDS: Final = 3
SQLITE_UTILS: Final = (sys.executable, "-m", "sqlite_utils")


def measure(folder: Path, scale: float) -> Report:
    """Both on a new file each turn, as processes."""
    rows = max(100, round(ROWS * scale))
    distinct = write_export(folder / "export.csv", rows)
    ours, theirs = in_turn(ROUNDS, lambda: _ours(folder, rows, distinct), lambda: _theirs(folder))
    walls = [spent.wall_s for spent in ours], [spent.wall_s for spent in theirs]
    lines = [
        (
            f"{rows:,} rows of {len(EXPORT_HEADER)} columns, {rows - distinct:,} of known leads, "
            f"{ROUNDS} turns; A = leadledger import, B = sqlite-utils insert --csv"
        )
    ]
    for name, spent in (("A", ours), ("B", theirs)):
        wall = [one.wall_s for one in spent]
        lines.append(
            f"    {name}: wall {spread(wall)} s, {rows / middle(wall):,.0f} rows/s, "
            f"CPU {middle(one.cpu_s for one in spent):.2f} s, {middle(one.rss_mb for one in spent):.0f} MB"
        )
    lines.append(f"    A/B: wall {ratio(*walls):.2f}")
    figures = {
        "rows": rows,
        "rounds": ROUNDS,
        "ours": {"wall_s": walls[0], "rss_mb": [one.rss_mb for one in ours]},
        "theirs": {"wall_s": walls[1], "rss_mb": [one.rss_mb for one in theirs]},
        "wall_ratio": ratio(*walls),
    }
    return Report(lines, figures)


def _ours(folder: Path, rows: int, distinct: int) -> Spent:
    spent = run([*LEADLEDGER, "--db", "ours.db", "import", "--json", "export.csv"], folder)
    told = json.loads(spent.output)
    if (told["rows_read"], told["leads_new"], told["rows_rejected"]) != (rows, distinct, 0):
        raise RuntimeError(f"the import says {told}")
    (folder / "ours.db").unlink()
    return spent


def _theirs(folder: Path) -> Spent:
    spent = run([*SQLITE_UTILS, "insert", "theirs.db", "leads", "export.csv", "--csv"], folder)
    (folder / "theirs.db").unlink()
    return spent
