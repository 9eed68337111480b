"""How a run shows itself: one line that changes on a terminal, one plain line a minute elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from ledger.cli import output
from ledger.money import usd
from ledger.runner import Runner
from ledger.store.ledger import Ledger

_TERMINAL_S: Final = 0.2
_PLAIN_S: Final = 60.0


async def show(runner: Runner, ledger: Ledger, log_format: str, budget: int) -> None:
    """Show the run until cancelled; the first plain line comes at once."""
    watched = output.writes_over(sys.stderr) and log_format == "text"
    started = asyncio.get_running_loop().time()
    try:
        while True:
            seconds = asyncio.get_running_loop().time() - started
            facts = _facts(runner, ledger, seconds, budget)
            if watched:
                output.line.show(_line(facts))
            elif log_format == "json":
                output.tell(json.dumps({"event": "progress", **facts}))
            else:
                output.tell(_line(facts))
            await asyncio.sleep(_TERMINAL_S if watched else _PLAIN_S)
    finally:
        output.line.clear()


def _facts(runner: Runner, ledger: Ledger, seconds: float, budget: int) -> dict[str, Any]:
    progress = runner.progress
    done = progress.final.total()
    queued = ledger.ready_count(runner.options.rules.route)
    left = queued + progress.submitting + progress.waiting
    rate = done / seconds if seconds > 1 else 0.0
    return {
        "phase": progress.phase,
        "done": done,
        "submitting": progress.submitting,
        "waiting": progress.waiting,
        "queued": queued,
        "charged_microusd": progress.charged_microusd,
        "budget_microusd": budget,
        "rate_per_s": round(rate, 2),
        "eta_s": round(left / rate) if rate > 0 else None,
        "note": progress.note,
    }


def _line(facts: dict[str, Any]) -> str:
    eta = "" if facts["eta_s"] is None else f" · {duration(facts['eta_s'])} left"
    text = (
        f"{facts['done']:,} done · {facts['submitting'] + facts['waiting']:,} in flight · "
        f"{facts['queued']:,} queued · charged {usd(facts['charged_microusd'])} of "
        f"{usd(facts['budget_microusd'])} · {facts['rate_per_s']:.1f}/s{eta}"
    )
    return f"{text} · {output.clean(facts['note'])}" if facts["note"] else text


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
