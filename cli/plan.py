"""`leadledger plan`: what a run would send and cost, before a cent is spent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import options, output, wiring
from ledger.errors import LeadledgerError
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger plan --route lead-session --import last")
@options.selection
@options.provider
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    route: str,
    mode: str | None,
    ceiling: int | None,
    import_name: str | None,
    leads: tuple[str, ...],
    where: tuple[str, ...],
    limit: int | None,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Say what `run` with the same selection would do and cost. Makes no paid call and writes nothing.

    With a key it also asks for the balance, which is free.
    """
    del yes
    selection = (import_name, leads, where, limit)
    balance = _balance(profile, base_url, api_key_file, api_key_command)
    _show(obj, profile, (route, mode, ceiling), selection, balance, as_json=as_json)


def show_plan(obj: Globals, profile: Path | None, wishes: Any, *, as_json: bool) -> int:
    """`run --dry-run`: the same plan, without asking for the balance. Returns the exit code."""
    selection = (wishes.import_name, wishes.leads, wishes.where, wishes.limit)
    _show(obj, profile, (wishes.route, wishes.mode, wishes.ceiling), selection, None, as_json=as_json)
    return 0


def _show(
    obj: Globals,
    profile_file: Path | None,
    asked: tuple[str, str | None, int | None],
    selection: tuple[str | None, tuple[str, ...], tuple[str, ...], int | None],
    balance: int | None,
    *,
    as_json: bool,
) -> None:
    from ledger.api.profile import Profile
    from ledger.store.read import Reader

    profile = Profile.load(profile_file)
    route, mode, ceiling = asked
    mode = profile.mode_for(route, mode)
    most = profile.ceiling_for(route, mode, ceiling)
    with Reader(obj.db) as reader:
        plan = reader.plan(route, wiring.chosen(reader, *selection), wiring.builder(profile))
    each = plan.average_cost_microusd
    price = profile.route(route).price_microusd
    expected = plan.to_send * (min(price, most) if each is None else each)
    cost = {"min": 0, "expected": expected, "max": plan.to_send * most}
    if as_json:
        output.emit_json(
            {
                "schema": 1,
                "jobs": {route: plan.to_send},
                "skipped": plan.skipped,
                "cost_microusd": cost,
                "balance_microusd": balance,
            }
        )
        return
    output.say(f"{plan.to_send:,} jobs on {route} ({mode}).")
    for reason, count in plan.skipped.items():
        output.say(f"  {count:,} leads skipped: {reason.replace('_', ' ')}.")
    basis = "the list price for each" if each is None else f"{usd(each)} each, as answered so far"
    output.say(f"  Expected {usd(expected)} ({basis}); at most {usd(cost['max'])}; nothing on no match.")
    if balance is not None:
        output.say(f"  The balance is {usd(balance)}: it carries {balance // most:,} jobs at a time.")


def _balance(
    profile_file: Path | None, base_url: str | None, key_file: Path | None, key_command: str | None
) -> int | None:
    """The balance if there is a key and the provider answers; a plan does not fail for the lack of it."""
    from ledger.api.client import Client
    from ledger.api.profile import Profile
    from ledger.clock import SystemClock
    from ledger.events import Balance

    profile = Profile.load(profile_file)
    try:
        key = wiring.api_key(key_file, key_command)
    except LeadledgerError:
        return None

    async def look() -> int | None:
        async with Client(base_url or profile.base_url, key, profile, SystemClock()) as client:
            reading = await client.balance()
        return reading.amount_microusd if isinstance(reading, Balance) else None

    return asyncio.run(look())
