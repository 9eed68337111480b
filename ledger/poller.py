"""Polling thousands of jobs over a few connections: a queue of due polls and a handful of workers.

A poll that says "still running" writes nothing. A final answer goes to the ledger before the job counts
as done.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from ledger import crashpoints
from ledger import events as ev
from ledger.api.gate import Gate
from ledger.api.provider import Provider
from ledger.clock import Clock, from_text, to_text
from ledger.errors import StaleWrite
from ledger.model import OpenJob, PaidCall
from ledger.policy import Policy
from ledger.polling import Expectation, Track
from ledger.store.ledger import Ledger
from ledger.transition import Transition
from ledger.waiting import wait_for

WORKERS: Final = 10
"""Polls in the air at once; httpx gets slower with every connection it holds (performance notes)."""
_SOONER: Final = 0.9
"""What a job that was done at its first poll teaches: to ask a little sooner next time."""

Settled = Callable[[OpenJob, Transition], Awaitable[None]]


class Poller:
    """Asks after every open job until it is final, the run drains or the job becomes unreachable.

    Args:
        ledger: Where answers go.
        provider: Who is asked.
        clock: The one clock.
        policy: Pauses and bounds.
        gate: Its brake holds for polls too.
        settled: Told of every step a poll made a job take.
        chance: A random number in 0..1, for the jitter.
    """

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        *,
        clock: Clock,
        policy: Policy,
        gate: Gate,
        settled: Settled,
        chance: Callable[[], float],
    ) -> None:
        self._ledger, self._provider, self._clock, self._policy = ledger, provider, clock, policy
        self._gate, self._settled, self._chance = gate, settled, chance
        self._writing: set[asyncio.Task[None]] = set()
        self._heap: list[tuple[float, int, OpenJob, Track]] = []
        self._order = itertools.count()
        self._live: dict[int, tuple[int, OpenJob, Track]] = {}
        """Job -> its one valid place in the queue, also while its poll is in the air."""
        self._earlier = asyncio.Event()
        self._turn = asyncio.Lock()
        self._expected: dict[str, Expectation] = {}
        self._silent_since: float | None = None
        self._began = clock.monotonic()
        self._waiting: set[int] = set()
        self.polls = 0

    def expect(self, route: str) -> Expectation:
        """What is known of a route's latency, from the ledger's own history when there is some."""
        if route not in self._expected:
            self._expected[route] = Expectation(self._policy, route, self._ledger.latencies(route))
        return self._expected[route]

    def silent_for_s(self) -> float:
        """Seconds since polls began to fail without one being answered; 0 while they are answered."""
        if self._silent_since is None or not self._live:  # nobody is asked, so nobody is silent
            return 0.0
        return self._clock.monotonic() - self._silent_since

    def add(self, job: OpenJob, *, at_once: bool = False) -> None:
        """Poll `job` from now on: `at_once` for what an earlier run left, else when it is usually done."""
        self.forget(job.job_id)
        now = self._clock.monotonic()
        age = max(0.0, (self._clock.now() - from_text(job.accepted_at)).total_seconds())
        if not job.in_doubt:
            self._waiting.add(job.job_id)
        wait = 0.0 if at_once else self.expect(job.route).first_s
        self._push(now + wait, job, Track(accepted=now - age))

    def ask_now(self, job_id: int) -> None:
        """Poll a job at once, if it is polled at all: somebody says that there is something to fetch."""
        if job_id in self._live:
            _, job, track = self._live[job_id]
            self._push(self._clock.monotonic(), job, track)

    def forget(self, job_id: int) -> None:
        """Poll it no more: something else has moved it. The answer to a poll in the air still counts."""
        self._live.pop(job_id, None)
        self._waiting.discard(job_id)

    def _is_live(self, job: OpenJob, order: int) -> bool:
        return job.job_id in self._live and self._live[job.job_id][0] == order

    @property
    def waiting(self) -> int:
        """Accepted jobs not yet settled (doubts not counted)."""
        return len(self._waiting)

    def _push(self, due: float, job: OpenJob, track: Track) -> None:
        if not self._live:
            self._silent_since = None
        earliest = self._heap[0][0] if self._heap else float("inf")
        order = next(self._order)
        self._live[job.job_id] = (order, job, track)
        heapq.heappush(self._heap, (due, order, job, track))
        if due < earliest:
            self._earlier.set()

    def look_again(self) -> None:
        """The brake was let go: what is due need not wait for its end."""
        self._earlier.set()

    async def run(self) -> None:
        """Poll what is due, for ever; the runner cancels this when nothing is left to ask."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            job, track, order = await self._next()
            await self._poll(job, track, order)

    async def _next(self) -> tuple[OpenJob, Track, int]:
        """The next job whose poll is due and whom no brake holds back. One worker waits for all."""
        async with self._turn:
            while True:
                now = self._clock.monotonic()
                brake = self._gate.braked_for_s()
                while self._heap and not self._is_live(self._heap[0][2], self._heap[0][1]):
                    heapq.heappop(self._heap)
                if self._heap and self._heap[0][0] <= now and brake <= 0:
                    _, order, job, track = heapq.heappop(self._heap)
                    return job, track, order
                self._earlier.clear()
                due = self._heap[0][0] - now if self._heap else None
                await wait_for(self._clock, self._earlier, due if due is None else max(due, brake))

    async def _poll(self, job: OpenJob, track: Track, order: int) -> None:
        self.polls += 1
        track.polls += 1
        event = await self._provider.poll(job)
        crashpoints.reach("poll_after")
        now = self._clock.monotonic()
        failed = isinstance(event, ev.PollFailed) and not event.throttled
        self._silent_since = (self._silent_since or now) if failed else None
        match event:
            case ev.Finished():
                self._learn(job.route, track)
                await self._record(job, track, event)
                return
            case ev.StillRunning(word, known, answer):
                track.note_answer(now)
                overdue = now - track.accepted >= self._policy.job_deadline_s
                news = not known and word not in track.words
                track.words.add(word)
                if (job.in_doubt and not overdue) or (news and answer is not None):
                    await self._record(job, track, event)
                    if job.in_doubt and not self._is_live(job, order):
                        return  # it waits again; of one given up meanwhile the answer may still come
            case ev.Gone():
                track.note_gone(now)
            case ev.PollFailed(retry_after_s=wait, throttled=throttled):
                if throttled:
                    self._gate.hold_off(wait if wait is not None else self._policy.throttled_wait_s)
        if not self._is_live(job, order):
            return  # moved, or asked after anew, while this poll was in the air
        why = None if job.in_doubt else track.unreachable(now, self._policy)
        if why is not None:
            await self._record(job, track, ev.BecameUnreachable(why))
            return
        self._push(now + self._pause(job, track, event), job, track)

    def _learn(self, route: str, track: Track) -> None:
        """How long a job took: nobody saw when it was done, only when it was last seen at work.

        The time of the poll that found it done would not do: it holds the round trip and the wait before
        it, so every job would teach the next one to be asked later still.
        """
        expected = self.expect(route)
        if track.answered:
            expected.saw(track.answered - track.accepted)
        elif track.accepted >= self._began:  # else nobody was there to look when it was done
            expected.saw(expected.first_s * _SOONER)

    def _pause(self, job: OpenJob, track: Track, event: ev.PollEvent) -> float:
        if job.in_doubt:
            return self._policy.doubt_poll_s * (0.9 + 0.2 * self._chance())
        asked = event.retry_after_s if isinstance(event, ev.PollFailed) else None
        pause = track.next_pause(self.expect(job.route), self._policy, self._chance())
        if isinstance(event, ev.Gone):
            # Spread the polls that decide over the time the rule asks for.
            spread = min(self._policy.freeze_s, self._policy.gone_spread_s)
            pause = max(pause, spread / (self._policy.gone_polls - 1))
        return max(pause, asked or 0.0)

    async def finish(self) -> list[BaseException]:
        """After `run` was cancelled: what is being written is written, and heard of; returns its errors."""
        done = await asyncio.gather(*self._writing, return_exceptions=True)
        return [error for error in done if error is not None]

    async def _record(self, job: OpenJob, track: Track, event: ev.Event) -> None:
        """Write what a poll said. A run that ends meanwhile does not cut this off: `finish` waits for it."""
        writing = asyncio.create_task(self._write(job, track, event))
        self._writing.add(writing)
        try:
            await asyncio.shield(writing)
        finally:
            if writing.done():
                self._writing.discard(writing)

    async def _write(self, job: OpenJob, track: Track, event: ev.Event) -> None:
        """The job goes on in its new state, if that one is polled."""
        try:
            step = await self._ledger.record(job.job_id, job.fence, event, polls=track.polls)
        except StaleWrite:
            if not job.in_doubt:
                raise
            return  # its doubt was closed by an audit and the job has gone on to another attempt
        crashpoints.reach("settle_after_commit")
        if step is None:
            return
        self.forget(job.job_id)
        await self._settled(job, step)


def accepted(call: PaidCall, step: Transition, now: datetime) -> OpenJob:
    """A call that was just accepted, ready to be polled."""
    return OpenJob(
        call.job_id,
        call.fence,
        call.route,
        in_doubt=False,
        remote_job_id=step.remote_job_id or "",
        bearer=step.bearer,
        accepted_at=to_text(now),
        ceiling_microusd=call.ceiling_microusd,
    )
