"""`leadledger balance`: what the provider says is there, and what our books say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock
from ledger.errors import ProviderProblem, Unreachable
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.api.profile import Profile
    from ledger.cli.settings import Globals
    from ledger.events import Balance, Secret


@click.command(epilog="Example: leadledger balance --top-up 50")
@click.option("--top-up", type=options.Usd(), help="Record that you added this much at the provider.")
@options.provider
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    top_up: int | None,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Show the balance and how many jobs it carries at a time; asking is free.

    `--top-up` only records in the ledger what you paid in at the provider, so that the audit expects it.
    """
    del yes
    from ledger.api.profile import Profile

    if top_up is not None:
        with wiring.open_ledger(obj.db, "balance", SystemClock()) as ledger:
            ledger.top_up(top_up)
        output.tell(f"Recorded: {usd(top_up)} paid in.")
    loaded = Profile.load(profile)
    key = wiring.api_key(api_key_file, api_key_command)
    reading = asyncio.run(_look(base_url or loaded.base_url, key, loaded))
    ceiling = loaded.ceiling.default_microusd
    carries = reading.amount_microusd // ceiling
    if as_json:
        output.emit_json(
            {
                "schema": 1,
                "balance_microusd": reading.amount_microusd,
                "ceiling_microusd": ceiling,
                "carries_jobs": carries,
                "topped_up_microusd": top_up or 0,
            }
        )
        return
    output.say(
        f"Balance {usd(reading.amount_microusd)}: carries {carries:,} jobs of {usd(ceiling)} at a time."
    )
    if carries == 0:
        output.say("Top it up at the provider, then record it here: leadledger balance --top-up USD.")


async def _look(base_url: str, key: Secret, profile: Profile) -> Balance:
    from ledger.api.client import Client
    from ledger.events import Balance

    async with Client(base_url, key, profile, SystemClock()) as client:
        reading = await client.balance()
    if isinstance(reading, Balance):
        return reading
    if reading.not_allowed:
        raise ProviderProblem(
            f"The provider refuses this key ({reading.error}).", next_step="Check LEADLEDGER_API_KEY."
        )
    raise Unreachable(f"The balance at {base_url} could not be read ({reading.error}).")
