"""The history of a job in sentences, one for each reason it moves: `show` and the browser say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ledger.money import usd

SENTENCES: Final[dict[str, str]] = {
    "enqueued": "written down to be asked",
    "retried": "written down to be asked again",
    "resent": "written down again, because a person asked to resend it",
    "claimed": "sent (attempt {attempt}), {ceiling} set aside",
    "suppressed": "skipped: the lead has opted out",
    "lacks_fields": "skipped: the lead lacks what the route needs",
    "cancelled_by_person": "cancelled by a person",
    "accepted": "accepted by the provider as {remote}",
    "answered": "answered at once: {to}",
    "refused": "refused by the provider ({error}); the money is released",
    "provider_failed": "failed at the provider ({error})",
    "not_sent": "no connection ({error}): surely not sent, the money is released",
    "throttled": "the provider asked to slow down: back in the queue, the money is released",
    "no_money": "the balance did not cover it: back in the queue",
    "not_allowed": "the provider refused the key: back in the queue",
    "outcome_unknown": "in doubt: {error}; it may have been accepted, the money stays set aside",
    "found_at_start": "in doubt: the runner was killed while this call was in the air",
    "completed": "done: {to}",
    "unreachable": "in doubt: {evidence}",
    "same_key_resend": "sent again with the same key",
    "poll_evidence": "doubt closed by a poll: {to}",
    "delivery_evidence": "settled by a delivery: {to}",
    "accepted_by_person": "a person named the provider's job: {remote}",
    "proved_free": "doubt closed: {evidence}; back in the queue",
    "audit_charged": "lost: the audit shows it was charged and the answer is gone ({evidence})",
    "written_off": "lost: written off by a person ({evidence})",
    "resent_by_person": "lost: a person asked to resend it ({evidence})",
    "late_answer": "a late answer settled it: {to}",
}
"""Reason -> what happened, with what the step's row knows filled in."""


def step_sentence(step: Mapping[str, Any]) -> str:
    """What one step of a job's history says; it quotes the provider, so escape it where it is shown.

    Args:
        step: `reason`, `to_state`, `attempt`, `ceiling_microusd`, `remote_job_id`, `error`, `evidence`.
    """
    ceiling = step["ceiling_microusd"]
    text: str = SENTENCES.get(step["reason"], step["reason"])
    return text.format(
        attempt=step["attempt"],
        ceiling="" if ceiling is None else usd(ceiling),
        remote=step["remote_job_id"] or "?",
        error=step["error"] or "no reason given",
        evidence=step["evidence"] or "no evidence noted",
        to=step["to_state"].replace("_", " "),
    )
