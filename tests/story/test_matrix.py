"""Every fault and every way of speaking: a run over the real client, in virtual time, against the sandbox."""

from __future__ import annotations

from typing import Any

import pytest
from nights import LEADS, Night, settings

from ledger.sandbox.faults import DELIVERY, FAULTS
from ledger.sandbox.settings import Speech
from ledger.states import StopReason
from ledger.store.ledger import Ledger
from ledger.testing import FakeClock

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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_survives_the_fault(ledger: Ledger, clock: FakeClock, fault: str) -> None:
    sandbox = settings(faults=BESIDE.get(fault, {}) | {fault: RATE}, deliveries=fault in DELIVERY)
    night = Night(ledger, clock, sandbox)
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
    night = Night(ledger, clock, settings(faults={fault: RATE}, latency_s=SYNC), mode="sync")
    assert night.run() in ENDS
    night.check()


@pytest.mark.parametrize("speech", SPEECHES)
def test_a_run_understands_the_speech(ledger: Ledger, clock: FakeClock, speech: str) -> None:
    night = Night(ledger, clock, settings(speech=Speech(**SPEECHES[speech]), faults=TROUBLE))
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
    night = Night(ledger, clock, settings(speech=speech, latency_s=SYNC), mode="sync")
    assert night.run() is StopReason.FINISHED
    night.check()
    assert night.sql("SELECT COUNT(*) FROM jobs WHERE state IN ('matched', 'no_match')") == [(LEADS,)]
