"""A stage with real processes: a sandbox on a port, our program as a user starts it, and the ledger file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ledger.sandbox.settings import Settings
from ledger.sandbox.testing import KEY, running_process, tell

# pytest imports by path (importlib mode), so the folder of a test is not on the path by itself.
sys.path.insert(0, str(Path(__file__).parent))

WAIT_S = 150.0
"""No command of a test takes longer; one that does is a failure, not a hang."""
STATES = (
    "queued",
    "submitting",
    "waiting",
    "in_doubt",
    "matched",
    "no_match",
    "failed",
    "lost",
    "skipped",
    "cancelled",
)
FINAL = STATES[4:]
PROFILE = """\
freeze_s = 1.0
refund_settle_s = 0.5

[limits]
submit_total_s = 10.0

[routes."enrich/lead-session"]
latency_s = [0.2, 1.0]
"""


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on the one line of stdout."""
        assert self.out.endswith("\n"), self
        assert self.out.count("\n") == 1, self
        value: dict[str, Any] = json.loads(self.out)
        assert value["schema"] == 1
        return value


@dataclass
class Stage:
    """A folder with a ledger, and where its provider is."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = self.folder / "leads.db"
        (self.folder / "profile.toml").write_text(PROFILE, encoding="utf-8")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
        self.environment = {
            **ours,
            "LEADLEDGER_BASE_URL": self.url,
            "LEADLEDGER_API_KEY": KEY,
            "LEADLEDGER_PROFILE": str(self.folder / "profile.toml"),
            "LEADLEDGER_DB": str(self.ledger),
            **self.environment,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ledger.cli", *arguments]

    def cli(self, *arguments: str, **environment: str | None) -> Done:
        """Run a command to its end. A variable of None is taken out of the environment."""
        changed = {**self.environment, **environment}
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command whose end the test decides; its output goes to files in the folder."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def ended(self, process: subprocess.Popen[str], within_s: float = WAIT_S) -> Done:
        """Wait for a started command and read what it wrote."""
        code = process.wait(within_s)
        return Done(code, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Look until something outside this process is so."""
        ends = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < ends, f"{what} never came"
            time.sleep(0.01)

    def write_leads(self, number: int, name: str = "leads.csv") -> Path:
        lines = [f"Firm {n},{n} Main St,Tucson,AZ,857{n % 90 + 10}" for n in range(number)]
        path = self.folder / name
        path.write_text("\n".join(["Company,Street,City,State,Zip", *lines]) + "\n", encoding="utf-8")
        return path

    def leads(self, number: int) -> None:
        """A ledger with so many leads."""
        done = self.cli("import", str(self.write_leads(number)), "--json")
        assert (done.code, done.json["leads_new"]) == (0, number), done

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """What a reader beside the writer sees."""
        with closing(sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def states(self) -> dict[str, int]:
        return dict(self.sql("SELECT state, COUNT(*) FROM jobs GROUP BY state"))

    def rows(self) -> dict[str, int]:
        """How many rows every table has."""
        names = [name for (name,) in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self.sql(f'SELECT COUNT(*) FROM "{name}"')[0][0] for name in names}

    def books(self) -> dict[str, Any]:
        """The provider's own."""
        told: dict[str, Any] = tell(self.url, "/sandbox/books")
        assert told["balanced"]
        return told

    def accepted(self) -> int:
        """How many paid calls the provider has taken so far."""
        return int(tell(self.url, "/sandbox/books?submissions=0")["counts"]["accepted"])

    # --- what must hold at the end of every story ---

    def check_money(self) -> None:
        """Nobody is charged twice, and each known job costs in our books what it costs in theirs."""
        books = self.books()
        assert [group for group in books["duplicates"] if group["charged"] > 1] == []
        theirs = {one["remote_job_id"]: one["charged_microusd"] for one in books["submissions"]}
        ours = self.sql(
            "SELECT a.remote_job_id, SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd "
            "ELSE 0 END) FROM attempts a JOIN costs c ON c.attempt_id = a.id JOIN jobs j ON j.id = a.job_id "
            "WHERE a.remote_job_id IS NOT NULL AND j.state IN ('matched', 'no_match', 'failed') "
            "GROUP BY a.id"
        )
        assert [(remote, cost, theirs[remote]) for remote, cost in ours if cost != theirs[remote]] == []
        held = self.sql(
            "SELECT COALESCE(SUM(CASE kind WHEN 'hold' THEN amount_microusd WHEN 'adjust' THEN 0 "
            "ELSE -amount_microusd END), 0) FROM costs WHERE attempt_id IS NOT NULL"
        )[0][0]
        doubts = self.sql(
            "SELECT COALESCE(SUM(a.ceiling_microusd), 0) FROM jobs j JOIN attempts a ON a.job_id = j.id "
            "AND a.number = j.attempt WHERE j.state = 'in_doubt'"
        )[0][0]
        assert held == doubts


def check_run(run: dict[str, Any]) -> None:
    """The contract of `run --json`."""
    assert list(run) == [
        "schema",
        "run_id",
        "stop_reason",
        "submitted",
        "final",
        "in_doubt",
        "charged_microusd",
        "held_microusd",
        "seconds",
    ]
    assert set(run["final"]) <= set(FINAL)
    whole = [run[name] for name in ("submitted", "in_doubt", "charged_microusd", "held_microusd")]
    assert all(isinstance(number, int) and number >= 0 for number in [*whole, *run["final"].values()])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes a stage with a sandbox of the given settings in a process of its own."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Stage:
            short = {"enrich/lead-session": ["uniform", 0.2, 1.0]}
            url = stack.enter_context(running_process(Settings(**{"latency_s": short, **settings})))
            return Stage(tmp_path, url)

        yield make


@pytest.fixture
def run_contract() -> Callable[[dict[str, Any]], None]:
    return check_run
