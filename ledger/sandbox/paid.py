"""The paid POSTs: an async job, or a sync route that works while the client waits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ledger.sandbox import speech
from ledger.sandbox.access import paid_problem
from ledger.sandbox.books import BalanceShort, Submission
from ledger.sandbox.dollars import to_microusd
from ledger.sandbox.faults import AFTER, AFTER_FIRST_JOB, AFTER_JOB, BEFORE, LOSING
from ledger.sandbox.provider import MAX_SUBMISSIONS, KeyReused, Order, Provider
from ledger.sandbox.settings import Settings
from ledger.sandbox.wire import MAX_BODY_BYTES, Answer, Request, html_answer, json_answer
from ledger.sandbox.world import canonical, correlation, fingerprint


class _Invalid(Exception):
    def __init__(self, message: str, *where: str) -> None:
        super().__init__(message)
        self.message, self.where = message, where


async def take(provider: Provider, request: Request, route: str | None) -> Answer:
    """Answer a paid POST.

    Args:
        provider: Takes the order.
        request: The POST.
        route: Of a sync call; None for `enrich/jobs`, where the body names it.
    """
    said = provider.settings.speech
    if problem := paid_problem(provider, request):
        return problem
    if len(request.body) > MAX_BODY_BYTES:
        return speech.error(said, 413, "TOO_LARGE", "the body is too large")
    if len(provider.books.submissions) >= MAX_SUBMISSIONS:
        return speech.error(said, 503, "SANDBOX_FULL", "the sandbox keeps its books in memory and is full")
    try:
        order = _read_order(provider, request, route)
    except _Invalid as wrong:
        return speech.invalid(wrong.where, wrong.message)
    earlier = provider.books.last_job
    if fault := provider.faults.first(BEFORE, order.key):
        return _refuse(provider, order, fault)
    try:
        submission = provider.accept(order)
    except BalanceShort:
        return speech.no_money(provider.settings, order.ceiling_microusd, provider.books.balance_microusd)
    except KeyReused:
        message = "this Idempotency-Key belongs to another request"
        return speech.error(said, 409, "IDEMPOTENCY_KEY_REUSED", message)
    return await _answer_accepted(provider, submission, order, earlier)


def _read_order(provider: Provider, request: Request, route: str | None) -> Order:
    settings = provider.settings
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise _Invalid("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _Invalid("the body is not an object")
    if route is None:
        mode, payload = "async", body.get("payload")
        route = body.get("route")
        if not isinstance(route, str) or route not in settings.async_routes:
            raise _Invalid(f"one of {', '.join(settings.async_routes)}", "route")
        ceiling = _ceiling(settings, body)
    else:
        mode, payload = "sync", body
        ceiling = to_microusd(settings.prices_usd[route])
    where = ("payload",) if mode == "async" else ()
    if not isinstance(payload, dict) or not payload:
        raise _Invalid("field required", *where)
    for field in settings.required_fields.get(route, ()):
        if payload.get(field) in (None, "", {}, []):
            raise _Invalid("field required", *where, field)
    payload_sha256 = fingerprint(payload)
    return Order(
        route=route,
        mode=mode,
        payload=canonical(payload),
        payload_sha256=payload_sha256,
        correlation=correlation(payload),
        idempotency_key=request.header(b"idempotency-key") or None,
        ceiling_microusd=ceiling,
        key=provider.name(route, payload_sha256),
    )


def _ceiling(settings: Settings, body: dict[str, Any]) -> int:
    stated = body.get("bill_up_to_usd")
    if stated is None:
        return to_microusd(settings.default_ceiling_usd)
    try:
        ceiling = to_microusd(stated)
    except ValueError as wrong:
        raise _Invalid(str(wrong), "bill_up_to_usd") from None
    if not 50_000 <= ceiling <= to_microusd(settings.max_ceiling_usd):
        raise _Invalid(f"between 0.05 and {settings.max_ceiling_usd}", "bill_up_to_usd")
    return ceiling


def _refuse(provider: Provider, order: Order, fault: str) -> Answer:
    match fault:
        case "error_500_before":
            return speech.error(provider.settings.speech, 500, "INTERNAL_ERROR", "something went wrong")
        case "html_page":
            return html_answer(502)
        case "throttle":
            return speech.throttled(provider.settings, provider.clock, 1.0)
        case "no_money":
            books = provider.books
            return speech.no_money(provider.settings, order.ceiling_microusd, books.balance_microusd)
        case "late_accept":
            provider.accept_later(order)
    return Answer(0, manner="dropped")


async def _answer_accepted(
    provider: Provider, submission: Submission, order: Order, earlier: Submission | None
) -> Answer:
    said = provider.settings.speech
    faults = AFTER
    if submission.mode == "sync":
        await provider.clock.wait_until(submission.due_at_s)
        provider.catch_up()
        answer = _sync_answer(provider, submission)
    else:
        # The first job has no earlier id to repeat, and the answer to a repeated key must not repeat its own.
        faults = AFTER_JOB if earlier not in (None, submission) else AFTER_FIRST_JOB
        answer = json_answer(202, speech.accepted(said, submission), told=submission)
    fault = provider.faults.first(faults, order.key)
    submission.answer_lost = fault in LOSING
    match fault:
        case "lose_answer":
            return replace(answer, manner="dropped")
        case "error_500_after":
            return speech.error(said, 500, "INTERNAL_ERROR", "something went wrong")
        case "cut_body":
            return replace(answer, manner="cut")
        case "slow_bytes":
            return replace(answer, manner="slow")
        case "html_after":
            return html_answer(answer.status)
        case "refuse_charged":
            return speech.invalid((), "this request will not do")
        case "throttle_charged":
            return speech.throttled(provider.settings, provider.clock, 1.0)
        case None:
            return answer
    return json_answer(202, _spoilt(speech.accepted(said, submission), fault, earlier), told=submission)


def _sync_answer(provider: Provider, submission: Submission) -> Answer:
    said = provider.settings.speech
    if submission.state == "failed":
        return speech.error(said, 502, "VENDOR_TIMEOUT", "the vendor did not answer in time")
    return json_answer(200, speech.answered(said, submission), told=submission)


def _spoilt(body: dict[str, Any], fault: str, earlier: Submission | None) -> dict[str, Any]:
    if fault == "repeated_job_id":
        assert earlier is not None
        return {**body, "job_id": earlier.remote_job_id}
    missing = {"missing_job_id": "job_id", "missing_bearer": "poll_bearer"}[fault]
    return {name: value for name, value in body.items() if name != missing}
