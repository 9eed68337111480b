"""The benchmarks: ratios measured side by side in one run. Nothing is asserted about time.

python tests/benchmarks/run.py [NAME …] [--json FILE] [--scale FACTOR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import audit
import claim
import csv_import
import in_flight
import night
import pages
import verbs
from measure import Report

BENCHMARKS: Final[dict[str, Callable[[Path, float], Report]]] = {
    "night": night.measure,
    "in_flight": in_flight.measure,
    "import": csv_import.measure,
    "claim": claim.measure,
    "verbs": verbs.measure,
    "pages": pages.measure,
    "audit": audit.measure,
}
_PACKAGES: Final = ("leadledger", "httpx", "httpcore", "uvicorn", "sqlite-utils", "click", "datasette")


def header(scale: float) -> dict[str, Any]:
    """The versions and the machine: figures of two machines cannot be compared, ratios of one run can."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "scale": scale,
    }


def say(line: str) -> None:
    """One line on standard output, at once: a benchmark takes a minute."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_header(about: dict[str, Any]) -> None:
    """What was measured on."""
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    say(f"Python {about['python']}, SQLite {about['sqlite']}, {packages}")
    say(f"{about['system']}, {about['cores']} cores, load {about['load'][0]:.1f}, scale {about['scale']:g}")


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every size (default 1)")
    wishes = parser.parse_args()
    unknown = set(wishes.names) - set(BENCHMARKS)
    if unknown or not wishes.scale > 0:
        parser.error(f"benchmarks are {', '.join(BENCHMARKS)}; the scale is above 0")
    about = header(wishes.scale)
    say_header(about)
    found: dict[str, Any] = {}
    for name in wishes.names or BENCHMARKS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="leadledger-bench-") as folder:
            report = BENCHMARKS[name](Path(folder), wishes.scale)
        seconds = time.perf_counter() - started
        say("\n".join((f"\n{name}", *("  " + line for line in report.lines), f"  ({seconds:.0f} s)")))
        found[name] = {**report.figures, "seconds": seconds}
    if wishes.json is not None:
        wishes.json.write_text(json.dumps({**about, "benchmarks": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
