"""Single facts read out of an answer: flags, costs, codes, words (provider notes, section 14). Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from ledger.api.jsontext import amount, at, dump, plain
from ledger.api.profile import Places, Profile
from ledger.events import BEARER, REMOTE_JOB_ID, Verdict
from ledger.states import State

Doc = dict[str, Any]

MESSAGE_LENGTH_MAX: Final = 1_000
"""A sentence for a person; the whole body is in the answer."""

_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FLAGS: Final = {"true": True, "false": False}


def is_remote_id(text: str) -> bool:
    """Whether `text` may be put into a URL: `../agents/balance` would carry the bearer elsewhere."""
    return REMOTE_JOB_ID.fullmatch(text) is not None


def remote_job_id(doc: Doc, places: Places) -> str | None:
    """The provider's job id as text, or None when there is none that may be used."""
    value = first(doc, places.job_id)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and is_remote_id(value) else None


def bearer(doc: Doc, places: Places) -> str | None:
    """The poll bearer, or None when there is none that can stand in a header."""
    value = first(doc, places.bearer)
    return value if isinstance(value, str) and BEARER.fullmatch(value) else None


def first(doc: Any, places: tuple[str, ...]) -> Any:
    """The value at the first of `places` that has one (null counts as none)."""
    return next((value for place in places if (value := at(doc, place)) is not None), None)


def state_word(doc: Doc, places: Places) -> str | None:
    """The state word in lower case, spaces and hyphens as underscores; None when there is none."""
    word = first(doc, places.state)
    if not isinstance(word, str):
        return None
    shown = plain(word, 64)
    return re.sub(r"[\s-]+", "_", shown.lower()) if shown else None


def flag(doc: Doc, result: Any, places: tuple[str, ...]) -> bool | None:
    """A yes or no in the result, else beside it; None (not said) is not False."""
    for value in (first(result, places), first(doc, places)):
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _FLAGS:
            return _FLAGS[value.strip().lower()]
    return None


def error_code(doc: Doc, places: Places) -> str | None:
    """The provider's error code, from the first place that holds something like a code."""
    for place in places.error_code:
        code = plain(at(doc, place), 65)
        if code and _CODE.fullmatch(code):
            return code
    return None


def error_message(doc: Doc, places: Places) -> str:
    """The provider's own sentence; FastAPI's list of details is shown as it is. Empty when there is none."""
    for place in places.error_message:
        value = at(doc, place)
        message = plain(dump(value) if isinstance(value, list) else value, MESSAGE_LENGTH_MAX)
        if message:
            return message
    return ""


def failure_inside(doc: Doc, places: Places) -> bool:
    """Whether an answer of a good status says in its body that it failed, and holds no result."""
    result = first(doc, places.result)
    return bool(first(doc, places.error)) and flag(doc, result, places.matched) is None and not result


def verdict(
    doc: Doc, profile: Profile, *, failed: bool, whole: bool, ceiling_microusd: int | None
) -> Verdict:
    """A final answer, whose secrets are cut out already.

    Args:
        doc: The whole answer.
        profile: Where everything is.
        failed: The provider says that it failed.
        whole: Keep the whole answer as the result, not only the part that the profile calls the result.
        ceiling_microusd: What was set aside for it, for answers that state only a refund; None if unknown.
    """
    places = profile.places
    inner = first(doc, places.result)
    result = doc if inner is None else inner
    matched = flag(doc, result, places.matched)
    billed = flag(doc, result, places.billed)
    cost, unreadable = _stated_cost(doc, result, places, ceiling_microusd)
    if cost is None and (billed is False or matched is False):
        cost = 0
    if cost is None and failed and not unreadable:
        cost = 0
    return Verdict(
        state=State.FAILED if failed else _found(matched=matched, billed=billed, cost=cost),
        matched=matched,
        billed=billed,
        cache_hit=flag(doc, result, places.cache_hit),
        cost_microusd=cost,
        error_code=(error_code(doc, places) or state_word(doc, places) or "failed") if failed else None,
        body=dump(doc if whole else result),
    )


def _found(*, matched: bool | None, billed: bool | None, cost: int | None) -> State:
    if matched is None:
        return State.NO_MATCH if billed is False or cost == 0 else State.MATCHED
    return State.MATCHED if matched else State.NO_MATCH


def _stated_cost(
    doc: Doc, result: Any, places: Places, ceiling_microusd: int | None
) -> tuple[int | None, bool]:
    """The cost an answer states, and whether it states one that cannot be read."""
    unreadable = False
    for place in places.cost:
        for part in (doc, result):
            value = at(part, place)
            cost = amount(value)
            if cost is not None:
                return cost, False
            unreadable = unreadable or value is not None
    refunded = _amount_in(doc, result, places.refunded)
    stated_ceiling = _amount_in(doc, result, places.ceiling)
    ceiling = ceiling_microusd if stated_ceiling is None else stated_ceiling
    if refunded is None or ceiling is None or refunded > ceiling:
        return None, unreadable
    return ceiling - refunded, False


def _amount_in(doc: Doc, result: Any, places: tuple[str, ...]) -> int | None:
    stated = (amount(at(part, place)) for place in places for part in (doc, result))
    return next((cost for cost in stated if cost is not None), None)
