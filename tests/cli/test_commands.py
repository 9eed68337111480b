"""Commands over one small ledger: what they print, and what a mistake gets."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger import events as ev
from ledger.api.profile import Profile
from ledger.cli import import_, main, wiring
from ledger.clock import SystemClock
from ledger.errors import LedgerFileProblem, UsageProblem
from ledger.migrations.migrations import migrations
from ledger.states import State, StopReason
from ledger.store import inbox
from ledger.store.claims import ClaimRules
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

ROUTE = "enrich/lead-session"
LEADS = """Company Name,Street Address,City,Postal Code,Phone Number,Note
Alder,1 Main St,Tucson,02139,,"first, with a comma"
Birch,2 Main St,Tucson,85702,,second
ALDER,1 MAIN ST,Tucson,02139,(520) 555-0100,Alder again
,,,,,nobody
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEADLEDGER_API_KEY", raising=False)
    (tmp_path / "leads.csv").write_text(LEADS, encoding="utf-8")
    runner = CliRunner()
    return lambda *arguments, **rest: runner.invoke(main.cli, [str(part) for part in arguments], **rest)


@pytest.fixture
def worked(run: Run, tmp_path: Path) -> Run:
    """Imported; Alder matched for $0.42, Birch in doubt."""
    assert run("import", "leads.csv").exit_code == 0

    async def night() -> None:
        with Ledger(tmp_path / "leads.db", "test", clock=SystemClock(), migrations=migrations) as ledger:
            ledger.begin_run(origin="http://127.0.0.1:1", settings={}, caps=Caps(chain_microusd=10**8))
            ledger.enqueue(ROUTE, "async", Selection(), wiring.builder(Profile.load()))
            rules = ClaimRules(ROUTE, "async", 1_500_000, Caps(chain_microusd=10**8))
            alder, birch = (await ledger.claim(rules, 5)).calls
            answer = ev.Answer("accepted", 202, "{}")
            await ledger.record(alder.job_id, 1, ev.Accepted("job_a", ev.Secret("pb_needle"), None, answer))
            entities = [{"type": "phone", "value": "+1520"}]
            body = json.dumps({"summary": "good", "entities": entities, "half\n \ud83d": "\ud83d"})
            verdict = ev.Verdict(
                State.MATCHED,
                matched=True,
                billed=True,
                cache_hit=False,
                cost_microusd=420_000,
                error_code=None,
                body=body,
            )
            await ledger.record(alder.job_id, 1, ev.Finished(verdict, ev.Answer("poll", 200, body)), polls=2)
            await ledger.record(birch.job_id, 1, ev.Unknown("read_timeout", None, None))
            ledger.end_run(StopReason.INTERRUPTED)

    asyncio.run(night())
    return run


def test_import_reports_in_the_contracts_form(run: Run) -> None:
    told = json.loads(run("import", "leads.csv", "--json").stdout)
    assert list(told) == [
        "schema",
        "rows_read",
        "leads_new",
        "leads_known",
        "rows_rejected",
        "mapping",
        "rejections",
    ]
    assert (told["rows_read"], told["leads_new"], told["leads_known"], told["rows_rejected"]) == (4, 2, 1, 1)
    assert told["mapping"]["company"] == "Company Name"
    (rejection,) = told["rejections"]
    assert rejection["row"] == 5
    assert "no identity" in rejection["reason"]
    assert json.loads(run("import", "leads.csv", "--json").stdout)["leads_new"] == 0


def test_a_dry_import_writes_nothing(run: Run, tmp_path: Path) -> None:
    assert "2 new leads" in run("import", "leads.csv", "--dry-run").stdout
    assert not (tmp_path / "leads.db").exists()


def test_a_dry_import_knows_the_ledger_and_leaves_it_as_it_is(run: Run, tmp_path: Path) -> None:
    run("import", "leads.csv")
    (tmp_path / "more.csv").write_text(LEADS + "Cedar,3 Main St,Tucson,85703,,third\n", encoding="utf-8")
    before = (tmp_path / "leads.db").read_bytes(), sorted(tmp_path.iterdir())
    told = run("import", "leads.csv", "more.csv", "more.csv", "--dry-run").stdout
    assert ((tmp_path / "leads.db").read_bytes(), sorted(tmp_path.iterdir())) == before
    assert [line.split(" = ")[1].split(" + ")[:2] for line in told.splitlines()] == [
        ["0 new leads", "3 of known leads"],
        ["1 new leads", "3 of known leads"],
        ["0 new leads", "4 of known leads"],
    ]
    done = json.loads(run("import", "more.csv", "--json").stdout)
    assert (done["leads_new"], done["leads_known"]) == (1, 3)


