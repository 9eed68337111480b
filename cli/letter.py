"""The claims as a letter to the provider: Markdown, every id, time, amount and raw body, and no secret.

What is in it the provider was sent or sent us. Bearers were cut out before a body was kept, and no key is
ever stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ledger.cli.output import clean
from ledger.money import usd

_ABOUT: Final = {
    "lost": "charged, or possibly charged, and no result was received",
    "above_ceiling": "charged above the ceiling we sent",
    "unattributed": "taken from the balance; we cannot tell for which of our calls",
    "gap": "missing from the balance, and not explained by anything we were told",
}
_IDS: Final = (
    ("our attempt", "attempt_id"),
    ("our idempotency key", "idempotency_key"),
    ("your job id", "remote_job_id"),
    ("route", "route"),
    ("mode", "mode"),
    ("sent at (UTC)", "sent_at"),
    ("ended at (UTC)", "ended_at"),
    ("HTTP status", "http_status"),
    ("error as we saw it", "error"),
    ("what is known", "evidence"),
)
_LANGUAGES: Final = ("{", "[")
_FENCE: Final = "`"


def lines(claims: Iterable[dict[str, Any]], written_at: str) -> Iterator[str]:
    """The letter, line by line.

    Args:
        claims: As `store.disputes.claims` gives them.
        written_at: The time it is written, as text.
    """
    yield "# Calls and charges to look into"
    yield ""
    yield f"Written {written_at} by leadledger. Amounts are US dollars, times are UTC."
    yield "Amounts marked *assumed* are the whole ceiling, because we were never told the price;"
    yield "an amount without a call may be the same money."
    for number, claim in enumerate(claims, 1):
        yield ""
        yield f"## {number}. {claim['kind'].replace('_', ' ').capitalize()}: {_ABOUT[claim['kind']]}"
        yield ""
        yield from _call(claim) if "attempt_id" in claim else _amount(claim)


def _amount(claim: dict[str, Any]) -> Iterator[str]:
    yield f"- amount: {usd(claim['amount_microusd'])}"
    yield f"- found at (UTC): {claim['at']}"
    yield f"- what is known: {clean(claim['evidence'])}"


def _call(claim: dict[str, Any]) -> Iterator[str]:
    for label, key in _IDS:
        if claim[key] is not None:
            yield f"- {label}: {clean(claim[key])}"
    assumed = " (assumed)" if claim["assumed"] else ""
    yield f"- ceiling: {usd(claim['ceiling_microusd'])}"
    yield f"- counted as charged: {usd(claim['charged_microusd'])}{assumed}"
    yield from _body("What we asked", claim["request"])
    for answer in claim["answers"]:
        status = "" if answer["http_status"] is None else f", HTTP {answer['http_status']}"
        yield from _body(f"What came ({answer['kind']}{status}) at {answer['received_at']}", answer["body"])
    if not claim["answers"]:
        yield ""
        yield "Nothing came that could be kept."


def _body(title: str, body: str | None) -> Iterator[str]:
    """A body between fences longer than any run of backticks in it, so that it cannot end them."""
    if body is None:
        return
    longest = max((len(run) for run in _runs(body)), default=0)
    fence = _FENCE * max(3, longest + 1)
    yield ""
    yield f"{title}:"
    yield ""
    yield fence + ("json" if body.startswith(_LANGUAGES) else "")
    yield from (clean(line) for line in body.splitlines())
    yield fence


def _runs(text: str) -> list[str]:
    return "".join(sign if sign == _FENCE else " " for sign in text).split()
