"""`leadledger doctor`: this machine, this file, this key: what is right, what is not, how to mend it."""

from __future__ import annotations

import asyncio
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock
from ledger.errors import LeadledgerError

if TYPE_CHECKING:
    from ledger.api.profile import Profile
    from ledger.cli.settings import Globals
    from ledger.events import Secret

_FIXED: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""SQLite releases in which the WAL-reset race is fixed: 3.51.3, and the branches it was ported back to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `level`: ok, note (works, could be better), bad (must be mended)."""

    what: str
    level: str
    says: str
    mend: str = ""


@click.command(epilog="Example: leadledger doctor --json")
@options.provider
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    *,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Look at everything a run depends on and spend nothing. Exit code 2 when something must be mended."""
    del yes
    globals_: Globals = ctx.obj
    findings = [_python(), _sqlite(), *_files(globals_.db), *_ledger(globals_.db)]
    findings += _provider(base_url, profile, api_key_file, api_key_command)
    if as_json:
        output.emit_json({"schema": 1, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            _tell(finding)
    ctx.exit(2 if any(finding.level == "bad" for finding in findings) else 0)


def _tell(finding: Finding) -> None:
    mark = {"ok": ("ok  ", "32"), "note": ("note", "33"), "bad": ("BAD ", "31")}[finding.level]
    output.say(f"{output.paint(*mark)} {finding.what:12} {output.clean(finding.says)}")
    if finding.mend:
        output.say(f"{'':17} → {output.clean(finding.mend)}")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("Python", "ok" if good else "bad", version, "" if good else "Install 3.11 or newer.")


def _sqlite() -> Finding:
    from ledger.store.engine import sqlite3

    version = tuple(map(int, sqlite3.sqlite_version.split(".")))
    if version < (3, 37):
        return Finding("SQLite", "bad", sqlite3.sqlite_version, "Install Python with SQLite 3.37 or newer.")
    if has_wal_race(version):
        return Finding(
            "SQLite",
            "note",
            f"{sqlite3.sqlite_version} has a rare bug when two processes write one file (fixed in 3.51.3); "
            "leadledger never lets two write.",
            "Do not write to the ledger with other tools. `pip install pysqlite3` brings a newer SQLite.",
        )
    return Finding("SQLite", "ok", sqlite3.sqlite_version)


def has_wal_race(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the WAL-reset race (3.7.0 to 3.51.2, ported back to 3.50.7 and 3.44.6)."""
    if version >= _FIXED[0]:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED[1:])


def _files(db: Path) -> list[Finding]:
    from ledger.store.connect import check_file, check_place, file_system_of
    from ledger.store.place import real_path

    path = real_path(db)
    try:
        check_place(path)
        check_file(path)
    except LeadledgerError as error:
        return [Finding("file", "bad", error.what, error.next_step)]
    findings = [Finding("file system", "ok", file_system_of(path.parent) or "unknown")]
    if not path.exists():
        return [
            *findings,
            Finding("file", "note", f"{path} does not exist yet", "`leadledger import` makes it."),
        ]
    mode = stat.S_IMODE(path.stat().st_mode)
    private = not mode & 0o077
    findings.append(
        Finding(
            "file",
            "ok" if private else "bad",
            f"{path}, mode {mode:04o}",
            "" if private else f"It holds personal data and bearers: chmod 600 {path}",
        )
    )
    return findings


def _ledger(db: Path) -> list[Finding]:
    from ledger.store.connect import SCHEMA_VERSION
    from ledger.store.lock import describe, is_held, read_holder
    from ledger.store.place import real_path
    from ledger.store.read import Reader

    path = real_path(db)
    findings = []
    if is_held(path):
        findings.append(Finding("lock", "note", f"in use by {describe(read_holder(path))}"))
    else:
        findings.append(Finding("lock", "ok", "free"))
    if not path.exists():
        return findings
    try:
        with Reader(path) as reader:
            version, check = reader.schema_version(), reader.quick_check()
    except LeadledgerError as error:
        return [*findings, Finding("schema", "bad", error.what, error.next_step)]
    current = version == SCHEMA_VERSION
    findings.append(
        Finding(
            "schema",
            "ok" if current else "note",
            f"version {version}",
            "" if current else "The next writing command brings it up to date (with a backup).",
        )
    )
    sound = check == "ok"
    findings.append(
        Finding(
            "integrity",
            "ok" if sound else "bad",
            check,
            "" if sound else "Do not run on it. Copy it away, then restore a good copy.",
        )
    )
    return findings


def _provider(
    base_url: str | None, profile_file: Path | None, key_file: Path | None, key_command: str | None
) -> list[Finding]:
    from ledger.api.origin import checked_base_url
    from ledger.api.profile import Profile
    from ledger.events import Secret

    try:
        profile = Profile.load(profile_file)
        url = checked_base_url(base_url or profile.base_url)
    except LeadledgerError as error:
        return [Finding("profile", "bad", error.what, error.next_step)]
    findings = [Finding("profile", "ok", profile.name)]
    try:
        key = wiring.api_key(key_file, key_command)
        findings.append(Finding("API key", "ok", "there is one (not shown)"))
    except LeadledgerError as error:
        key = Secret("411_none")
        findings.append(Finding("API key", "bad", error.what, error.next_step))
    return [*findings, asyncio.run(_reach(url, key, profile))]


async def _reach(url: str, key: Secret, profile: Profile) -> Finding:
    from ledger.api.client import Client
    from ledger.events import Balance
    from ledger.money import usd

    async with Client(url, key, profile, SystemClock()) as client:
        reading = await client.balance()
    if isinstance(reading, Balance):
        return Finding("provider", "ok", f"{url} answers; the balance is {usd(reading.amount_microusd)}")
    if reading.not_allowed:
        return Finding(
            "provider", "bad", f"{url} answers, and refuses the key ({reading.error})", "Check it."
        )
    return Finding(
        "provider", "bad", f"{url}: {reading.error}", "Check --base-url and the network; nothing was sent."
    )
