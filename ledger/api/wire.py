"""What goes out in a paid POST, and what an answer means: replies to events.

Pure, and nothing that a provider can send makes it raise.

The classes of a paid POST are those of DESIGN, "How the outcome of a paid POST is read"; what the fields
are called is the profile's business. Every bearer and token is cut out of a body before it is kept.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger import events as ev
from ledger.api import reading
from ledger.api.jsontext import Unreadable, amount, at, dump, load_object, plain
from ledger.api.profile import Profile
from ledger.api.redact import cut_text, cut_value
from ledger.api.reply import NoReply, Reply
from ledger.api.retry_after import retry_after_s
from ledger.errors import Bug
from ledger.model import PaidCall
from ledger.money import MICRO, last_digit_microusd

REFUSED: Final = frozenset({400, 404, 405, 413, 415, 422})
GONE: Final = frozenset({401, 403, 404, 410})
LEAD_SESSION: Final = "enrich/lead-session"
ODD_MAX: Final = 4_096
"""Characters. Of a page that is not an answer the first lines say who wrote it."""
DOUBTFUL_MAX: Final = 65_536
"""Characters. Of a 2xx that cannot be read more is kept: part of what was paid for may be in it."""


def submit_body(call: PaidCall, profile: Profile) -> tuple[str, bytes]:
    """Path and body of a paid POST; byte for byte the same each time for the same call.

    Raises:
        Bug: The stored request is no JSON object, or its mode is not sent this way.
    """
    try:
        payload = load_object(call.request)
    except Unreadable as problem:
        raise Bug(f"job {call.job_id}: the stored request cannot be read: {problem.code}") from None
    ceiling = Decimal(call.ceiling_microusd) / MICRO
    if profile.correlation:
        lead = payload.get("lead") if call.route == LEAD_SESSION else payload
        if isinstance(lead, dict):
            lead["source_ref"] = call.idempotency_key
    match call.mode:
        case "async":
            path = profile.paths.submit
            body: dict[str, Any] = {"route": call.route, "payload": payload, "bill_up_to_usd": ceiling}
        case "sync":
            path = profile.paths.sync.replace("{route}", call.route)
            body = {**payload, "budget_usd": ceiling} if call.route == LEAD_SESSION else payload
        case _:
            raise Bug(f"job {call.job_id}: a call in mode {call.mode!r} is not sent as one POST")
    return profile.api_prefix + path, dump(body).encode()


def read_submit(reply: Reply, profile: Profile, now: datetime, secrets: tuple[str, ...] = ()) -> ev.PostEvent:
    """What the answer to an async submission means."""
    if not 200 <= reply.status < 300:
        return _declined(reply, profile, now, secrets)
    places = profile.places
    try:
        doc = load_object(reply.body, places.once)
    except Unreadable as problem:
        return _doubt(problem.code, reply, secrets)
    remote_id = reading.remote_job_id(doc, places)
    bearer = reading.bearer(doc, places)
    if bearer:
        secrets = (*secrets, bearer)
    if remote_id is None:
        return _doubt("no_job_id", reply, secrets)
    billing_mode = plain(reading.first(cut_value(doc, secrets), places.billing_mode), 64)
    kept = _answer("accepted", reply, secrets)
    return ev.Accepted(remote_id, ev.Secret(bearer) if bearer else None, billing_mode, kept)


def read_sync(reply: Reply, profile: Profile, now: datetime, secrets: tuple[str, ...] = ()) -> ev.PostEvent:
    """What the answer to a sync call means: it is the result itself."""
    if reply.status != 200:
        return _declined(reply, profile, now, secrets)
    places = profile.places
    try:
        doc = _document(reply, profile, secrets)
    except Unreadable as problem:
        return _doubt(problem.code, reply, secrets)
    failed = reading.failure_inside(doc, places)
    if reading.flag(doc, reading.first(doc, places.result), places.matched) is None:
        # Only then: a result may have a `status` of its own (of a phone line, say).
        word = reading.state_word(doc, places)
        if word in profile.words.running:
            return _doubt("not_final", reply, secrets)
        failed = failed or word in profile.words.failed
    # A sync call has no ceiling of the provider's to subtract a refund from: only a stated one counts.
    found = reading.verdict(doc, profile, failed=failed, whole=True, ceiling_microusd=None)
    return ev.Answered(found, _answer("answered", reply, secrets))


def read_no_reply(nothing: NoReply, secrets: tuple[str, ...] = ()) -> ev.NotSent | ev.Unknown:
    """What it means for a paid POST that no whole answer came: unsent for sure, or in doubt."""
    if not nothing.sent:
        return ev.NotSent(nothing.error)
    if nothing.status is None:
        return ev.Unknown(nothing.error, None, None)
    return _doubt(nothing.error, Reply(nothing.status, {}, nothing.body), secrets)


def read_poll(
    reply: Reply,
    profile: Profile,
    now: datetime,
    remote_job_id: str,
    ceiling_microusd: int | None = None,
    secrets: tuple[str, ...] = (),
) -> ev.PollEvent:
    """What the answer to a poll means.

    `ceiling_microusd` is the attempt's hold: needed where the answer states a refund and no cost.
    """
    if reply.status in GONE:
        return ev.Gone(reply.status, _odd("odd", reply, secrets))
    if not 200 <= reply.status < 300:
        wait = retry_after_s(reply.headers.get("retry-after"), now)
        return ev.PollFailed(f"http_{reply.status}", wait, throttled=reply.status == 429)
    places = profile.places
    try:
        doc = _document(reply, profile, secrets)
    except Unreadable as problem:
        return ev.PollFailed(problem.code)
    if reading.remote_job_id(doc, places) not in (None, remote_job_id):
        return ev.PollFailed("other_job")
    word = reading.state_word(doc, places)
    if word is None:
        return ev.PollFailed(reading.error_code(doc, places) or "no_state")
    failed = word in profile.words.failed
    if not failed and word not in profile.words.done:
        known = word in profile.words.running
        return ev.StillRunning(word, known, None if known else _odd("odd", reply, secrets))
    failed = failed or reading.failure_inside(doc, places)
    found = reading.verdict(doc, profile, failed=failed, whole=False, ceiling_microusd=ceiling_microusd)
    return ev.Finished(found, _answer("poll", reply, secrets))


def read_balance(
    reply: Reply, profile: Profile, secrets: tuple[str, ...] = ()
) -> ev.Balance | ev.BalanceUnknown:
    """What the balance answer says; an amount below zero or unreadable is unknown."""
    places = profile.places
    doc, error = {}, "no_balance"
    try:
        doc = _document(reply, profile, secrets)
    except Unreadable as problem:
        error = problem.code
    if reply.status in (401, 403) or (reply.status == 402 and _refusing_code(doc, profile)):
        return ev.BalanceUnknown(reading.error_code(doc, places) or f"http_{reply.status}", not_allowed=True)
    if not 200 <= reply.status < 300:
        return ev.BalanceUnknown(f"http_{reply.status}")
    shown = reading.first(doc, places.balance)
    microusd = amount(shown)
    if microusd is None:
        return ev.BalanceUnknown(error)
    return ev.Balance(microusd, last_digit_microusd(shown), plain(reading.first(doc, places.agent_id), 128))


def _declined(reply: Reply, profile: Profile, now: datetime, secrets: tuple[str, ...]) -> ev.PostEvent:
    """The answer to a paid POST that is no success: by its status first, for the body may be anything."""
    status, places = reply.status, profile.places
    try:
        doc = cut_value(load_object(reply.body), secrets)
    except Unreadable:
        doc = {}
    answer = _odd("refused", reply, secrets)
    message = reading.error_message(doc, places)
    code = reading.error_code(doc, places)
    default = f"http_{status}"
    match status:
        case 429:
            return ev.Throttled(retry_after_s(reply.headers.get("retry-after"), now), answer)
        case 402:
            refusing = _refusing_code(doc, profile)
            if refusing:
                return ev.NotAllowed(status, refusing, message, answer)
            reason = plain(reading.first(doc, places.billing_reason), 64)
            return ev.NoMoney(code or reason or default, message, answer)
        case 401 | 403:
            return ev.NotAllowed(status, code or default, message, answer)
        case _ if status in REFUSED:
            return ev.Refused(status, code or default, message, answer)
    return _doubt(default, reply, secrets)


def _refusing_code(doc: dict[str, Any], profile: Profile) -> str | None:
    # Every place is looked at: x402's own `error` text may stand before the code.
    codes = (at(doc, place) for place in profile.places.error_code)
    return next((code for code in codes if code in profile.words.not_allowed), None)


def _document(reply: Reply, profile: Profile, secrets: tuple[str, ...]) -> dict[str, Any]:
    document: dict[str, Any] = cut_value(load_object(reply.body, profile.places.once), secrets)
    return document


def _doubt(error: str, reply: Reply, secrets: tuple[str, ...]) -> ev.Unknown:
    return ev.Unknown(error, reply.status, _odd("odd", reply, secrets))


def _odd(kind: str, reply: Reply, secrets: tuple[str, ...]) -> ev.Answer:
    characters = DOUBTFUL_MAX if 200 <= reply.status < 300 else ODD_MAX
    return ev.Answer(kind, reply.status, _answer(kind, reply, secrets).body[:characters])


def _answer(kind: str, reply: Reply, secrets: tuple[str, ...]) -> ev.Answer:
    # NUL ends a text for SQLite's functions; a byte that is not UTF-8 would not be stored at all.
    text = reply.body.decode("utf-8-sig", "replace").replace("\0", "\ufffd")
    return ev.Answer(kind, reply.status, cut_text(text, secrets))
