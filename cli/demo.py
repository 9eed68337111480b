"""`leadledger demo`: the whole story in under a minute, with real processes and a real kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import click

from ledger.cli import options, output
from ledger.errors import Bug, UsageProblem
from ledger.money import usd

LEADS: Final = 120
_WAIT_S: Final = 40.0
"""No step of the story takes longer than this; if one does, the demo says so instead of hanging."""

PROFILE: Final = """\
# The sandbox answers within milliseconds and forgets nothing, so the demo need not wait as long as a night.
freeze_s = 2.0
refund_settle_s = 1.0

[limits]
submit_total_s = 3.0

[routes."enrich/lead-session"]
latency_s = [0.5, 4.0]
"""
_SETTINGS: Final = {
    "opening_usd": "500",
    "latency_s": {"enrich/lead-session": ["uniform", 0.5, 4]},
    "answer_ms_of": {"submit": 120},
    "match_rate": 0.75,
    "faults": {"throttle": 0.03, "poll_500": 0.02},
}
_FIRST: Final = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper")
_SECOND: Final = ("Bakery", "Plumbing", "Dental", "Auto Repair", "Books", "Roofing", "Florist", "Optics")
_STREETS: Final = ("Main St", "Oak Ave", "Pine Rd", "Lake Dr", "Hill Blvd")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays."""

    folder: Path
    environment: dict[str, str]
    quiet: bool

    def tell(self, text: str) -> None:
        """The narrator."""
        if not self.quiet:
            output.say(output.paint(text, "36"))
            sys.stdout.flush()

    def command(self, *arguments: str) -> list[str]:
        """A command line of our own program, shown as a user would type it."""
        if not self.quiet:
            output.say(output.paint("$ leadledger " + " ".join(arguments), "1"))
            sys.stdout.flush()
        return [sys.executable, "-m", "ledger.cli", *arguments]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
        """Run a command to its end, on the same terminal."""
        command = self.command(*arguments)
        shown = subprocess.DEVNULL if self.quiet else None
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=shown,
            stderr=shown,
            timeout=_WAIT_S,
            check=False,
        )
        if done.returncode not in codes:
            raise Bug(f"`leadledger {' '.join(arguments)}` ended with {done.returncode} in the demo.")

    def look(self, *arguments: str) -> dict[str, Any]:
        """The JSON a command prints, without showing it."""
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "ledger.cli", *arguments, "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=False,
        )
        value: dict[str, Any] = json.loads(done.stdout)
        return value


@click.command(epilog="Example: leadledger demo, then leadledger --db demo/leads.db show 3")
@click.option(
    "--folder", type=click.Path(path_type=Path), default="demo", show_default=True, help="Made anew."
)
@click.option("--seed", type=int, default=411, show_default=True, help="Seed of the sandbox.")
@options.common
@click.pass_context
def command(ctx: click.Context, *, folder: Path, seed: int, as_json: bool, yes: bool) -> None:
    """Sandbox, import, plan, run, kill -9, resume, audit, spend report: without a key, on this machine.

    Really kills a process half way, and leaves a ledger to look at.
    """
    del yes
    started = time.monotonic()
    try:
        _clear(folder)
    except OSError as error:
        raise UsageProblem(
            f"The demo cannot be set up in {folder}: {error.strerror}.",
            next_step="Name a folder that can be written with --folder.",
        ) from error
    with _sandbox(folder, seed) as base_url:
        environment = {
            **_plain(),
            "LEADLEDGER_BASE_URL": base_url,
            "LEADLEDGER_API_KEY": "411_demo",
            "LEADLEDGER_PROFILE": "profile.toml",
            "LEADLEDGER_DB": "leads.db",
        }
        stage = Stage(folder, environment, quiet=as_json)
        books = _play(stage, base_url)
    report = _report(stage, books)
    report["seconds"] = round(time.monotonic() - started, 1)
    if as_json:
        output.emit_json({"schema": 1, **report})
    else:
        _tell_report(folder, report)
    ctx.exit(0 if report["agrees"] else 3)


def _plain() -> dict[str, str]:
    """The environment without the settings of the person who watches: the story has its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}


def _clear(folder: Path) -> None:
    """An empty folder; only a demo's own files are removed."""
    own = ("leads.db", "leads.csv", "profile.toml", "enriched.csv", "sandbox.json")
    if folder.exists():
        strange = [p.name for p in folder.iterdir() if not p.name.startswith(own)]
        if strange:
            raise UsageProblem(
                f"{folder} holds something that is not a demo's ({strange[0]}).",
                next_step="Name another with --folder.",
            )
        for path in folder.iterdir():
            path.unlink()
    folder.mkdir(exist_ok=True)
    (folder / "profile.toml").write_text(PROFILE, encoding="utf-8")
    (folder / "leads.csv").write_text("\n".join(_rows()) + "\n", encoding="utf-8")


