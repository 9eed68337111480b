"""A hostile wire, two hundred rounds a behaviour: every round a ledger, a sandbox and a proxy of its own.

    python tests/campaigns/wire.py --rounds 200 [--seed 1] [--only "POST swallow"] [--log FILE]

Each round draws its leads, its share of struck requests and the cuts from its seed, runs to the end and is
judged by the sandbox's books. One JSON line a behaviour, then a summary. The log is JSON Lines; a round that
is in it already is not run again, so the campaign can be stopped and continued. The controls must be caught
paying twice: a freeze shorter than the late acceptance, and a client that sends again whenever it is unsure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent / "wire"))

import blind
import points
import totals
from comparing import charged_twice
from driving import sandbox_settings, served
from faults import FAULTS, Fault, complaints, play
from proxy import Proxy, Rule

from ledger.sandbox.testing import tell

AT_ONCE: Final = 5
"""Rounds mostly wait, but each needs its answers within its deadline: more of them make false doubts."""
SHORT_FREEZE_S: Final = 30.0
"""With the client's deadline far shorter than the earliest of the late acceptances."""
LATE_S: Final = (1800.0, 2100.0)
DRAWS_MAX: Final = 5
"""A round in which nothing was struck shows nothing: so often it is drawn anew."""


@dataclass(slots=True)
class Totals:
    """What the rounds of one behaviour came to."""

    rounds: int = 0
    fired: int = 0
    struck: int = 0
    calls: int = 0
    doubts: int = 0
    states: Counter[str] = field(default_factory=Counter)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        self.rounds += 1
        self.fired += row["struck"] > 0
        self.struck += row["struck"]
        self.calls += row["calls"]
        self.doubts += row["doubts"]
        self.states.update(row["states"])
        if row["bad"]:
            self.bad.append(row)

    def line(self, label: str) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("rounds", "fired", "struck", "calls", "doubts")}
        return {"behaviour": label, **shown, "states": dict(self.states), "bad": len(self.bad)}


async def one_round(fault: Fault, seed: int, number: int) -> dict[str, Any]:
    """A round from its seed; the row for the log."""
    chance = Random(f"{seed} {number} {fault.label}")
    for _ in range(DRAWS_MAX):
        with tempfile.TemporaryDirectory() as folder:
            played = await play(
                Path(folder),
                fault,
                seed=chance.randrange(1_000_000),
                leads=chance.randint(3, 8),
                rate=chance.choice((0.3, 0.6, 1.0)),
                times=chance.randint(1, 3) if fault.method == "GET" else 1,
                at_most=chance.choice((1, None)),
            )
        if played.did[fault.behaviour]:
            break
    verdict = played.verdict
    return {
        "key": f"{seed}:{number}:{fault.label}",
        "struck": played.did[fault.behaviour],
        "calls": verdict.attempts,
        "doubts": verdict.doubts_ever,
        "states": verdict.states,
        "bad": complaints(fault, played),
    }


async def rounds_of(fault: Fault, rounds: int, seed: int, log: Path | None) -> Totals:
    """Run (or continue) the rounds of one behaviour."""
    done = points.read_log(log)
    found = Totals()
    turn = asyncio.Semaphore(AT_ONCE)

    async def go(number: int) -> None:
        row = done.get(f"{seed}:{number}:{fault.label}")
        if row is None:
            async with turn:
                row = await one_round(fault, seed, number)
            points.note(log, row)
        found.add(row)

    async with asyncio.TaskGroup() as group:
        for number in range(rounds):
            group.create_task(go(number))
    return found


# --- the controls ---


async def short_freezes(rounds: int, seed: int) -> int:
    """Rounds in which a freeze shorter than the late acceptance paid twice."""
    fault = next(one for one in FAULTS if one.behaviour == "accept_late")
    caught = 0
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            played = await play(
                Path(folder),
                fault,
                seed=seed + number,
                leads=3,
                rate=1.0,
                late_s=LATE_S,
                freeze_s=SHORT_FREEZE_S,
            )
        caught += bool(charged_twice(played.books))
    return caught


@asynccontextmanager
async def _dropping(seed: int) -> AsyncIterator[tuple[str, Proxy]]:
    settings = sandbox_settings(seed, 300.0, match_rate=1.0)
    async with served(settings) as url, Proxy(url, Rule("drop_answer", seed=seed)) as proxy:
        yield url, proxy


async def blind_resends(rounds: int, seed: int) -> int:
    """Rounds in which the client that sends again was charged twice."""
    caught = 0
    for number in range(rounds):
        async with _dropping(seed + number) as (url, proxy):
            await blind.submit(proxy.url, "Firm")
            await asyncio.to_thread(tell, url, "/sandbox/advance", {"seconds": 3600})
            caught += bool(charged_twice(await asyncio.to_thread(tell, url, "/sandbox/books")))
    return caught


async def campaign(wanted: argparse.Namespace) -> int:
    """All of it; returns the exit code."""
    begun = time.perf_counter()
    every = {fault.label: fault for fault in FAULTS if fault.label in (wanted.only or [fault.label])}
    found: dict[str, Totals] = {}
    for label, fault in every.items():
        found[label] = await rounds_of(fault, wanted.rounds, wanted.seed, wanted.log)
        _say(found[label].line(label))
    short = await short_freezes(wanted.control, wanted.seed)
    resent = await blind_resends(wanted.control, wanted.seed)
    bad = [row for one in found.values() for row in one.bad]
    silent = [label for label, one in found.items() if not one.struck]
    summary = {
        "campaign": "wire",
        "seed": wanted.seed,
        "behaviours": len(found),
        "rounds": sum(one.rounds for one in found.values()),
        "struck": sum(one.struck for one in found.values()),
        "paid_calls": sum(one.calls for one in found.values()),
        "never_fired": silent,
        "control_rounds": wanted.control,
        "control_short_freeze_caught": short,
        "control_blind_resend_caught": resent,
    }
    failed = f"never fired: {silent}" if silent else ""
    if min(short, resent) < wanted.control:
        failed = "a control was not caught"
    return totals.finish(summary, bad, begun=begun, record=wanted.record, failed=failed)


def _say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False)
    parser.add_argument("--rounds", type=int, default=200, help="of each behaviour")
    parser.add_argument("--only", action="append", choices=[fault.label for fault in FAULTS])
    parser.add_argument("--control", type=int, default=5, help="rounds of each control")
    sys.exit(asyncio.run(campaign(parser.parse_args())))


if __name__ == "__main__":
    main()
