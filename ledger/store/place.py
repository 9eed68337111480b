"""Where a ledger really is: the one path that every `LEDGER.*` name is built from."""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: Path) -> Path:
    """The file behind links: every `LEDGER.*` name is built from this one, so that two names share a lock."""
    return Path(os.path.realpath(path))


def beside(ledger: Path, suffix: str) -> Path:
    """`LEDGER` + `suffix`, beside the real file."""
    path = real_path(ledger)
    return path.with_name(path.name + suffix)
