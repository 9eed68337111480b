"""Who may come in: keys, bearers, and the real limits."""

from __future__ import annotations

from ledger.sandbox import speech
from ledger.sandbox.provider import Provider
from ledger.sandbox.settings import Settings
from ledger.sandbox.wire import Answer, Request


def is_account_key(settings: Settings, token: str | None) -> bool:
    """Whether the token is an admin bearer or usage key that this sandbox accepts."""
    if token is None or token in settings.revoked_keys:
        return False
    return token in settings.keys if settings.keys else token.startswith(("411_", "411k_"))


def account_problem(provider: Provider, request: Request) -> Answer | None:
    """401 unless the request carries an accepted account key."""
    if is_account_key(provider.settings, request.token):
        return None
    return speech.error(provider.settings.speech, 401, "INVALID_TOKEN", "no such token, or it was revoked")


def paid_problem(provider: Provider, request: Request) -> Answer | None:
    """402 for an anonymous caller, 401 for a wrong key, 429 beyond a limit; None when the POST may go on."""
    settings = provider.settings
    if request.token is None:
        message = "paid routes need an agent token: mint one at /connect"
        return speech.error(settings.speech, 402, "AGENT_TOKEN_REQUIRED", message)
    if problem := account_problem(provider, request):
        return problem
    wait_s = provider.limits.wait_for_room(provider.books.running) or provider.limits.wait_for_token()
    return speech.throttled(settings, provider.clock, wait_s) if wait_s else None
