"""What a delivery says, in every layout we can imagine; and nothing in one raises."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import events as ev
from ledger.api.delivery import read_delivery
from ledger.api.profile import Profile
from ledger.api.reply import Reply
from ledger.api.wire import read_poll
from ledger.clock import SystemClock
from ledger.states import State

PROFILE = Profile.load()
RESULT = {"matched": True, "billed": True, "cache_hit": False, "entities": [1]}
JOB = {"job_id": "job_1", "status": "completed", "charged_usd": 0.42, "result": RESULT}


def read(document: Any, ceiling: int | None = 1_500_000, secrets: tuple[str, ...] = ()) -> ev.Delivery:
    raw = document if isinstance(document, str) else json.dumps(document)
    return read_delivery(PROFILE, raw, ceiling, secrets)


@pytest.mark.parametrize(
    "document",
    [
        {"event_type": "enrich.job_completed", **JOB},
        {"type": "enrich.job_completed", **JOB},
        {"event": "enrich.job_completed", **JOB},
        {"event_type": "enrich.job_completed", "data": JOB},
        {"event_type": "enrich.job_completed", "job_id": "job_1", "data": {**JOB, "job_id": None}},
        {"event_type": "enrich.job_completed", "job_id": "job_1", "charged_usd": "0.42", "data": RESULT},
        {"event_type": "enrich.job_completed", "job_id": "job_1", "charged_usd": "0.42", "result": RESULT},
    ],
    ids=range(7),
)
def test_every_layout_is_understood(document: Any) -> None:
    said = read(document)
    assert (said.event_type, said.remote_job_id) == ("enrich.job_completed", "job_1")
    assert said.verdict is not None
    assert (said.verdict.state, said.verdict.cost_microusd, said.verdict.matched) == (
        State.MATCHED,
        420_000,
        True,
    )
    assert json.loads(said.verdict.body) == RESULT
    assert said.answer.kind == "delivery"


@pytest.mark.parametrize(
    "document",
    [
        {"job_id": "job_1", "data": {**JOB, "job_id": "job_2"}},
        {**JOB, "data": {"job_id": "job_2"}},
        {**JOB, "data": {**JOB, "job_id": 7}},
        {**JOB, "data": {**JOB, "job_id": "../agents/balance"}},
    ],
    ids=range(4),
)
def test_a_second_job_id_inside_leaves_no_verdict(document: Any) -> None:
    """Whose result and whose cost it is cannot be said: the poll is asked."""
    said = read({"event_type": "enrich.job_completed", **document})
    assert (said.remote_job_id, said.verdict) == ("job_1", None)
    same = read({"event_type": "enrich.job_completed", "job_id": 12, "data": {**JOB, "job_id": "12"}})
    assert same.verdict is not None, "the same job by another kind of value"


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        {"job_id": "job_1", "status": "completed", "refunded_usd": 1.08, "result": RESULT},
        {"job_id": "job_1", "status": "completed", "result": {"matched": False}},
        {"job_id": "job_1", "status": "done", "result": RESULT},
        {"job_id": "job_1", "status": "FAILED", "error": {"code": "VENDOR_TIMEOUT"}},
        {"job_id": "job_1", "status": "completed", "error": {"code": "NO"}},
        {"job_id": "job_1", "status": "completed", "charged_usd": -1, "result": RESULT},
    ],
    ids=range(7),
)
def test_it_reads_what_a_poll_reads(job: Any) -> None:
    polled = read_poll(
        Reply(200, {}, json.dumps(job).encode()), PROFILE, SystemClock().now(), "job_1", 1_500_000
    )
    assert isinstance(polled, ev.Finished)
    assert read({"event_type": "x", "data": job}).verdict == polled.verdict
    flat = read({"event_type": "x", **job}).verdict
    assert flat is not None
    # Where a failed answer has no result it is itself the result, and here the event stands beside it.
    assert replace(flat, body=polled.verdict.body) == polled.verdict


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"status": "completed"},
        {"status": "running", "result": RESULT},
        {"status": "marinating", "result": RESULT},
        {"result": RESULT, "event_type": "lead.enrichment_applied"},
        {"status": "completed", "result": {}},
        {"status": "completed", "result": []},
        {"status": "completed", "result": None},
    ],
    ids=range(8),
)
def test_nothing_usable_is_no_verdict(job: Any) -> None:
    said = read({"event_type": "enrich.job_completed", "job_id": "job_1", **job})
    assert (said.remote_job_id, said.verdict) == ("job_1", None)


def test_our_key_and_the_route_are_found_where_the_profile_says() -> None:
    for place in ({"source_ref": "k"}, {"data": {"payload": {"lead": {"source_ref": "k"}}}}):
        assert read({"event_type": "x", **place}).correlation == "k"
    assert read({"data": {"route": "enrich/websearch"}}).route == "enrich/websearch"
    assert read({"source_ref": 7}).correlation == "7"
    assert read({"source_ref": ["k"]}).correlation is None


def test_secrets_are_cut_by_name_and_by_value() -> None:
    said = read({**JOB, "poll_bearer": "pb_named_one", "note": "pb_known_one"}, secrets=("pb_known_one",))
    assert said.verdict is not None
    for text in (said.answer.body, said.verdict.body):
        assert "pb_named_one" not in text
        assert "pb_known_one" not in text


@pytest.mark.parametrize(
    "raw",
    ["", "null", "[]", "{", '{"job_id": "a", "job_id": "b"}', '{"a": NaN}', "[" * 9_000, "\udcff", "\0"],
)
def test_what_cannot_be_read_says_nothing_and_is_kept(raw: str) -> None:
    said = read(raw)
    assert said.event_type.startswith("unreadable: ")
    assert (said.remote_job_id, said.correlation, said.verdict) == (None, None, None)
    said.answer.body.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PLACES = PROFILE.places
KEYS = st.sampled_from(
    (*PROFILE.deliveries.event, "job_id", "data", "source_ref", *PLACES.result, *PLACES.state, *PLACES.cost)
)


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)))
def test_no_document_makes_it_raise(document: Any) -> None:
    said = read(document)
    assert said.verdict is None or said.verdict.cost_microusd is None or said.verdict.cost_microusd >= 0


@given(st.text(st.characters(codec=None)))
def test_no_text_makes_it_raise(raw: str) -> None:
    read(raw.encode("utf-8", "replace").decode("utf-8", "surrogateescape"))
