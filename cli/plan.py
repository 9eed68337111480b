"""`leadledger plan`: what a run would send and cost, before a cent is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli import options, output, progress, wiring
from ledger.clock import SystemClock
from ledger.errors import LeadledgerError
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.events import BalanceUnknown

_PATIENCE_S: Final = 2.0
"""A balance that takes longer is waited for aloud."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would send and cost; amounts in micro-dollars."""

    route: str
    mode: str
    jobs: int
    skipped: dict[str, int]
    ceiling: int
    each: int
    """What one job is expected to cost."""
    learned: bool
    """True when `each` comes from this ledger's answers, not from the price list."""
    latency_s: float
    """What one job is expected to take."""
    budget_left: int | None
    balance: int | None

    @property
    def expected(self) -> int:
        """What the jobs are expected to cost, all of them."""
        return self.jobs * self.each

    @property
    def within_budget(self) -> int:
        """Jobs after which the next hold would not fit the budget, at the expected cost."""
        if self.budget_left is None:
            return self.jobs
        if self.budget_left < self.ceiling:
            return 0
        affordable = self.jobs if not self.each else (self.budget_left - self.ceiling) // self.each + 1
        return min(self.jobs, affordable)

    def width(self, concurrency: int, in_flight: int) -> int:
        """Jobs at the provider at once."""
        bounds = [concurrency if self.mode == "sync" else in_flight]
        bounds += [money // self.ceiling for money in (self.balance, self.budget_left) if money is not None]
        return max(1, min(bounds))

    def seconds(self, concurrency: int, in_flight: int) -> int:
        """How long the jobs within the budget take, at the least."""
        turns = -(-self.within_budget // self.width(concurrency, in_flight))
        return round(turns * self.latency_s)


@click.command(epilog="Example: leadledger plan --route lead-session --import last --budget 50")
@options.selection
@options.budgets(required=False)
@options.pace
@options.provider
@options.common
@click.pass_obj
def command(
    obj: Globals,
    /,
    *,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    as_json: bool,
    yes: bool,
    **wishes: Any,
) -> None:
    """Say what `run` with the same options would do and cost. Makes no paid call and writes nothing.

    With a key it also asks for the balance, which is free; without an answer it plans without one.
    """
    del yes
    balance = _balance(profile, base_url, api_key_file, api_key_command)
    show_plan(obj, profile, wishes, balance, as_json=as_json)


def show_plan(
    obj: Globals, profile_file: Path | None, wishes: Mapping[str, Any], balance: int | None, *, as_json: bool
) -> None:
    """Show what a run with these options (by their names) would do."""
    forecast = _forecast(obj, profile_file, wishes, balance)
    seconds = forecast.seconds(wishes["concurrency"], wishes["in_flight"])
    cost = {"min": 0, "expected": forecast.expected, "max": forecast.jobs * forecast.ceiling}
    if as_json:
        output.emit_json(
            {
                "schema": 1,
                "jobs": {forecast.route: forecast.jobs},
                "skipped": forecast.skipped,
                "cost_microusd": cost,
                "balance_microusd": balance,
                "within_budget": forecast.within_budget,
                "seconds": seconds,
            }
        )
        return
    output.say(f"{forecast.jobs:,} jobs on {forecast.route} ({forecast.mode}).")
    for reason, count in forecast.skipped.items():
        output.say(f"  {count:,} leads skipped: {reason.replace('_', ' ')}.")
    each = forecast.each
    basis = f"{usd(each)} each, as answered so far" if forecast.learned else "the list price for each"
    output.say(
        f"  Expected {usd(cost['expected'])} ({basis}); at most {usd(cost['max'])}; nothing on no match."
    )
    if forecast.budget_left is not None:
        output.say(
            f"  {usd(forecast.budget_left)} of the budget is left: it should last for "
            f"{forecast.within_budget:,} of them, and no hold is written beyond it."
        )
    if balance is not None:
        output.say(f"  The balance is {usd(balance)}: it carries {balance // forecast.ceiling:,} at a time.")
    if forecast.jobs:
        width = forecast.width(wishes["concurrency"], wishes["in_flight"])
        at_once = min(width, forecast.jobs)
        output.say(f"  About {progress.duration(seconds)} at the least, {at_once:,} at a time.")


def _forecast(
    obj: Globals, profile_file: Path | None, wishes: Mapping[str, Any], balance: int | None
) -> Forecast:
    from ledger.api.profile import Profile
    from ledger.polling import Expectation
    from ledger.store.read import Reader

    profile = Profile.load(profile_file)
    route = wishes["route"]
    mode = profile.mode_for(route, wishes["mode"])
    ceiling = profile.ceiling_for(route, mode, wishes["ceiling"])
    with Reader(obj.db) as reader:
        selection = wiring.chosen(
            reader, wishes["import_name"], wishes["leads"], wishes["where"], wishes["limit"]
        )
        plan = reader.plan(route, selection, wiring.builder(profile))
        left = reader.budget_left(_caps(wishes), SystemClock().now(), new_budget=wishes["new_budget"])
        latency_s = Expectation(profile.policy(), route, reader.latencies(route)).median_s
    learned = plan.average_cost_microusd
    price = min(profile.route(route).price_microusd, ceiling)
    return Forecast(
        route,
        mode,
        plan.to_send,
        plan.skipped,
        ceiling,
        price if learned is None else learned,
        learned is not None,
        latency_s,
        left,
        balance,
    )


def _caps(wishes: Mapping[str, Any]) -> Any:
    from ledger.store.exposure import Caps

    return Caps(wishes["budget"], wishes["budget_day"], None, wishes["budget_total"])


def _balance(
    profile_file: Path | None, base_url: str | None, key_file: Path | None, key_command: str | None
) -> int | None:
    """The balance if there is a key and the provider answers; else None, and why not is told.

    A plan does not fail for the lack of it.
    """
    from ledger.api.client import Client
    from ledger.api.profile import Profile
    from ledger.events import Balance

    profile = Profile.load(profile_file)
    try:
        key = wiring.api_key(key_file, key_command)
    except LeadledgerError as problem:
        output.tell(f"Planned without the balance. {problem.what} {problem.next_step}")
        return None
    url = base_url or profile.base_url

    async def look() -> Balance | BalanceUnknown:
        async with Client(url, key, profile, SystemClock()) as client:
            reading = asyncio.create_task(client.balance())
            if not (await asyncio.wait({reading}, timeout=_PATIENCE_S))[0]:
                output.tell(f"Waiting for {url}, {profile.limits.poll_total_s:.0f} s at most …")
            return await reading

    found = asyncio.run(look())
    if isinstance(found, Balance):
        return found.amount_microusd
    why = "refuses the key" if found.not_allowed else "did not tell it"
    output.tell(f"Planned without the balance: {url} {why} ({found.error}).")
    return None