def test_a_dry_import_does_not_bring_an_older_ledger_up_to_date(run: Run, tmp_path: Path) -> None:
    run("import", "leads.csv")
    with closing(sqlite3.connect(tmp_path / "leads.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert "earlier version" in str(run("import", "leads.csv", "--dry-run").exception)


def test_of_several_files_those_before_a_broken_one_are_in_and_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('Company\nCedar\n"Dogwood\n', encoding="utf-8")
    done = run("import", "leads.csv", "b.csv", "leads.csv", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["files_taken_in"], told["leads_new"]) == (2, ["leads.csv"], 2)
    assert "b.csv, row 3" in told["error"]["what"]
    assert "Taken in before that: leads.csv. Not taken in: b.csv, leads.csv." in told["error"]["money"]
    assert "b.csv, row 3" in done.stderr
    assert "Dogwood" not in run("show", "1").stdout
    assert isinstance(run("show", "Cedar").exception, UsageProblem)
    again = run("import", "leads.csv", "b.csv")
    assert (again.exit_code, "nothing new in 4 rows" in again.stdout) == (2, True)
    assert "Taken in before that: leads.csv." in again.stderr
    alone = run("import", "b.csv", "--json")
    assert "Nothing was imported" in str(alone.exception)


def test_json_lists_every_rejection_with_its_file_or_says_how_many_it_left_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.csv").write_text("Company,Phone\n" + ",\n" * 1500 + "Elm,1\n" * 11, encoding="utf-8")
    assert "1,490 more (--json lists them)" in run("import", "bad.csv", "--dry-run").stderr
    told = json.loads(run("import", "bad.csv", "leads.csv", "--json").stdout)
    assert [one["row"] for one in told["rejections"]] == [*range(2, 1502), 5]
    assert [one["file"] for one in told["rejections"]] == ["bad.csv"] * 1500 + ["leads.csv"]
    again = json.loads(run("import", "bad.csv", "--json").stdout)
    assert "file" not in again["rejections"][0]
    assert (len(again["rejections"]), "rejections_left_out" in again) == (1500, False)
    monkeypatch.setattr(import_, "_LISTED_MAX", 10)
    cut = json.loads(run("import", "bad.csv", "--json").stdout)
    assert (len(cut["rejections"]), cut["rejections_left_out"]) == (10, 1490)


def test_what_is_noted_is_not_said_to_be_in_the_json(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"Firm {number},1\n" for number in range(12))
    (tmp_path / "odd.csv").write_text("Company,Phone\n" + rows, encoding="utf-8")
    told = run("import", "odd.csv").stderr
    assert "12 noted" in told
    assert "2 more (`leadledger export` has them, as ledger_note)" in told
    assert run("export", "out.csv").exit_code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["ledger_note"] for row in csv.DictReader(file)] == [
            "number1: not a phone number: '1'"
        ] * 12


def test_an_import_from_stdin_or_a_pipe_is_a_sentence(run: Run, tmp_path: Path) -> None:
    assert "cannot read from stdin" in str(run("import", "-").exception)
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe gives its text once" in str(run("import", "pipe").exception)


def test_an_import_read_wrongly_can_be_put_right(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fr.csv").write_bytes("Company,Street,Phone\nCafé,1 Rue,520 555 0100\n".encode("cp1252"))
    as_told = ("import", "fr.csv", "--json", "--encoding")
    assert json.loads(run(*as_told, "mac-roman", "--region", "GB").stdout)["leads_new"] == 1
    assert json.loads(run(*as_told, "cp1252", "--region", "GB").stdout)["leads_new"] == 1, "another name"
    assert "+15205550100" not in run("show", "Café").stdout
    assert json.loads(run(*as_told, "cp1252", "--region", "US").stdout)["leads_known"] == 1
    assert "+15205550100" in run("show", "Café").stdout
    again = run("import", "fr.csv", "--encoding", "windows-1252", "--region", "us")
    assert "nothing new" in again.stdout


def test_only_an_import_makes_a_ledger_of_an_empty_file(run: Run, tmp_path: Path) -> None:
    db = tmp_path / "leads.db"
    for command in (("run", "--route", "phone", "--budget", "9"), ("balance", "--top-up", "1"), ("status",)):
        for make in (db.touch, lambda: sqlite3.connect(db).execute("PRAGMA journal_mode = WAL").close()):
            make()
            before = db.read_bytes()
            refused = run(
                *command, env={"LEADLEDGER_API_KEY": "411_x", "LEADLEDGER_BASE_URL": "http://[::1]:1"}
            )
            assert isinstance(refused.exception, LedgerFileProblem)
            assert "there is no ledger in it yet. Nothing was sent" in str(refused.exception)
            assert db.read_bytes() == before
        db.unlink()
    db.touch()
    assert run("import", "leads.csv").exit_code == 0
    assert run("status").exit_code == 0


def test_export_gives_every_row_back_in_its_order_with_its_columns(worked: Run, tmp_path: Path) -> None:
    assert worked("export", "out.csv").exit_code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    original = next(csv.reader(LEADS.splitlines()))
    assert header[: len(original)] == original
    assert [row[: len(original)] for row in rows] == list(csv.reader(LEADS.splitlines()))[1:]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["ledger_state"] for row in table] == ["matched", "in_doubt", "matched", "rejected"]
    assert [row["ledger_charged_usd"] for row in table] == ["0.42", "0.00", "0.00", "0.00"]
    assert [row["ledger_same_lead_as_row"] for row in table] == ["", "", "2", ""]
    assert [row["ledger_held_usd"] for row in table] == ["0.00", "1.50", "0.00", "0.00"]
    assert table[0]["enriched_summary"] == "good"
    assert table[0]["enriched_phone"] == "+1520"
    with pytest.raises(UsageProblem, match="exists"):
        worked("export", "out.csv", catch_exceptions=False)


def export(run: Run, tmp_path: Path, name: str = "out.csv") -> tuple[list[str], list[dict[str, str]]]:
    assert run("export", name, "--force").exit_code == 0
    with (tmp_path / name).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def test_export_has_the_files_own_columns_and_every_cell_whatever_its_rows_are(
    run: Run, tmp_path: Path
) -> None:
    text = 'Company,Phone,Note\nshort\nAlder,,x\nlong,,y,more,yet more\n"bad" quote,,\n'
    (tmp_path / "odd.csv").write_text(text, encoding="utf-8")
    assert run("import", "odd.csv").exit_code == 0
    header, rows = export(run, tmp_path)
    assert header[:7] == ["Company", "Phone", "Note", "(cell 4)", "(cell 5)", "(line)", "ledger_lead_id"]
    assert [row["Company"] for row in rows] == ["short", "Alder", "long", ""]
    assert [row["Note"] for row in rows] == ["", "x", "y", ""]
    assert (rows[2]["(cell 4)"], rows[2]["(cell 5)"]) == ("more", "yet more")
    assert rows[3]["(line)"] == '"bad" quote,,\n'


def test_an_export_bounds_its_columns_and_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("Company,City\na,b" + ",c" * 300 + "\n", encoding="utf-8")
    assert run("import", "wide.csv").exit_code == 0
    header, (row,) = export(run, tmp_path)
    assert (len([name for name in header if name.startswith("(cell")]), row["(cell 3)"]) == (200, "c")
    assert "100 columns more than 200 are left out" in run("export", "again.csv").stderr


def test_an_export_can_be_imported_and_exported_again(worked: Run, tmp_path: Path) -> None:
    header, rows = export(worked, tmp_path)
    told = json.loads(worked("import", "out.csv", "--json").stdout)
    assert (told["leads_new"], told["leads_known"], told["rows_rejected"]) == (0, 3, 1)
    again, now = export(worked, tmp_path, "again.csv")
    assert again == header
    assert len(set(again)) == len(again)
    money = ("ledger_state", "ledger_charged_usd", "ledger_held_usd", "enriched_phone")
    assert [[row[name] for name in money] for row in now] == [[row[name] for name in money] for row in rows]
    (tmp_path / "old.csv").write_text(
        "Company,ledger_state,enriched_phone,enriched_fax\nCedar,lost,+1,+2\n", encoding="utf-8"
    )
    worked("import", "old.csv")
    header, (row,) = export(worked, tmp_path)
    assert (header[:3], row["ledger_state"]) == (["Company", "enriched_phone", "enriched_fax"], "not asked")


def test_half_a_character_in_an_answer_is_exported_as_it_is_spelt(worked: Run, tmp_path: Path) -> None:
    _, rows = export(worked, tmp_path)
    assert rows[0]["enriched_half \\ud83d"] == "\\ud83d"


def test_show_tells_the_story_and_no_secret(worked: Run) -> None:
    told = worked("show", "alder").stdout
    assert "sent (attempt 1), $1.50 set aside" in told
    assert "accepted by the provider as job_a" in told
    assert "charged $0.42, still held $0.00" in told
    assert "in doubt" in worked("show", "2").stdout
    everything = told + worked("show", "1", "--json").stdout + worked("jobs", "--json").stdout
    assert "pb_needle" not in everything


def test_jobs_filter(worked: Run) -> None:
    found = json.loads(worked("jobs", "--state", "in_doubt", "--json").stdout)["jobs"]
    assert [(job["company"], job["held_microusd"]) for job in found] == [("Birch", 1_500_000)]
    assert "Birch" in worked("jobs", "--lead", "Birch").stdout


def test_resolve_says_the_cost_and_needs_a_yes(worked: Run) -> None:
    refused = worked("resolve", "2", "--write-off")
    assert isinstance(refused.exception, UsageProblem)
    assert "up to $1.50" in refused.stderr
    done = json.loads(worked("resolve", "--all", "--write-off", "--yes", "--json").stdout)
    assert done == {"schema": 1, "resolved": 1, "charged_microusd": 1_500_000, "applied": True}
    status = json.loads(worked("status", "--json").stdout)
    assert status["money"]["charged_microusd"] == 1_920_000
    assert status["jobs"]["lost"] == 1


def test_resolve_takes_the_evidence_in_before_it_asks_for_a_decision(worked: Run, tmp_path: Path) -> None:
    db = tmp_path / "leads.db"
    with closing(sqlite3.connect(db)) as connection:
        ((key,),) = connection.execute("SELECT idempotency_key FROM attempts WHERE job_id = 2").fetchall()
    said = {"event_type": "enrich.job_completed", "job_id": "job_b", "source_ref": key}
    said |= {"status": "completed", "charged_usd": 0.42, "result": {"matched": True}}
    body = inbox.delivery(json.dumps(said).encode(), received_at=SystemClock().now(), delivery_id=None)
    inbox.drop(db, "delivery", body)
    done = worked("resolve", "2", "--resend", "--yes")
    assert isinstance(done.exception, UsageProblem)
    assert "Job 2 is matched, not in doubt." in str(done.exception)
    assert worked("resolve", "--all", "--resend", "--yes").exit_code == 0
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("SELECT state FROM jobs").fetchall() == [("matched",), ("matched",)]


def test_a_control_command_reads_deliveries_by_the_profile_it_is_told(worked: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("no_such_key = 1\n", encoding="utf-8")
    for words in (("resolve", "2", "--write-off"), ("pause", "--all")):
        refused = worked(*words, "--profile", "mine.toml", "--yes")
        assert isinstance(refused.exception, UsageProblem)
        assert "no_such_key" in str(refused.exception)
    assert json.loads(worked("status", "--json").stdout)["jobs"]["in_doubt"] == 1


def test_a_route_that_is_configured_for_runs_names_no_job(
    worked: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLEDGER_ROUTE", "lead-session")
    monkeypatch.setenv("LEADLEDGER_IMPORT", "last")
    refused = worked("retry", "--yes")
    assert isinstance(refused.exception, UsageProblem)
    assert "Say which jobs" in str(refused.exception)
    retry = ("retry", "--state", "matched", "--yes", "--json")
    monkeypatch.setenv("LEADLEDGER_ROUTE", "phone")
    assert json.loads(worked(*retry).stdout)["jobs"] == 0, "it narrows what is named"
    monkeypatch.setenv("LEADLEDGER_ROUTE", "lead-session")
    assert json.loads(worked(*retry).stdout)["jobs"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("resolve", "2"),
        ("resolve", "--write-off"),
        ("resolve", "2", "--accept", "../agents/balance"),
        ("resolve", "1", "--write-off", "--yes"),
        ("export", "x.csv", "--import", "9"),
        ("show", "nobody"),
    ],
)
def test_a_mistake_is_a_sentence(worked: Run, arguments: tuple[str, ...]) -> None:
    error = worked(*arguments).exception
    assert isinstance(error, UsageProblem)
    assert str(error).endswith((".", "!"))


def test_the_key_comes_from_a_file_the_environment_or_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEADLEDGER_API_KEY", raising=False)
    file = tmp_path / "key"
    file.write_text("411k_file\n", encoding="utf-8")
    assert wiring.api_key(file, None).reveal() == "411k_file"
    assert wiring.api_key(None, f"cat {file}").reveal() == "411k_file"
    monkeypatch.setenv("LEADLEDGER_API_KEY", "411k_env")
    assert wiring.api_key(None, None).reveal() == "411k_env"
    monkeypatch.setenv("LEADLEDGER_API_KEY", "two words")
    with pytest.raises(UsageProblem, match="blanks"):
        wiring.api_key(None, None)
    with pytest.raises(UsageProblem, match="cannot be read"):
        wiring.api_key(tmp_path / "none", None)
    monkeypatch.delenv("LEADLEDGER_API_KEY")
    with pytest.raises(UsageProblem, match="api_key_command failed"):
        wiring.api_key(None, "false")


def test_doctor_names_what_is_wrong_and_what_is_right(worked: Run, tmp_path: Path) -> None:
    (tmp_path / "leads.db").chmod(0o644)
    done: Any = worked("doctor", "--json", "--base-url", "http://127.0.0.1:9")
    found = {finding["what"]: finding["level"] for finding in json.loads(done.stdout)["findings"]}
    assert done.exit_code == 2
    assert found["Python"] == "ok"
    assert found["file"] == "bad"
    assert found["API key"] == "bad"
    assert found["provider"] == "bad"
    assert found["integrity"] == "ok"
    assert found["lock"] == "ok"
