"""What must not run does not: each refusal has its exit code and a sentence, and nothing is sent."""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.sandbox.settings import Settings
from ledger.sandbox.testing import KEY, running

RUN = ("run", "--route", "lead-session", "--budget", "50")


@pytest.fixture
def night(stage: Callable[..., Any]) -> Iterator[Any]:
    """Ten leads and a provider that is never to see a paid call."""
    made = stage()
    made.leads(10)
    yield made
    books = made.books()
    assert (books["counts"]["accepted"], books["requests"].get("submit", {})) == (0, {})


def _error(done: Any, code: int, *words: str) -> None:
    """One JSON object with the error, a sentence on stderr, no traceback (`Stage.cli` looks for that)."""
    assert done.code == code, done
    error = done.json["error"]
    assert set(error) == {"what", "money", "next_step"}
    for word in words:
        assert word in f"{error['what']} {error['next_step']}", error
    assert error["what"].split()[0] in done.err


def _ended(done: Any, reason: str) -> None:
    """What a script is promised of every run that began (the JSON contract), error or not."""
    promised = {"schema", "run_id", "stop_reason", "submitted", "final", "in_doubt"}
    assert promised | {"charged_microusd", "held_microusd", "seconds", "error"} == set(done.json)
    assert (done.json["run_id"], done.json["stop_reason"], done.json["submitted"]) == (1, reason, 0)


def _nothing_sent(night: Any) -> None:
    assert set(night.states()) <= {"queued"}
    assert night.sql("SELECT COUNT(*) FROM attempts") == [(0,)]


def test_a_second_runner_exits_5_and_names_the_holder(stage: Callable[..., Any]) -> None:
    # Longer than this test takes on any machine: the first run ends when it is told to.
    night = stage(answer_ms_of={"submit": 5000}, latency_s={"enrich/lead-session": ["fixed", 600]})
    night.leads(5)
    first = night.start(night.command(*RUN, "--json"))
    night.wait(lambda: night.accepted() > 0, "the first POST")
    assert night.cli("status", "--json").json["runner"] == {"alive": True, "pid": first.pid}
    _error(night.cli(*RUN, "--json"), 5, f"process {first.pid}", "run")
    _error(night.cli("import", str(night.write_leads(3, "more.csv")), "--json"), 5, str(first.pid))
    night.wait(lambda: night.accepted() == 5, "the last POST")
    first.send_signal(signal.SIGINT)
    done = night.ended(first)
    assert (done.code, done.json["submitted"]) == (130, 5)


def test_without_a_key_nothing_starts(night: Any) -> None:
    _error(night.cli(*RUN, "--json", LEADLEDGER_API_KEY=None), 2, "no API key", "LEADLEDGER_API_KEY")
    _nothing_sent(night)


def test_a_refused_key_stops_before_a_job_is_written(night: Any) -> None:
    done = night.cli(*RUN, "--json", LEADLEDGER_API_KEY="stale_key_of_another_account")
    _error(done, 2, "refuses this key")
    _ended(done, "not_allowed")
    assert "stale_key" not in done.out + done.err
    _nothing_sent(night)
    assert night.sql("SELECT stop_reason FROM runs") == [("not_allowed",)]


def test_a_provider_that_is_not_there_is_75_and_nothing_was_sent(night: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken and never listened on: nobody else can answer there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = night.cli(*RUN, "--json", LEADLEDGER_BASE_URL=url)
    _error(done, 75, "cannot be reached", url)
    _ended(done, "unreachable")
    _nothing_sent(night)
    assert night.sql("SELECT stop_reason FROM runs") == [("unreachable",)]


def test_a_plan_says_why_it_has_no_balance(night: Any) -> None:
    plan = ("plan", "--route", "lead-session", "--json")
    assert night.cli(*plan).json["balance_microusd"] > 0
    with socket.socket() as closed, socket.socket() as mute:
        closed.bind(("127.0.0.1", 0))
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # connections are taken by the kernel, and nobody ever answers
        nowhere, silent = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (closed, mute))
        short = night.folder / "short.toml"
        short.write_text("[limits]\npoll_total_s = 4.0\n", encoding="utf-8")
        for changed, words in (
            ({"LEADLEDGER_API_KEY": None}, "There is no API key."),
            ({"LEADLEDGER_API_KEY": "stale_key"}, "refuses the key"),
            ({"LEADLEDGER_BASE_URL": nowhere}, f"{nowhere} did not tell it"),
            ({"LEADLEDGER_BASE_URL": silent, "LEADLEDGER_PROFILE": str(short)}, f"Waiting for {silent}, 4 s"),
        ):
            done = night.cli(*plan, **changed)
            assert (done.code, done.json["balance_microusd"], done.json["jobs"]) == (
                0,
                None,
                {"enrich/lead-session": 10},
            )
            assert "Planned without the balance" in done.err
            assert words in done.err
    assert "Waiting" not in night.cli(*plan).err


