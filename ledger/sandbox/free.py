"""The free GETs: a poll, the balance, who am I."""

from __future__ import annotations

from dataclasses import replace

from ledger.sandbox import speech
from ledger.sandbox.access import account_problem, is_account_key
from ledger.sandbox.books import Submission
from ledger.sandbox.dollars import spoken, to_microusd
from ledger.sandbox.faults import POLL
from ledger.sandbox.provider import Provider
from ledger.sandbox.wire import Answer, Request, html_answer, json_answer


def poll(provider: Provider, request: Request, job_id: str) -> Answer:
    """Where a job is: for its own bearer, and for an account key unless the settings forbid it."""
    settings = provider.settings
    wait_s = provider.limits.wait_for_token() if settings.limit_polls else 0.0
    if wait_s:
        return speech.throttled(settings, provider.clock, wait_s)
    if request.token is None:
        return speech.error(settings.speech, 401, "INVALID_TOKEN", "a poll needs its bearer")
    submission = provider.books.jobs.get(job_id)
    if submission is None or submission.mode != "async":
        return speech.error(settings.speech, 404, "JOB_NOT_FOUND", "no such job")
    own = request.token == submission.poll_bearer
    if not own and not (settings.account_key_polls and is_account_key(settings, request.token)):
        return speech.error(settings.speech, 403, "POLL_BEARER_REFUSED", "not the bearer of this job")
    submission.polls += 1
    return _tell(provider, submission)


def _tell(provider: Provider, submission: Submission) -> Answer:
    said = provider.settings.speech
    early = submission.polls <= provider.settings.unknown_word_polls
    if early and provider.faults.fires("unknown_word", submission.key):
        word = {"job_id": submission.remote_job_id, said.state_field: said.unknown_word}
        return json_answer(200, word)
    fault = provider.faults.first(POLL, f"{submission.key}|poll {submission.polls}")
    match fault:
        case "poll_500":
            return speech.error(said, 500, "INTERNAL_ERROR", "something went wrong")
        case "poll_html":
            return html_answer(502)
        case "poll_404":
            return speech.error(said, 404, "JOB_NOT_FOUND", "no such job")
    answer = json_answer(200, speech.polled(said, submission))
    return replace(answer, manner="cut") if fault == "poll_cut" else answer


def balance(provider: Provider, request: Request) -> Answer:
    """What the virtual balance is."""
    if problem := account_problem(provider, request):
        return problem
    settings = provider.settings
    said = settings.speech
    shown = provider.books.balance_microusd
    if provider.faults.fires("balance_wrong", f"balance {provider.requests['balance', '200']}"):
        shown -= to_microusd(settings.balance_wrong_usd)
    amount = spoken(shown, said.money_as, said.balance_decimals)
    return json_answer(200, {"agent_id": settings.agent_id, said.balance_field: amount})


def me(provider: Provider, request: Request) -> Answer:
    """Whose key it is."""
    if problem := account_problem(provider, request):
        return problem
    usage_key = (request.token or "").startswith("411k_")
    return json_answer(
        200, {"agent_id": provider.settings.agent_id, "key": "usage" if usage_key else "admin"}
    )
