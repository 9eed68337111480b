"""A whole run over a wire: the real Ledger on disk, the real Client on sockets, the real Runner."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ledger import events as ev
from ledger.api.client import Client
from ledger.api.gate import Gate
from ledger.api.profile import Profile
from ledger.cli.wiring import builder
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.orders import Options
from ledger.runner import Runner
from ledger.sandbox.settings import Settings
from ledger.sandbox.testing import KEY, running
from ledger.states import StopReason
from ledger.store.claims import ClaimRules
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import START

ROUTE: Final = "enrich/websearch"
PATIENCE_S: Final = 1_000_000.0
"""Virtual seconds of silence a run bears: at this speed the real default would pass in a moment."""
OPENING_USD: Final = "1000.123457"


class SpedClock:
    """`ledger.clock.Clock`, so many times faster than the wall: real sockets, virtual hours."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._began = time.monotonic()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)


@dataclass(frozen=True, slots=True)
class Way:
    """How a run is driven. Virtual seconds, except where the name says real."""

    speed: float = 300.0
    freeze_s: float = 60.0
    settle_s: float = 6.0
    deadline_real_s: float = 5.0
    """Of paid POSTs."""
    poll_deadline_real_s: float = 5.0
    concurrency: int = 5
    clock: SpedClock = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", SpedClock(self.speed))

    def profile(self, folder: Path) -> Profile:
        """The built-in profile with these deadlines over it, through a file as a user would."""
        file = folder / "profile.toml"
        file.write_text(
            f"freeze_s = {self.freeze_s}\nrefund_settle_s = {self.settle_s}\n[limits]\nconnect_s = 5.0\n"
            f"submit_total_s = {self.deadline_real_s}\npoll_total_s = {self.poll_deadline_real_s}\n",
            encoding="utf-8",
        )
        return Profile.load(file)


def sandbox_settings(seed: int, speed: float, **changes: Any) -> Settings:
    """A provider whose time runs as fast as the run's; jobs take 5 to 30 virtual seconds."""
    return replace(Settings(seed=seed, opening_usd=OPENING_USD, speed=speed), **changes)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str]:
    """A sandbox in a thread; stopping it does not stand in this loop's way."""
    stack = ExitStack()
    url = stack.enter_context(running(settings))
    try:
        yield url
    finally:
        await asyncio.to_thread(stack.close)


def open_ledger(folder: Path, way: Way, companies: Sequence[str]) -> Ledger:
    """A new ledger with one lead a company, or the one that is there."""
    policy = way.profile(folder).policy()
    ledger = Ledger(folder / "leads.db", "wire", clock=way.clock, migrations=migrations, policy=policy)
    rows = [
        SourceRow(
            line,
            json.dumps({"Company": name}),
            tuple(name if column == "company" else None for column in LEAD_FIELDS),
            Keys(None, None, name, None),
        )
        for line, name in enumerate(companies, 2)
    ]
    ledger.import_rows(FileFacts("wire.csv", "sha-wire", "file", {}, (), "utf-8", ","), rows)
    return ledger


async def drive(
    ledger: Ledger,
    url: str,
    way: Way,
    *,
    audit: bool = True,
    beside: Callable[[Runner], Coroutine[None, None, None]] | None = None,
) -> StopReason:
    """One run from recovery to its end, as the command line does it; `beside` goes on at the same time."""
    profile = way.profile(ledger.path.parent)
    policy = profile.policy(unreachable_after_s=PATIENCE_S, doubts_breaker=1000)  # faults on purpose
    caps = Caps(chain_microusd=500_000_000)
    async with Client(url, ev.Secret(KEY), profile, way.clock) as client:
        ledger.recover()
        ledger.begin_run(origin=url, settings={}, caps=caps)
        opening = await _opening(client)
        ledger.note_balance("opening" if ledger.may_rebase() else "reading", opening)
        ledger.enqueue(ROUTE, "async", Selection(), builder(profile))
        runner = Runner(
            ledger,
            client,
            Gate(way.clock, way.concurrency),
            clock=way.clock,
            policy=policy,
            options=Options(
                rules=ClaimRules(ROUTE, "async", profile.ceiling_for(ROUTE, "async"), caps),
                audit=audit,
                post_deadline_s=way.deadline_real_s * way.speed,
            ),
        )
        other = None if beside is None else asyncio.create_task(beside(runner))
        reason = await runner.run()
        if other is not None:
            await other
    ledger.end_run(reason)
    return reason


async def _opening(client: Client) -> ev.Balance:
    """The balance before anything is paid; asked again where a slow machine let a short deadline pass."""
    for _ in range(5):
        reading = await client.balance()
        if isinstance(reading, ev.Balance):
            return reading
    raise AssertionError(reading)
