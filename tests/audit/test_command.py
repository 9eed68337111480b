"""`leadledger audit`: what it prints, what it compares, what it writes, and how it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger import events as ev
from ledger.cli import audit as command
from ledger.cli import letter
from ledger.cli.main import _run
from ledger.states import StopReason
from ledger.store.audit import FILE_CHECKS, INVARIANTS
from ledger.store.disputes import claims
from ledger.store.engine import sqlite3

CHECKS = len(INVARIANTS) + len(FILE_CHECKS)
OPENING = 1_000_000_000
BODY = '{"note": "```` fenced ```"}'


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def leadledger(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder, without a key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEADLEDGER_API_KEY", raising=False)

    def run(path: Path, *arguments: str) -> Ended:
        code = _run(["--db", str(path), "audit", *arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def balance(monkeypatch: pytest.MonkeyPatch) -> Callable[[ev.Balance | ev.BalanceUnknown], None]:
    """Gives the provider's answer, and the key to ask for it."""
    monkeypatch.setenv("LEADLEDGER_BASE_URL", "http://127.0.0.1:4711")

    def says(reading: ev.Balance | ev.BalanceUnknown) -> None:
        async def look(*_: object) -> ev.Balance | ev.BalanceUnknown:
            return reading

        monkeypatch.setenv("LEADLEDGER_API_KEY", "key")
        monkeypatch.setattr(command, "_look", look)

    return says


@pytest.fixture
def quiet(world: Any) -> Path:
    """A closed ledger where 0.42 was charged, 1.50 may have been (a doubt), and nothing is in the air."""
    world.take("company 1", "company 2")
    world.begin()
    world.note_opening()
    world.enqueue()
    world.claim(2)
    world.record(1, world.accepted(), world.finished(420_000))
    world.record(2, ev.Unknown("read_timeout", None, None))
    world.ledger.end_run(StopReason.INTERRUPTED)
    world.ledger.close()
    path = world.path.with_suffix(".quiet")
    shutil.copyfile(world.path, path)
    world.open()
    return path


