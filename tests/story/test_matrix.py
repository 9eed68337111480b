"""Every fault and every way of speaking: a run over the real client, in virtual time, against the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ledger.api.client import Client
from ledger.api.gate import Gate
from ledger.api.profile import Lacks as Missing
from ledger.api.profile import Profile, canonical_json, request_key
from ledger.events import Balance, Secret
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.orders import Options
from ledger.runner import Runner
from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.faults import DELIVERY, FAULTS
from ledger.sandbox.report import report
from ledger.sandbox.settings import Settings, Speech
from ledger.sandbox.testing import KEY
from ledger.states import StopReason
from ledger.store.claims import ClaimRules
from ledger.store.enqueue import Asked, Lacks
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import FakeClock

LEADS = 40
RATE = 0.2
ENDS = {StopReason.FINISHED, StopReason.NO_FUNDS}
SYNC = {"enrich/lead-session": ("fixed", 0.0)}
SPEECHES: dict[str, dict[str, Any]] = {
    "state in `state`": {"state_field": "state"},
    "words of another house": {
        "words": {
            "queued": "Pending",
            "running": "in-progress",
            "completed": "Succeeded",
            "failed": "Errored",
        }
    },
    "result in `data`": {"result_at": "data"},
    "result in `output`": {"result_at": "output"},
    "result beside the id": {"result_at": "body"},
    "flags beside the result": {"flags_in": "body"},
    "no flags": {"flags_in": "absent"},
    "cost in `billed_usd`": {"cost_field": "billed_usd"},
    "cost in `cost_usd`": {"cost_field": "cost_usd"},
    "cost in the result": {"cost_in": "result"},
    "only what was refunded": {"cost_field": ""},
    "only what was charged": {"refund_field": ""},
    "no money said": {"cost_field": "", "refund_field": ""},
    "money as text": {"money_as": "text"},
    "money with a float's noise": {"money_as": "noisy"},
    "errors in `error`": {"error_shape": "error"},
    "errors in `detail`": {"error_shape": "detail"},
    "balance in cents": {"balance_decimals": 2},
    "balance in whole dollars": {"balance_decimals": 0},
    "balance under another name": {"balance_field": "credits"},
}
BESIDE = {"balance_wrong": {"refuse_before": 0.2}}
"""What must go wrong as well, so that the balance is read again."""
TROUBLE = {"fail_job": 0.1, "throttle": 0.05, "lose_answer": 0.05, "poll_500": 0.1}


class Night:
    """One run over a new ledger against a sandbox that shares its virtual clock."""

    def __init__(self, ledger: Ledger, clock: FakeClock, settings: Settings, mode: str = "async") -> None:
        self.ledger, self.clock, self.mode = ledger, clock, mode
        ledger.books.connection.execute("PRAGMA synchronous = OFF")  # nothing is killed in this file
        self.profile = Profile.load()
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
                options=Options(rules, post_deadline_s=profile.deadline_s(self.mode)),
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


def _settings(**more: Any) -> Settings:
    return Settings(
        **{"seed": 411, "opening_usd": "1000", "slow_byte_ms": 0.0, "retry_after": "seconds", **more}
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_survives_the_fault(ledger: Ledger, clock: FakeClock, fault: str) -> None:
    settings = _settings(faults=BESIDE.get(fault, {}) | {fault: RATE}, deliveries=fault in DELIVERY)
    night = Night(ledger, clock, settings)
    assert night.run() in ENDS
    assert night.books()["faults"].get(fault, 0) > 0
    night.check()
    # What stopped for money, or was left in doubt, is worked on; nothing that is final is asked again.
    assert night.run() in ENDS
    night.check()


@pytest.mark.parametrize(
    "fault", ["refuse_before", "late_accept", "lose_answer", "error_500_after", "html_after"]
)
def test_a_sync_run_survives_the_fault(ledger: Ledger, clock: FakeClock, fault: str) -> None:
    night = Night(ledger, clock, _settings(faults={fault: RATE}, latency_s=SYNC), mode="sync")
    assert night.run() in ENDS
    night.check()


@pytest.mark.parametrize("speech", SPEECHES)
def test_a_run_understands_the_speech(ledger: Ledger, clock: FakeClock, speech: str) -> None:
    night = Night(ledger, clock, _settings(speech=Speech(**SPEECHES[speech]), faults=TROUBLE))
    assert night.run() in ENDS
    night.check()
    books = night.books()
    answered = [one for one in books["submissions"] if not one["answer_lost"]]
    ours = dict(night.sql("SELECT a.remote_job_id, j.state FROM attempts a JOIN jobs j ON j.id = a.job_id"))
    for one in answered:
        if one["state"] == "failed":
            assert ours[one["remote_job_id"]] == "failed"
        elif SPEECHES[speech].get("flags_in") != "absent":
            assert ours[one["remote_job_id"]] == ("matched" if one["matched"] else "no_match")
    said = SPEECHES[speech]
    silent = said.get("cost_field") == "" and said.get("refund_field") == ""
    assert (night.sql("SELECT COUNT(*) FROM costs WHERE assumed = 1")[0][0] > 0) is silent


@pytest.mark.parametrize("states_cost", [True, False])
def test_a_sync_answer_is_read_with_and_without_its_cost(
    ledger: Ledger, clock: FakeClock, *, states_cost: bool
) -> None:
    speech = Speech(sync_states_cost=states_cost)
    night = Night(ledger, clock, _settings(speech=speech, latency_s=SYNC), mode="sync")
    assert night.run() is StopReason.FINISHED
    night.check()
    assert night.sql("SELECT COUNT(*) FROM jobs WHERE state IN ('matched', 'no_match')") == [(LEADS,)]
