"""One night over the real client, in virtual time, against a sandbox that shares the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from ledger.api.client import Client
from ledger.api.gate import Gate
from ledger.api.profile import Lacks as Missing
from ledger.api.profile import Profile, canonical_json, request_key
from ledger.events import Balance, Secret
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.orders import Options
from ledger.runner import Runner
from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.report import report
from ledger.sandbox.settings import Settings
from ledger.sandbox.testing import KEY
from ledger.states import StopReason
from ledger.store.claims import ClaimRules
from ledger.store.enqueue import Asked, Lacks
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import FakeClock

LEADS = 40


class Night:
    """One run over a new ledger against a sandbox that shares its virtual clock."""

    def __init__(
        self, ledger: Ledger, clock: FakeClock, settings: Settings, mode: str = "async", profile: Any = None
    ) -> None:
        self.ledger, self.clock, self.mode = ledger, clock, mode
        ledger.books.connection.execute("PRAGMA synchronous = OFF")  # nothing is killed in this file
        self.profile = profile or Profile.load()
        self.sandbox: Sandbox = create_app(
            settings, real=clock.monotonic, wall=lambda: clock.now().timestamp(), dropped=httpx.ReadError
        )
        rows = []
        for number in range(LEADS):
            company = f"Firm {number}"
            fields = tuple(company if name == "company" else None for name in LEAD_FIELDS)
            rows.append(SourceRow(number + 2, "{}", fields, Keys(None, None, company, None)))
        ledger.import_rows(FileFacts("leads.csv", "sha", "file", {}, (), "utf-8", ","), rows)

    def run(self) -> StopReason:
        return asyncio.run(self._run())

    async def _run(self) -> StopReason:
        ledger, profile, route = self.ledger, self.profile, "enrich/lead-session"
        network = lambda _limits: httpx.ASGITransport(self.sandbox)  # type: ignore[arg-type] # noqa: E731 - one line
        ledger.recover()
        caps = Caps(chain_microusd=200_000_000)
        ledger.begin_run(origin="http://127.0.0.1", settings={}, caps=caps)
        async with Client("http://127.0.0.1", Secret(KEY), profile, self.clock, network=network) as client:
            reading = await client.balance()
            shown = reading.amount_microusd if isinstance(reading, Balance) else None
            if isinstance(reading, Balance):
                ledger.note_balance("opening" if ledger.may_rebase() else "reading", reading)
            ledger.enqueue(route, self.mode, Selection(), self._build)
            rules = ClaimRules(route, self.mode, profile.ceiling_for(route, self.mode), caps)
            reason = await Runner(
                ledger,
                client,
                Gate(self.clock, 5),
                clock=self.clock,
                policy=profile.policy(),
                options=Options(
                    rules,
                    balance_microusd=shown,
                    same_key_rounds=3 if profile.honours_idempotency_key else 0,
                    audit=profile.balance_exclusive,
                    post_deadline_s=profile.deadline_s(self.mode),
                ),
            ).run()
        ledger.end_run(reason)
        return reason

    def _build(self, route: str, lead: Mapping[str, str]) -> Asked | Lacks:
        payload = self.profile.request_for(route, lead)
        assert not isinstance(payload, Missing)
        return Asked(canonical_json(payload), request_key(payload))

    def books(self) -> dict[str, Any]:
        self.sandbox.provider.catch_up()
        return report(self.sandbox.provider, submissions=True)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.ledger.books.connection.execute(query).fetchall()

    def check(self) -> None:
        """Nobody is charged twice, what we know is what they charged, and the ledger adds up."""
        books = self.books()
        assert books["balanced"]
        assert [group for group in books["duplicates"] if group["charged"] > 1] == []
        theirs = {one["remote_job_id"]: one["charged_microusd"] for one in books["submissions"]}
        known = self.sql(
            "SELECT a.remote_job_id, SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd "
            "ELSE 0 END), SUM(c.assumed) FROM attempts a JOIN costs c ON c.attempt_id = a.id "
            "JOIN jobs j ON j.id = a.job_id WHERE a.remote_job_id IS NOT NULL "
            "AND j.state IN ('matched', 'no_match', 'failed') GROUP BY a.id"
        )
        wrong = [(remote, cost) for remote, cost, assumed in known if not assumed and cost != theirs[remote]]
        assert wrong == []
        assert all(cost >= theirs[remote] for remote, cost, assumed in known if assumed)
        states = dict(self.sql("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        assert not {"submitting", "waiting"} & states.keys()
        assert sum(states.values()) == LEADS
        doubts = self.sql(
            "SELECT COALESCE(SUM(a.ceiling_microusd), 0) FROM jobs j JOIN attempts a ON a.job_id = j.id "
            "AND a.number = j.attempt WHERE j.state = 'in_doubt'"
        )
        held = self.sql(
            "SELECT SUM(CASE kind WHEN 'hold' THEN amount_microusd WHEN 'adjust' THEN 0 "
            "ELSE -amount_microusd END) FROM costs"
        )
        assert held == doubts


def settings(**more: Any) -> Settings:
    """A sandbox with $1,000, a seed, and answers that do not dawdle."""
    return Settings(
        **{"seed": 411, "opening_usd": "1000", "slow_byte_ms": 0.0, "retry_after": "seconds", **more}
    )
