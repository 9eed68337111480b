"""`leadledger audit`: does everything add up?"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli import files, letter, options, output, wiring
from ledger.clock import SystemClock, to_text
from ledger.errors import UsageProblem
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.events import Balance, BalanceUnknown
    from ledger.store.audit import Audit
    from ledger.store.disputes import Compared
    from ledger.store.read import Reader

_ROWS_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Door:
    """Where the provider is and how to be let in, as the options say it."""

    base_url: str | None
    profile: Path | None
    api_key_file: Path | None
    api_key_command: str | None

    @property
    def has_key(self) -> bool:
        """True when somebody named a key; whether it can be read is found out when it is."""
        return bool(self.api_key_file or self.api_key_command or os.environ.get("LEADLEDGER_API_KEY"))


@click.command(epilog="Example: leadledger audit --claims claims.md")
@click.option(
    "--claims",
    "claims_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what to ask the provider about to FILE (Markdown, ready to send).",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--no-balance", is_flag=True, help="Do not ask the provider for its balance.")
@options.provider
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    *,
    claims_file: Path | None,
    force: bool,
    no_balance: bool,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Check every invariant of the ledger, its guards, its file, and the provider's balance.

    Writes nothing to the ledger and works beside a run. The balance is compared when there is a key, no run
    is on and no call may still be answered. Exit code 3 when something is off.
    """
    del yes
    from ledger.migrations.migrations import migrations
    from ledger.store.read import Reader

    globals_: Globals = ctx.obj
    if claims_file is not None:
        files.check_new(claims_file, force=force)
    door = Door(base_url, profile, api_key_file, api_key_command)
    with Reader(globals_.db) as reader:
        audit = reader.audit(migrations)
        found, note = None, "The balance was not asked for."
        if audit.current and not no_balance:
            found, note = _compare(reader, door)
        claims = list(reader.claims()) if audit.current else []
    if found is not None and not found.explained and (found.gap_microusd or 0) > 0:
        claims.append(_gap_claim(found))
    if claims_file is not None:
        text = letter.lines(claims, to_text(SystemClock().now()))
        files.write_whole(claims_file, lambda stream: stream.writelines(line + "\n" for line in text))
        output.tell(f"{len(claims)} claims written to {claims_file}.")
    ok = not audit.failed and (found is None or found.explained)
    if as_json:
        output.emit_json(_facts(audit, found, note, len(claims), ok=ok))
    else:
        _tell(audit, found, note, len(claims))
    ctx.exit(0 if ok else 3)


def _compare(reader: Reader, door: Door) -> tuple[Compared | None, str]:
    """The balance against the books, or why it was not compared."""
    from ledger.api.origin import checked_base_url, origin
    from ledger.api.profile import Profile
    from ledger.events import Balance
    from ledger.store.lock import is_held

    before = reader.quiet_at()
    if is_held(reader.path):
        return None, "The balance is not compared while another process works on the ledger."
    if before is None:
        return None, "The balance is not compared while a call may still be answered: run first."
    if not door.has_key:
        return None, "The balance is not compared without an API key."
    profile = Profile.load(door.profile)
    base_url = checked_base_url(door.base_url or profile.base_url)
    try:
        reader.check_origin(origin(base_url))
    except UsageProblem as problem:
        return None, f"The balance is not compared. {problem.what}"
    key = wiring.api_key(door.api_key_file, door.api_key_command)
    reading = asyncio.run(_look(base_url, key, profile))
    if not isinstance(reading, Balance):
        return None, f"The balance could not be read ({reading.error})."
    if is_held(reader.path) or reader.quiet_at() != before:
        return None, "The balance is not compared: the books moved while it was read."
    return reader.compared(reading), ""


async def _look(base_url: str, key: Any, profile: Any) -> Balance | BalanceUnknown:
    from ledger.api.client import Client

    async with Client(base_url, key, profile, SystemClock()) as client:
        return await client.balance()


def _gap_claim(found: Compared) -> dict[str, Any]:
    return {
        "kind": "gap",
        "at": to_text(SystemClock().now()),
        "amount_microusd": (found.gap_microusd or 0) - found.covered_microusd,
        "evidence": f"balance shown: {usd(found.observed_microusd)}; by our books: "
        f"{usd(found.expected_microusd or 0)}",
    }


def _facts(audit: Audit, found: Compared | None, note: str, claims: int, *, ok: bool) -> dict[str, Any]:
    balance = None
    if found is not None:
        balance = {
            "expected_microusd": found.expected_microusd,
            "observed_microusd": found.observed_microusd,
            "gap_microusd": found.gap_microusd,
            "explained": found.explained,
        }
    return {
        "schema": 1,
        "ok": ok,
        "checked": audit.checked,
        "jobs": audit.jobs,
        "transitions": audit.transitions,
        "failed": [asdict(failure) for failure in audit.failed],
        "balance": balance,
        "balance_note": note,
        "claims": claims,
    }


def _tell(audit: Audit, found: Compared | None, note: str, claims: int) -> None:
    for failure in audit.failed:
        broken = output.paint("BROKEN", "31")
        rows = "1 row" if failure.count == 1 else f"{failure.count:,} rows"
        output.say(f"{broken} {failure.name} ({rows}): {failure.sentence}")
        for row in failure.rows[:_ROWS_SHOWN]:
            output.say("       " + output.clean("  ".join(f"{key}={value}" for key, value in row.items())))
    holds = audit.checked - len(audit.failed)
    output.say(f"{holds} invariants hold over {audit.jobs:,} jobs, {audit.transitions:,} transitions.")
    if audit.failed:
        output.say(f"{len(audit.failed)} do not.")
    if found is not None:
        output.say(_sentence(found))
    if note:
        output.tell(note)
    if claims:
        output.say(f"{claims} claims: `leadledger audit --claims FILE` writes them down for the provider.")


def _sentence(found: Compared) -> str:
    if found.expected_microusd is None or found.gap_microusd is None:
        return f"Balance {usd(found.observed_microusd)}, compared with nothing. {found.incomparable}"
    text = (
        f"Balance: expected {usd(found.expected_microusd)}, observed {usd(found.observed_microusd)}, "
        f"gap {usd(found.gap_microusd)}"
    )
    if not found.explained and found.gap_microusd < 0:
        return text + ": unexplained. Was it topped up? `leadledger balance --top-up USD` records that."
    if not found.explained:
        return text + f": unexplained beyond {usd(found.covered_microusd)}."
    if found.gap_microusd >= found.digit_microusd:
        return (
            text + f": within what doubts and assumed charges may have cost ({usd(found.covered_microusd)})."
        )
    return text + "."