def _rows() -> Iterator[str]:
    """A small export: every lead invented, some twice, one without anything to go by."""
    yield "Company Name,Street Address,City,State/Region,Postal Code,Phone Number,Notes"
    for number in range(LEADS):
        name = f"{_FIRST[number % 10]} {_SECOND[number // 10 % 8]} {1 + number // 80}"
        street = f"{100 + number} {_STREETS[number % 5]}"
        zip_code, line = f"857{number % 50:02d}", f"{100 + number % 100:04d}"
        yield f'{name},{street},Tucson,AZ,{zip_code},(520) 555-{line},"called once"'
        if number % 12 == 0:
            yield f'{name.upper()},"{street}",TUCSON,az,{zip_code},520.555.{line},again'
    yield ",,Tucson,AZ,,,nobody knows who"


@contextmanager
def _sandbox(folder: Path, seed: int) -> Iterator[str]:
    """A sandbox in a process of its own; it ends with the demo."""
    settings = folder / "sandbox.json"
    settings.write_text(json.dumps({"seed": seed, **_SETTINGS}), encoding="utf-8")
    command = [sys.executable, "-m", "ledger.cli", "sandbox", "--port", "0", "--json", "--scenario"]
    with subprocess.Popen(  # noqa: S603 - our own program
        [*command, settings.name], cwd=folder, env=_plain(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise Bug("The sandbox did not start.")
            yield json.loads(line)["base_url"]
        finally:
            process.terminate()


def _play(stage: Stage, base_url: str) -> dict[str, Any]:
    """The story; returns what the provider's own books say at the end."""
    stage.tell(f"\n1. A provider on this machine ({base_url}), with its own books. A CRM export comes in.")
    stage.run("import", "leads.csv")
    stage.tell("\n2. What will it cost? Nothing is sent yet.")
    stage.run("plan", "--route", "lead-session")
    stage.tell("\n3. The night's run, and a kill -9 in the middle of it.")
    _run_and_kill(stage)
    stage.run("status")
    stage.tell("\n4. The same command again: what was accepted is polled, nothing is sent twice.")
    stage.run("run", "--route", "lead-session", "--budget", "250", codes=(0, 3))
    if stage.look("status")["jobs"]["in_doubt"]:
        stage.tell(
            "\n   Calls in the air at the kill had been accepted and charged; their answers are gone."
            "\n   A person closes them, knowing what they cost:"
        )
        stage.run("resolve", "--all", "--write-off", "--yes")
    stage.tell("\n5. The audit: every promise as a question to the books, and the balance beside them.")
    stage.run("audit")
    stage.tell("\n6. One lead's story, and the results joined back to every row of the file.")
    stage.run("show", "1")
    stage.run("export", "enriched.csv", "--force")
    with urlopen(f"{base_url}/sandbox/books", timeout=10) as answer:  # noqa: S310 - our own sandbox
        books: dict[str, Any] = json.load(answer)
    return books


def _run_and_kill(stage: Stage) -> None:
    """Start a run, let a third of it finish, and send SIGKILL."""
    command = stage.command("run", "--route", "lead-session", "--budget", "250")
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        cwd=stage.folder,
        env=stage.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if stage.quiet else None,
    ) as run:
        ends = time.monotonic() + _WAIT_S
        while True:
            jobs = stage.look("status")["jobs"]
            if jobs["matched"] + jobs["no_match"] >= LEADS // 4:
                break
            if run.poll() is not None or time.monotonic() > ends:
                raise Bug("The run ended before it could be killed.")
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
        run.wait(_WAIT_S)
    stage.tell(f"   kill -9 {run.pid}: the process is gone, in the middle of its work.")


def _report(stage: Stage, books: dict[str, Any]) -> dict[str, Any]:
    """Our books beside the provider's."""
    status = stage.look("status")
    money = status["money"]
    ours = money["charged_microusd"] + money["unattributed_microusd"]
    theirs = books["money"]["charged_microusd"]
    return {
        "jobs": {state: count for state, count in status["jobs"].items() if count},
        "ledger_microusd": ours,
        "provider_microusd": theirs,
        "held_microusd": money["held_microusd"],
        "accepted_by_provider": books["counts"]["accepted"],
        "charged_twice": sum(group["charged"] > 1 for group in books["duplicates"]),
        "agrees": ours == theirs and money["held_microusd"] == 0,
    }


def _tell_report(folder: Path, report: dict[str, Any]) -> None:
    output.say("\n" + output.paint("Spend report", "1"))
    output.say(
        f"  the ledger says    {usd(report['ledger_microusd'])}, still held {usd(report['held_microusd'])}"
    )
    output.say(f"  the provider says  {usd(report['provider_microusd'])}")
    verdict = "They agree to the micro-dollar" if report["agrees"] else "They do NOT agree"
    output.say(f"  {verdict}. Charged twice for one lead: {report['charged_twice']}.")
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in report["jobs"].items())
    output.say(f"  {states}. {report['seconds']} seconds.")
    us = Path(os.path.relpath(sys.argv[0]))
    output.say(f"\nLook around: {us} --db {folder}/leads.db status (or show 3, or jobs --state lost),")
    output.say(f"or in the browser: {us} --db {folder}/leads.db browse")
