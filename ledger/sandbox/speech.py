"""What the provider says: the bodies of section 14 of the provider notes, in the shapes of the settings."""

from __future__ import annotations

import base64
import json
import math
from email.utils import formatdate
from typing import Any

from ledger.sandbox.books import Submission
from ledger.sandbox.clock import VirtualClock
from ledger.sandbox.dollars import spoken
from ledger.sandbox.settings import Settings, Speech
from ledger.sandbox.wire import Answer, json_answer
from ledger.sandbox.world import findings


def accepted(speech: Speech, submission: Submission) -> dict[str, Any]:
    """The body of a 202."""
    return {
        "job_id": submission.remote_job_id,
        "poll_bearer": submission.poll_bearer,
        "billing_mode": "virtual_balance",
        speech.state_field: speech.words["queued"],
    }


def polled(speech: Speech, submission: Submission) -> dict[str, Any]:
    """The body of a poll that tells the truth."""
    body: dict[str, Any] = {
        "job_id": submission.remote_job_id,
        speech.state_field: speech.words[submission.state],
    }
    if submission.state == "failed":
        body["error"] = {"code": "VENDOR_TIMEOUT", "message": "the vendor did not answer in time"}
    if submission.state != "completed":
        return body
    result = findings(submission.route, submission.payload_sha256) if submission.matched else {}
    _place(speech, submission, body, result)
    if speech.result_at == "body":
        return {**body, **result}
    return {**body, speech.result_at: result}


def answered(speech: Speech, submission: Submission) -> dict[str, Any]:
    """The body of a sync call that completed: the result at top level."""
    result = findings(submission.route, submission.payload_sha256) if submission.matched else {}
    _place(speech, submission, result, result)
    return result


def _place(speech: Speech, submission: Submission, body: dict[str, Any], result: dict[str, Any]) -> None:
    if speech.flags_in != "absent":
        (result if speech.flags_in == "result" else body).update(
            matched=submission.matched,
            billed=submission.charged_microusd > 0,
            cache_hit=submission.cache_hit,
        )
    if submission.cost_unsaid or (submission.mode == "sync" and not speech.sync_states_cost):
        return
    place = result if speech.cost_in == "result" else body
    # What a late refund will bring back counts as refunded already: the provider has decided it.
    unused = submission.held_microusd + submission.refunded_microusd
    if speech.cost_field:
        place[speech.cost_field] = spoken(submission.charged_microusd, speech.money_as)
    if speech.refund_field:
        place[speech.refund_field] = spoken(unused, speech.money_as)


def error(speech: Speech, status: int, code: str, message: str, **more: object) -> Answer:
    """An error in the envelope the settings choose."""
    return json_answer(status, _envelope(speech, {"code": code, "message": message, **more}))


def invalid(where: tuple[str, ...], message: str) -> Answer:
    """A 422 as FastAPI writes it."""
    return json_answer(422, {"detail": [{"type": "value_error", "loc": ["body", *where], "msg": message}]})


def throttled(settings: Settings, clock: VirtualClock, wait_s: float) -> Answer:
    """A 429 that asks for `wait_s` real seconds, or says so in the way the settings choose."""
    seconds = max(1, math.ceil(wait_s))
    match settings.retry_after:
        case "absent":
            headers: tuple[tuple[bytes, bytes], ...] = ()
        case "seconds":
            headers = ((b"retry-after", str(seconds).encode()),)
        case "date":
            headers = ((b"retry-after", formatdate(clock.wall() + seconds, usegmt=True).encode()),)
        case text:
            headers = ((b"retry-after", text.encode()),)
    said = {"code": "RATE_LIMITED", "message": "too many requests, slow down"}
    return json_answer(429, _envelope(settings.speech, said), headers)


def no_money(settings: Settings, price_microusd: int, balance_microusd: int) -> Answer:
    """A 402 for a balance that does not cover the price, with its x402 challenge in the header."""
    speech = settings.speech
    accept = {
        "scheme": "upto",
        "network": "eip155:8453",
        "amount": str(price_microusd),
        "maxTimeoutSeconds": 1200,
    }
    challenge = base64.b64encode(json.dumps({"x402Version": 2, "accepts": [accept]}).encode())
    said = {
        "code": "PAYMENT_REQUIRED",
        "message": "the virtual balance does not cover this call",
        "billing_reason": "virtual_balance_insufficient",
        "required_usd": spoken(price_microusd, speech.money_as),
        speech.balance_field: spoken(balance_microusd, speech.money_as, speech.balance_decimals),
        "earn_credits_via_session_summary": {"path": "/api/v1/contributions/session-summary"},
    }
    return json_answer(402, _envelope(speech, said), ((b"payment-required", challenge),))


def _envelope(speech: Speech, said: dict[str, Any]) -> dict[str, Any]:
    return said if speech.error_shape == "flat" else {speech.error_shape: said}
