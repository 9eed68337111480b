"""A bench for the runner: a provider in memory whose answers are scripted, and virtual time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import pytest

from ledger import events as ev
from ledger.api.delivery import read_delivery
from ledger.api.gate import Gate
from ledger.api.profile import Profile
from ledger.clock import to_text
from ledger.model import LEAD_FIELDS, FileFacts, Keys, OpenJob, PaidCall, SourceRow
from ledger.orders import Options
from ledger.policy import Policy
from ledger.runner import Runner
from ledger.states import State, StopReason
from ledger.store import inbox
from ledger.store.claims import ClaimRules
from ledger.store.control import Chosen
from ledger.store.enqueue import Asked, Lacks
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import FakeClock

ROUTE = "enrich/websearch"
CEILING = 1_500_000
COST = 400_000
OPENING = 100_000_000


@dataclass
class FakeProvider:
    """Accepts every call, works `work_s` virtual seconds, charges `cost`; a script may say otherwise.

    `posts_say` and `polls_say` are used up first; each entry is an event, or makes one from its argument.
    """

    clock: FakeClock
    post_s: float = 0.1
    poll_s: float = 0.05
    balance_s: float = 0.0
    work_s: float = 10.0
    cost: int = COST
    posts_say: deque[Any] = field(default_factory=deque)
    polls_say: deque[Any] = field(default_factory=deque)
    balances_say: deque[Any] = field(default_factory=deque)
    digit_microusd: int = 1
    taken_microusd: int = 0
    """What is gone from the balance: charges, pre-charges still out, and whatever a test takes."""
    posts: list[PaidCall] = field(default_factory=list)
    posted_at: list[float] = field(default_factory=list)
    polls: list[str] = field(default_factory=list)
    polled_at: list[float] = field(default_factory=list)
    balances: int = 0
    due: dict[str, float] = field(default_factory=dict)
    in_air: int = 0
    in_air_max: int = 0
    polling: int = 0
    polling_max: int = 0
    open_max: int = 0
    done: set[str] = field(default_factory=set)

    def accept(self, call: PaidCall) -> ev.Accepted:
        remote = f"remote-{call.job_id}-{call.fence}"
        self.due[remote] = self.clock.monotonic() + self.work_s
        self.taken_microusd += call.ceiling_microusd
        self.open_max = max(self.open_max, len(self.due) - len(self.done))
        answer = ev.Answer("accepted", 202, json.dumps({"job_id": remote}))
        return ev.Accepted(remote, ev.Secret(f"pb-{remote}"), "virtual_balance", answer)

    async def submit(self, call: PaidCall) -> ev.PostEvent:
        self.posts.append(call)
        self.posted_at.append(self.clock.monotonic())
        self.in_air += 1
        self.in_air_max = max(self.in_air_max, self.in_air)
        said = self.posts_say.popleft() if self.posts_say else self.accept
        try:
            await self.clock.sleep(self.post_s)
            event: ev.PostEvent = said(call) if callable(said) else said
        finally:
            self.in_air -= 1
        return event

    async def poll(self, job: OpenJob) -> ev.PollEvent:
        self.polls.append(job.remote_job_id)
        self.polled_at.append(self.clock.monotonic())
        self.polling += 1
        self.polling_max = max(self.polling_max, self.polling)
        said = self.polls_say.popleft() if self.polls_say else self.look
        try:
            await self.clock.sleep(self.poll_s)
        finally:
            self.polling -= 1
        event: ev.PollEvent = said(job) if callable(said) else said
        return event

    def look(self, job: OpenJob) -> ev.PollEvent:
        due = self.due.get(job.remote_job_id)
        if due is None:
            return gone()
        if self.clock.monotonic() < due:
            return ev.StillRunning("running", known=True, answer=None)
        if job.remote_job_id not in self.done:
            self.done.add(job.remote_job_id)
            self.taken_microusd -= (job.ceiling_microusd or 0) - self.cost
        return finished(self.cost)

    async def balance(self) -> ev.Balance | ev.BalanceUnknown:
        self.balances += 1
        await self.clock.sleep(self.balance_s)
        said = self.balances_say.popleft() if self.balances_say else None
        if said is not None:
            return said
        return ev.Balance(OPENING - self.taken_microusd, self.digit_microusd, "agent")

    async def aclose(self) -> None:
        """Nothing to close."""


def finished(cost: int | None = COST, state: State = State.MATCHED) -> ev.Finished:
    failed = state is State.FAILED
    verdict = ev.Verdict(
        state, state is State.MATCHED, not failed, None, cost, "VENDOR" if failed else None, "{}"
    )
    return ev.Finished(verdict, ev.Answer("poll", 200, '{"status": "completed"}'))


def gone() -> ev.Gone:
    return ev.Gone(404, ev.Answer("poll", 404, "{}"))


def throttled(retry_after_s: float | None = 30.0) -> ev.Throttled:
    return ev.Throttled(retry_after_s, ev.Answer("odd", 429, ""))


def no_money() -> ev.NoMoney:
    return ev.NoMoney("PAYMENT_REQUIRED", "not covered", ev.Answer("odd", 402, ""))


def refused(code: str = "BAD_INPUT") -> ev.Refused:
    return ev.Refused(422, code, "field required", ev.Answer("refused", 422, "{}"))


def not_allowed() -> ev.NotAllowed:
    return ev.NotAllowed(401, "INVALID_TOKEN", "no such token", ev.Answer("odd", 401, ""))


def unknown() -> ev.Unknown:
    return ev.Unknown("read_timeout", None, None)


def build(_route: str, lead: Mapping[str, str]) -> Asked | Lacks:
    company = lead.get("company")
    if company is None:
        return Lacks(("company",))
    return Asked(json.dumps({"business_name": company}), f"key-{company}")


class Bench:
    """One open ledger with leads, one scripted provider, and runs over both."""

    say = type(
        "Say",
        (),
        {
            "finished": staticmethod(finished),
            "gone": staticmethod(gone),
            "throttled": staticmethod(throttled),
            "no_money": staticmethod(no_money),
            "refused": staticmethod(refused),
            "not_allowed": staticmethod(not_allowed),
            "unknown": staticmethod(unknown),
        },
    )

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        self.ledger, self.clock = ledger, clock
        self.ledger.books.read_delivery = partial(read_delivery, Profile.load())
        self.provider = FakeProvider(clock)
        self.policy = Policy()
        self.runner: Runner | None = None
        self.gate: Gate | None = None
        self._files = count(1)
        self._leads = count(1)

    def leads(self, number: int, company: str = "company") -> None:
        rows = []
        for line in range(2, number + 2):
            name = f"{company} {next(self._leads)}"
            fields = tuple(name if field == "company" else None for field in LEAD_FIELDS)
            rows.append(SourceRow(line, json.dumps({"Company": name}), fields, Keys(None, None, name, None)))
        facts = FileFacts(
            f"{next(self._files)}.csv", f"sha-{company}-{next(self._files)}", "file", {}, (), "utf-8", ","
        )
        self.ledger.import_rows(facts, rows)

    def prepare(
        self,
        caps: Caps | None = None,
        *,
        concurrency: int = 5,
        selection: Selection | None = None,
        ceiling: int = CEILING,
        new_budget: bool = False,
        **options: Any,
    ) -> Runner:
        """A run, begun as the command line begins it: recovered, balance noted, enqueued."""
        ledger, wanted, caps = self.ledger, selection or Selection(), caps or Caps()
        ledger.recover()
        ledger.begin_run(origin="http://127.0.0.1:9", settings={}, caps=caps, new_budget=new_budget)
        opening = ev.Balance(OPENING - self.provider.taken_microusd, self.provider.digit_microusd, "agent")
        ledger.note_balance("opening" if ledger.may_rebase() else "reading", opening)
        ledger.enqueue(ROUTE, "async", wanted, build)
        self.gate = Gate(self.clock, concurrency, chance=lambda: 0.5)
        self.runner = Runner(
            ledger,
            self.provider,
            self.gate,
            clock=self.clock,
            policy=self.policy,
            options=Options(rules=ClaimRules(ROUTE, "async", ceiling, caps), limit=wanted.limit, **options),
            chance=lambda: 0.5,
        )
        return self.runner

    def run(
        self, caps: Caps | None = None, *, beside: Callable[[], Any] | None = None, **rest: Any
    ) -> StopReason:
        """A whole run; `beside` makes a coroutine that goes on at the same time."""
        runner = self.prepare(caps, **rest)

        async def both() -> StopReason:
            other = None if beside is None else asyncio.create_task(beside())
            reason = await runner.run()
            if other is not None:
                await other
            return reason

        reason = asyncio.run(both())
        self.ledger.end_run(reason)
        return reason

    async def until(self, true: Callable[[], bool], turns: int = 20_000) -> None:
        """Let the loop turn until something is so; fails instead of hanging."""
        for _ in range(turns):
            if true():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never came to be so")

    # --- the inbox ---

    def wish(self, kind: str, **named: Any) -> None:
        """Drop a wish as another process does: a file, and nothing else."""
        chosen = Chosen(**{"as_of": to_text(self.clock.now()), **named})
        inbox.drop(self.ledger.path, kind, chosen.to_json(), now=self.clock.now())

    def deliver(self, **said: Any) -> None:
        """Drop a delivery as the receiver does."""
        raw = json.dumps({"event_type": "enrich.job_completed", **said}).encode()
        body = inbox.delivery(raw, received_at=self.clock.now(), delivery_id=None)
        inbox.drop(self.ledger.path, "delivery", body, now=self.clock.now())

    def with_policy(self, **changes: Any) -> None:
        self.policy = replace(self.policy, **changes)

    # --- what the ledger says ---

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.ledger.books.connection.execute(query, parameters).fetchall()

    def one(self, query: str, *parameters: object) -> Any:
        return self.sql(query, *parameters)[0][0]

    def states(self) -> dict[str, int]:
        return dict(self.sql("SELECT state, COUNT(*) FROM jobs GROUP BY state"))

    def attempts(self) -> int:
        return int(self.one("SELECT COUNT(*) FROM attempts"))

    def money(self, kind: str) -> int:
        return int(self.one("SELECT COALESCE(SUM(amount_microusd), 0) FROM costs WHERE kind = ?", kind))

    def rows(self) -> dict[str, int]:
        """How many rows every table has."""
        names = [
            name for (name,) in self.sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        return {name: self.one(f'SELECT COUNT(*) FROM "{name}"') for name in names}

    def conclusions(self) -> list[str]:
        return [text for (text,) in self.sql("SELECT conclusion FROM balance_checks WHERE kind = 'audit'")]


@pytest.fixture
def bench(ledger: Ledger, clock: FakeClock) -> Bench:
    return Bench(ledger, clock)