def test_a_budget_that_does_not_carry_one_job_is_a_sentence(night: Any) -> None:
    _error(night.cli("run", "--route", "lead-session", "--budget", "0", "--json"), 2, "--budget")
    _error(night.cli("run", "--route", "lead-session", "--budget", "1.49", "--json"), 2, "$1.50")
    assert night.cli("run", "--route", "lead-session", "--json").code == 2
    _nothing_sent(night)


def test_plain_http_to_another_machine_is_refused(night: Any) -> None:
    for url in ("http://example.com", "http://192.0.2.1:8080"):
        _error(night.cli(*RUN, "--json", LEADLEDGER_BASE_URL=url), 2, "plain http", "https")
    _nothing_sent(night)


def test_an_import_that_does_not_exist_is_named(night: Any) -> None:
    _error(night.cli(*RUN, "--import", "99", "--json"), 2, "99", "import")
    _error(night.cli(*RUN, "--lead", "nobody@example.com", "--json"), 2, "nobody@example.com")
    _error(night.cli(*RUN, "--where", "colour=red", "--json"), 2, "colour", "company")
    _nothing_sent(night)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--route", "enrich/fax", "--budget", "50"),
        ("run", "--route", "lead-session", "--budget", "lots"),
        ("run", "--route", "lead-session", "--budget", "50", "--ceiling", "0.01"),
        ("run", "--route", "lead-session", "--budget", "50", "--until", "25:99"),
        ("run", "--route", "phone", "--mode", "async", "--budget", "50"),
        ("run", "--budget", "50"),
    ],
    ids=lambda arguments: " ".join(arguments[-2:]),
)
def test_a_wrong_option_is_2_with_a_sentence(night: Any, arguments: tuple[str, ...]) -> None:
    _error(night.cli(*arguments, "--json"), 2)
    _nothing_sent(night)


def test_a_ledger_of_a_newer_version_is_left_alone(night: Any) -> None:
    with closing(sqlite3.connect(night.ledger)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA user_version = 999")
    _error(night.cli(*RUN, "--json"), 2, "newer version", "999")
    with closing(sqlite3.connect(night.ledger)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    _nothing_sent(night)


@pytest.mark.parametrize("content", [b"Company,Street\nA,B\n", b"SQLite format 3\x00" + b"\x00" * 200])
def test_a_file_that_is_no_ledger_is_left_alone(night: Any, content: bytes) -> None:
    other = night.folder / "other.db"
    other.write_bytes(content)
    _error(night.cli(*RUN, "--json", LEADLEDGER_DB=str(other)), 2, "not a ledger")
    assert other.read_bytes() == content


def test_a_folder_that_cannot_be_written_to_is_refused(night: Any) -> None:
    # /proc takes no file from anybody; a chmod would not stop root.
    export = str(night.write_leads(2, "more.csv"))
    done = night.cli("import", export, "--json", LEADLEDGER_DB="/proc/leads.db")
    _error(done, 2, "/proc")
    missing = night.folder / "missing" / "leads.db"
    _error(night.cli("import", export, "--json", LEADLEDGER_DB=str(missing)), 2, "no folder")
    _error(night.cli(*RUN, "--json", LEADLEDGER_DB=str(missing)), 2, "There is no ledger")


def test_a_run_on_a_path_without_a_ledger_says_how_to_make_one(night: Any, tmp_path: Path) -> None:
    done = night.cli("status", "--json", LEADLEDGER_DB=str(tmp_path / "new.db"))
    _error(done, 2, "import")
    assert not (tmp_path / "new.db").exists()


def test_another_provider_is_refused_unless_it_is_said(stage: Callable[..., Any]) -> None:
    night = stage()
    night.leads(4)
    night.cli(*RUN, "--limit", "1", "--json")  # the first run that sends binds the ledger
    assert night.accepted() == 1
    done = night.cli(*RUN, "--json", LEADLEDGER_BASE_URL="https://provider.invalid")
    _error(done, 2, "another provider", "--change-provider")
    assert night.accepted() == 1


def test_a_loopback_sandbox_on_another_port_is_the_same_provider(stage: Callable[..., Any]) -> None:
    night = stage()
    night.leads(4)
    assert night.cli(*RUN, "--limit", "2", "--json").json["stop_reason"] == "limit"
    with running(Settings(latency_s={"enrich/lead-session": ("fixed", 0.1)})) as url:
        assert night.cli(*RUN, "--json", LEADLEDGER_BASE_URL=url, LEADLEDGER_API_KEY=KEY).code == 0
    assert night.accepted() == 2