@pytest.fixture
def broken(healthy: Path, tmp_path: Path) -> Path:
    path = tmp_path / "broken.db"
    shutil.copyfile(healthy, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("DROP TRIGGER transitions_no_delete")
        moved = "SELECT id FROM jobs WHERE state <> 'queued'"
        file.execute(f"DELETE FROM transitions WHERE from_state = 'new' AND job_id IN ({moved})")
    return path


def test_a_healthy_ledger_is_one_line(leadledger: Run, healthy: Path) -> None:
    ended = leadledger(healthy, "--no-balance")
    assert ended.code == 0
    assert ended.out.startswith(f"{CHECKS} invariants hold over 35 jobs, ")
    assert "BROKEN" not in ended.out


def test_a_broken_one_says_what_with_ten_rows_and_exit_code_3(leadledger: Run, broken: Path) -> None:
    ended = leadledger(broken, "--no-balance")
    assert ended.code == 3
    lines = ended.out.splitlines()
    first = "BROKEN guards_in_place (1 row): Every table, index, trigger and allowed step"
    assert lines[0].startswith(first)
    assert lines[1].strip() == "type=trigger  name=transitions_no_delete  is=missing"
    assert lines[2].startswith("BROKEN history_is_a_chain (34 rows): A job's first step leaves `new`")
    assert [line.startswith("       job_id=") for line in lines[3:14]] == [True] * 10 + [False]
    assert f"{CHECKS - 2} invariants hold" in ended.out
    assert "2 do not." in ended.out


def test_json_is_one_object_with_the_rows(leadledger: Run, broken: Path) -> None:
    ended = leadledger(broken, "--json", "--no-balance")
    said = json.loads(ended.out)
    assert ended.code == 3
    assert (said["schema"], said["ok"], said["checked"], said["balance"]) == (1, False, CHECKS, None)
    assert [failure["name"] for failure in said["failed"]] == ["guards_in_place", "history_is_a_chain"]
    assert len(said["failed"][1]["rows"]) == said["failed"][1]["count"] == 34
    assert said["failed"][1]["sentence"].startswith("A job's first step")


def test_without_a_key_the_balance_is_left_alone(leadledger: Run, quiet: Path) -> None:
    ended = leadledger(quiet)
    assert ended.code == 0
    assert "not compared without an API key" in ended.err


def test_beside_a_run_the_balance_is_left_alone(leadledger: Run, balance: Any, world: Any) -> None:
    balance(ev.Balance(OPENING, 1))
    world.take("company 1")
    ended = leadledger(world.path)
    assert ended.code == 0
    assert "while another process works on the ledger" in ended.err


def test_while_a_call_may_be_answered_the_balance_is_left_alone(
    leadledger: Run, balance: Any, healthy: Path
) -> None:
    balance(ev.Balance(7, 1))
    ended = leadledger(healthy)
    assert ended.code == 0
    assert "while a call may still be answered" in ended.err


@pytest.mark.parametrize(
    ("gap", "code", "sentence"),
    [
        (0, 0, "gap $0.00."),
        (1_500_000, 0, "within what doubts and assumed charges may have cost ($1.50)"),
        (1_500_001, 3, "unexplained beyond $1.50."),
        (-1, 3, "Was it topped up?"),
    ],
)
def test_the_balance_is_compared(
    leadledger: Run, balance: Any, quiet: Path, gap: int, code: int, sentence: str
) -> None:
    balance(ev.Balance(OPENING - 420_000 - gap, 1))
    before = quiet.read_bytes()
    ended = leadledger(quiet)
    assert ended.code == code
    assert "expected $999.58, observed " in ended.out
    assert sentence in ended.out
    said = json.loads(leadledger(quiet, "--json").out)
    assert said["ok"] is (code == 0)
    assert said["balance"]["expected_microusd"] == OPENING - 420_000
    assert said["balance"]["observed_microusd"] == OPENING - 420_000 - gap
    assert said["balance"]["gap_microusd"] == gap
    assert quiet.read_bytes() == before


def test_a_gap_below_the_last_digit_is_none(leadledger: Run, balance: Any, quiet: Path) -> None:
    with closing(sqlite3.connect(quiet, isolation_level=None)) as file:
        ((guard,),) = file.execute("SELECT sql FROM sqlite_master WHERE name = 'balance_checks_no_update'")
        file.execute("DROP TRIGGER balance_checks_no_update")
        file.execute("UPDATE balance_checks SET digit_microusd = 10000")
        file.execute(guard)
    balance(ev.Balance(OPENING - 420_000 + 9_999, 10_000))
    assert leadledger(quiet).code == 0
    balance(ev.Balance(OPENING - 420_000 + 10_000, 10_000))
    assert leadledger(quiet).code == 3


def test_another_provider_is_not_asked(
    leadledger: Run, balance: Any, quiet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    balance(ev.Balance(7, 1))
    monkeypatch.setenv("LEADLEDGER_BASE_URL", "https://elsewhere.example")
    ended = leadledger(quiet)
    assert ended.code == 0
    assert "is another provider" in ended.err


def test_a_balance_that_cannot_be_read_is_said(leadledger: Run, balance: Any, quiet: Path) -> None:
    balance(ev.BalanceUnknown("http_503"))
    ended = leadledger(quiet)
    assert ended.code == 0
    assert "could not be read (http_503)" in ended.err


def test_the_claims_are_a_letter_with_every_lost_call(leadledger: Run, healthy: Path, tmp_path: Path) -> None:
    file = tmp_path / "claims.md"
    ended = leadledger(healthy, "--no-balance", "--claims", str(file))
    assert ended.code == 0
    text = file.read_text(encoding="utf-8")
    with closing(sqlite3.connect(healthy)) as ledger:
        lost = ledger.execute("SELECT idempotency_key, remote_job_id FROM attempts WHERE outcome = 'lost'")
        for key, remote_id in lost.fetchall():
            assert f"- our idempotency key: {key}\n" in text
            assert remote_id is None or f"- your job id: {remote_id}\n" in text
        (bearer,) = ledger.execute("SELECT bearer FROM poll_bearers").fetchone()
    assert bearer not in text
    assert "gateway" in text, "the raw body that came"
    assert '"company": "company 16"' in text, "what we asked"
    assert text.count("\n## ") == json.loads(leadledger(healthy, "--json", "--no-balance").out)["claims"] == 7


def test_what_is_claimed(healthy: Path) -> None:
    with closing(sqlite3.connect(healthy)) as ledger:
        found = list(claims(ledger))
    amounts = [
        (claim["kind"], claim.get("charged_microusd", claim.get("amount_microusd"))) for claim in found
    ]
    assert amounts == [
        ("above_ceiling", 1_600_000),
        ("lost", 1_500_000),
        ("lost", 1_500_000),
        ("lost", 300_000),
        ("lost", 0),
        ("lost", 0),
        ("unattributed", 500_000),
    ]
    assert [claim.get("assumed") for claim in found] == [0, 1, 1, 0, 0, 0, None]


def test_an_unexplained_gap_is_a_claim(leadledger: Run, balance: Any, quiet: Path, tmp_path: Path) -> None:
    balance(ev.Balance(OPENING - 420_000 - 2_000_000, 1))
    file = tmp_path / "claims.md"
    assert leadledger(quiet, "--claims", str(file)).code == 3
    assert "- amount: $0.50\n" in file.read_text(encoding="utf-8")


def test_a_claims_file_is_never_written_over_unasked(leadledger: Run, quiet: Path, tmp_path: Path) -> None:
    file = tmp_path / "claims.md"
    file.write_text("mine")
    ended = leadledger(quiet, "--no-balance", "--claims", str(file))
    assert ended.code == 2
    assert "--force overwrites it" in ended.err
    assert file.read_text() == "mine"
    assert leadledger(quiet, "--no-balance", "--claims", str(file), "--force").code == 0
    assert file.read_text().startswith("# Calls and charges")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_body_cannot_end_its_fence() -> None:
    claim: dict[str, Any] = dict.fromkeys(
        ("attempt_id", "idempotency_key", "remote_job_id", "route", "mode", "sent_at", "ended_at")
    )
    claim |= {"kind": "lost", "http_status": None, "error": None, "evidence": "a\x1b[2Jb", "assumed": 1}
    claim |= {"ceiling_microusd": 1_500_000, "charged_microusd": 1_500_000, "request": BODY, "answers": []}
    text = "\n".join(letter.lines([claim], "now"))
    assert f"\n`````json\n{BODY}\n`````" in text
    assert "a�[2Jb" in text
    assert "- counted as charged: $1.50 (assumed)" in text
