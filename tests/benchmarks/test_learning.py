"""What the night's benchmark found: a poller that learns from its own delays asks later and later."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from ledger import events as ev
from ledger.api.gate import Gate
from ledger.clock import later, to_text
from ledger.model import OpenJob
from ledger.policy import Policy
from ledger.poller import Poller
from ledger.states import ROUTES, State
from ledger.testing import FakeClock

ROUTE = ROUTES[-1]
ROUND_TRIP_S = 0.05
JOBS = 600
"""More than the poller remembers."""


class Provider:
    """Every job takes `work_s`, every answer a round trip."""

    def __init__(self, clock: FakeClock, work_s: float) -> None:
        self.clock, self.work_s = clock, work_s

    async def poll(self, job: OpenJob) -> ev.PollEvent:
        done = self.clock.monotonic() >= float(job.remote_job_id) + self.work_s
        await self.clock.sleep(ROUND_TRIP_S)
        if not done:
            return ev.StillRunning("running", known=True, answer=None)
        verdict = ev.Verdict(State.MATCHED, True, True, None, 0, None, "{}")  # noqa: FBT003 - flags of the wire
        return ev.Finished(verdict, ev.Answer("poll", 200, "{}"))


class Books:
    """A ledger without a past that only notes that a job is done."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    def latencies(self, _route: str) -> list[float]:
        return []

    async def record(self, *_: object, **__: object) -> None:
        self.done.set()


async def first_poll_after(work_s: float, *, told_s: float, age_s: float = 0.0) -> float:
    """When the poller asks first, having done `JOBS` jobs one after the other."""
    clock, books = FakeClock(), Books()
    policy = Policy(latency_s={ROUTE: (told_s, told_s)})
    unused: Any = None
    poller = Poller(
        cast("Any", books),
        cast("Any", Provider(clock, work_s)),
        clock=clock,
        policy=policy,
        gate=Gate(clock, 1),
        settled=unused,
        chance=lambda: 0.5,
    )
    polling = asyncio.create_task(poller.run())
    for number in range(JOBS):
        books.done.clear()
        accepted_at = to_text(later(clock.now(), -age_s))
        remote = str(clock.monotonic() - age_s)
        poller.add(OpenJob(number, 1, ROUTE, False, remote, None, accepted_at), at_once=age_s > 0)  # noqa: FBT003 - in_doubt
        await books.done.wait()
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    return poller.expect(ROUTE).first_s


def test_round_trips_do_not_add_up() -> None:
    assert asyncio.run(first_poll_after(0.0, told_s=1.0)) < 1.0


def test_a_job_that_always_takes_as_long_is_asked_after_about_that_long() -> None:
    assert 9.0 <= asyncio.run(first_poll_after(10.0, told_s=5.0)) <= 10.0 + 2 * ROUND_TRIP_S


def test_the_time_in_which_nobody_ran_is_no_latency() -> None:
    assert asyncio.run(first_poll_after(0.0, told_s=1.0, age_s=20_000.0)) == 1.0
