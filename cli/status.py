"""`leadledger status`: where everything stands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import options, output
from ledger.clock import SystemClock, later, to_text
from ledger.money import usd

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.cli.settings import Globals

_WINDOW_S = 600.0
"""The rate is that of the last ten minutes."""


@click.command(epilog="Example: leadledger status --watch")
@click.option("--watch", is_flag=True, help="Look again every 2 seconds until Ctrl+C.")
@options.common
@click.pass_obj
def command(obj: Globals, *, watch: bool, as_json: bool, yes: bool) -> None:
    """Jobs by state, money, rate and time left. Reads beside a running writer; never writes."""
    del yes
    while True:
        facts, rate = _look(obj.db)
        if as_json:
            output.emit_json(facts)
        else:
            _tell(facts, rate)
        if not watch:
            return
        time.sleep(2)


def _look(path: Path) -> tuple[dict[str, Any], float]:
    from ledger.store.lock import is_held, read_holder
    from ledger.store.read import Reader

    with Reader(path) as reader:
        counts, money, leads = reader.counts(), reader.money(), reader.leads()
        since = to_text(later(SystemClock().now(), -_WINDOW_S))
        rate = reader.finished_since(since) / _WINDOW_S
    alive = is_held(path)
    holder = read_holder(path) if alive else {}
    running = alive and holder.get("command") == "run"
    facts = {
        "schema": 1,
        "jobs": counts,
        "money": {
            "charged_microusd": money.charged_microusd,
            "held_microusd": money.held_microusd,
            "released_microusd": money.released_microusd,
            "unattributed_microusd": money.unattributed_microusd,
        },
        "leads": leads,
        "runner": {"alive": running, "pid": holder.get("pid") if running else None},
    }
    return facts, rate


def _tell(facts: dict[str, Any], rate: float) -> None:
    jobs, money, runner = facts["jobs"], facts["money"], facts["runner"]
    output.say(f"{facts['leads']:,} leads, {sum(jobs.values()):,} jobs")
    for state, count in jobs.items():
        if count:
            output.say(f"  {state.replace('_', ' '):11} {count:>9,}")
    output.say(
        f"charged {usd(money['charged_microusd'])} · held {usd(money['held_microusd'])} · "
        f"released {usd(money['released_microusd'])}"
        + (f" · unattributed {usd(money['unattributed_microusd'])}" if money["unattributed_microusd"] else "")
    )
    if runner["alive"]:
        left = jobs["queued"] + jobs["submitting"] + jobs["waiting"]
        eta = f", about {left / rate / 60:.0f} min left" if rate else ""
        output.say(f"running (process {runner['pid']}): {rate * 60:.0f} answers a minute{eta}")
    else:
        output.say("no run is on")
    if jobs["in_doubt"]:
        output.say(
            f"{jobs['in_doubt']} in doubt: sent, outcome unknown, money held. The next run audits them; "
            "`leadledger resolve` decides."
        )
