"""What a webhook delivery says (provider notes, sections 5 and 14). Pure, and nothing in one makes it raise.

The result and its cost are read as a poll's are, by the same functions. Whether the signature is right was
the receiver's business; whose job it is, is the store's.
"""

from __future__ import annotations

from typing import Any, Final

from ledger import events as ev
from ledger.api import reading
from ledger.api.jsontext import Unreadable, at, load_object, plain
from ledger.api.profile import Places, Profile
from ledger.api.redact import cut_text, cut_value

_NAME_LENGTH_MAX: Final = 64


def read_delivery(
    profile: Profile, raw: str, ceiling_microusd: int | None = None, secrets: tuple[str, ...] = ()
) -> ev.Delivery:
    """Read the text of a delivery.

    Args:
        profile: Where everything is.
        raw: The body; bytes that are no UTF-8 stand in it as surrogates.
        ceiling_microusd: The attempt's hold, for results that state only a refund; None while unknown.
        secrets: What must not be kept of it.

    Returns:
        Without a verdict where it carries no usable result, or names a second job beside its own (a poll
        that did is `other_job`): the job is then to be polled.
    """
    # NUL ends a text for SQLite's functions; a byte that is not UTF-8 would not be stored at all.
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8-sig", "replace").replace("\0", "\ufffd")
    answer = ev.Answer("delivery", None, cut_text(text, secrets))
    places = profile.places
    try:
        doc: dict[str, Any] = cut_value(load_object(text, places.once), secrets)
    except Unreadable as problem:
        return ev.Delivery(f"unreadable: {problem.code}", None, None, None, None, answer)
    layout = profile.deliveries
    job, remote_job_id = _job(doc, profile), reading.remote_job_id(doc, places)
    mixed = remote_job_id is not None and _names_another(remote_job_id, (doc, job), places)
    event_type = plain(reading.first(doc, layout.event), _NAME_LENGTH_MAX) or "unnamed"
    return ev.Delivery(
        event_type,
        remote_job_id,
        plain(reading.first(doc, layout.correlation), _NAME_LENGTH_MAX),
        plain(reading.first(doc, layout.route), _NAME_LENGTH_MAX),
        None if mixed else _verdict(job, event_type, profile, ceiling_microusd),
        answer,
    )


def _names_another(remote_job_id: str, docs: tuple[dict[str, Any], ...], places: Places) -> bool:
    named = (at(doc, place) for doc in docs for place in places.job_id)
    return any(name is not None and str(name) != remote_job_id for name in named)


def _job(doc: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The job's own document: what a poll would have answered. It may stand in an envelope."""
    places = profile.places
    inner = reading.first(doc, profile.deliveries.job)
    if not isinstance(inner, dict):
        return doc
    speaks = (
        reading.remote_job_id(inner, places) or reading.state_word(inner, places),
        reading.first(inner, places.result),
    )
    return inner if any(part is not None for part in speaks) else doc


def _verdict(
    job: dict[str, Any], event_type: str, profile: Profile, ceiling_microusd: int | None
) -> ev.Verdict | None:
    """The final answer, if there is one: a state word says so, or the event where no word stands."""
    places, words = profile.places, profile.words
    word = reading.state_word(job, places)
    done = word in words.done or (word is None and event_type in profile.deliveries.final)
    failed = word in words.failed or (done and reading.failure_inside(job, places))
    result = reading.first(job, places.result)
    if not failed and not (done and (reading.flag(job, result, places.matched) is not None or result)):
        return None
    return reading.verdict(job, profile, failed=failed, whole=False, ceiling_microusd=ceiling_microusd)
