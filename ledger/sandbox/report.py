"""`GET /sandbox/books`: everything the provider knows to be true, for tests to compare with."""

from __future__ import annotations

import json
from typing import Any

from ledger.sandbox.books import Submission
from ledger.sandbox.clock import iso
from ledger.sandbox.provider import Provider


def report(provider: Provider, *, submissions: bool) -> dict[str, Any]:
    """The books as one JSON object.

    Args:
        provider: Whose books; it must have caught up.
        submissions: Whether to list every submission, or only the totals.
    """
    books = provider.books
    now_s = provider.clock.now()
    told: dict[str, Any] = {
        "now": iso(now_s),
        "now_s": now_s,
        "seed": provider.settings.seed,
        "money": _money(provider),
        "counts": _counts(provider),
        "requests": _requests(provider),
        "faults": dict(sorted(provider.faults.fired.items())),
        "answers_lost": [one.remote_job_id for one in books.submissions if one.answer_lost],
        "duplicates": _duplicates(provider),
        "top_ups": [{"at": iso(at_s), "amount_microusd": amount} for at_s, amount in books.top_ups],
    }
    told["balanced"] = _balanced(told["money"])
    if submissions:
        told["submissions"] = [_entry(one) for one in books.submissions]
    return told


def _money(provider: Provider) -> dict[str, int]:
    books = provider.books
    return {
        "opening_microusd": books.opening_microusd,
        "top_ups_microusd": sum(amount for _, amount in books.top_ups),
        "charged_microusd": sum(one.charged_microusd for one in books.submissions),
        "refunded_microusd": sum(one.refunded_microusd for one in books.submissions),
        "held_microusd": sum(one.held_microusd for one in books.submissions),
        "balance_microusd": books.balance_microusd,
    }


def _balanced(money: dict[str, int]) -> bool:
    # The balance is kept as it moves, the other sums are taken over the submissions: they can disagree.
    paid_in = money["opening_microusd"] + money["top_ups_microusd"]
    return paid_in == money["balance_microusd"] + money["charged_microusd"] + money["held_microusd"]


def _counts(provider: Provider) -> dict[str, int]:
    books = provider.books
    completed = [one for one in books.submissions if one.state == "completed"]
    return {
        "accepted": len(books.submissions),
        "running": books.running,
        "completed": len(completed),
        "failed": len(books.submissions) - len(completed) - books.running,
        "matched": sum(one.matched for one in completed),
        "charged": sum(one.charged_microusd > 0 for one in books.submissions),
        "late_pending": provider.late_pending,
        "late_refused": provider.late_refused,
        "posts_at_once_max": provider.limits.posts_at_once_max,
    }


def _requests(provider: Provider) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (endpoint, status), count in sorted(provider.requests.items()):
        table.setdefault(endpoint, {})[status] = count
    return table


def _duplicates(provider: Provider) -> list[dict[str, Any]]:
    return [
        {
            "route": route,
            "payload_sha256": payload_sha256,
            "accepted": len(group),
            "charged": sum(one.charged_microusd > 0 for one in group),
            "remote_job_ids": [one.remote_job_id for one in group],
        }
        for (route, payload_sha256), group in provider.books.same.items()
        if len(group) > 1
    ]


def _entry(one: Submission) -> dict[str, Any]:
    return {
        "number": one.number,
        "remote_job_id": one.remote_job_id,
        "accepted_at": iso(one.accepted_at_s),
        "due_at": iso(one.due_at_s),
        "finished_at": None if one.finished_at_s is None else iso(one.finished_at_s),
        "route": one.route,
        "mode": one.mode,
        "payload": json.loads(one.payload),
        "payload_sha256": one.payload_sha256,
        "correlation": one.correlation,
        "idempotency_key": one.idempotency_key,
        "state": one.state,
        "matched": one.matched if one.state == "completed" else None,
        "cache_hit": one.cache_hit,
        "pre_charge_microusd": one.pre_charge_microusd,
        "charged_microusd": one.charged_microusd,
        "refunded_microusd": one.refunded_microusd,
        "held_microusd": one.held_microusd,
        "answer_lost": one.answer_lost,
        "polls": one.polls,
    }
