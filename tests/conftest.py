"""What every part's tests share: the header, virtual time, and an open ledger."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

from ledger import __version__
from ledger.migrations.migrations import migrations
from ledger.store.engine import sqlite3
from ledger.store.ledger import Ledger
from ledger.testing import FakeClock

settings.register_profile("leadledger", database=None, deadline=None)  # a shared machine keeps no deadline
settings.load_profile("leadledger")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", help="keep the browser walk's pictures there")
    parser.addoption("--golden", action="store_true", help="write tests/golden anew instead of comparing")


def pytest_report_header() -> str:
    return f"leadledger {__version__}, SQLite {sqlite3.sqlite_version}, Datasette {version('datasette')}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[Ledger]:
    """A new, open ledger in `tmp_path`."""
    with Ledger(tmp_path / "leads.db", "test", clock=clock, migrations=migrations) as opened:
        yield opened
