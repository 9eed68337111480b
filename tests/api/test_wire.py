import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import events as ev
from ledger.api import wire
from ledger.api.profile import Profile
from ledger.api.reply import NoReply, Reply
from ledger.errors import Bug
from ledger.model import PaidCall
from ledger.states import State

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROFILE = Profile.load()
KEY = "411k_needle_key"
BEARER = "pb_needle_bearer"
DONE = ["completed", "complete", "succeeded", "success", "done", "finished", "Completed", "DONE", " done "]
FAILED = [
    *("failed", "failure", "error", "errored", "timed_out", "timeout", "expired", "cancelled", "canceled"),
    *("FAILED", "timed out", "Timed-Out"),
]


def reply(body: Any, status: int = 200, **headers: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def submit(body: Any, status: int = 202, **headers: Any) -> Any:
    return wire.read_submit(reply(body, status, **headers), PROFILE, NOW, (KEY,))


def sync(body: Any, status: int = 200, **headers: Any) -> Any:
    return wire.read_sync(reply(body, status, **headers), PROFILE, NOW, (KEY,))


def poll(body: Any, status: int = 200, ceiling: int | None = 1_500_000, **headers: Any) -> Any:
    return wire.read_poll(reply(body, status, **headers), PROFILE, NOW, "job_1", ceiling, (KEY, BEARER))


def call(
    mode: str = "async",
    route: str = "enrich/websearch",
    request: Any = '{"business_name":"Acmé"}',
    ceiling: int | None = 1_500_000,
) -> Any:
    return PaidCall(7, 1, route, mode, request, "3f2b8c1e-0000-4000-8000-000000000001", ceiling)


# --- what goes out ---


def test_an_async_body_carries_route_payload_and_the_exact_ceiling() -> None:
    path, body = wire.submit_body(call(), PROFILE)
    assert path == "/api/v1/enrich/jobs"
    assert (
        body
        == '{"route":"enrich/websearch","payload":{"business_name":"Acmé"},"bill_up_to_usd":1.5}'.encode()
    )


@pytest.mark.parametrize(
    ("microusd", "text"), [(1, "0.000001"), (50_000, "0.05"), (50_000_000, "50"), (1_234_567, "1.234567")]
)
def test_the_ceiling_is_a_json_number_exact_to_the_micro_dollar(microusd: int, text: str) -> None:
    _, body = wire.submit_body(call(ceiling=microusd), PROFILE)
    assert body.endswith(f'"bill_up_to_usd":{text}}}'.encode())


def test_a_sync_body_is_the_payload_itself() -> None:
    path, body = wire.submit_body(call("sync", "enrich/phone", '{"phone":"+14155550123"}'), PROFILE)
    assert (path, body) == ("/api/v1/enrich/phone", b'{"phone":"+14155550123"}')


def test_a_sync_lead_session_is_told_its_budget() -> None:
    _, body = wire.submit_body(call("sync", "enrich/lead-session", '{"lead":{"company":"A"}}'), PROFILE)
    assert body == b'{"lead":{"company":"A"},"budget_usd":1.5}'


def test_the_same_call_gives_the_same_bytes_and_keeps_its_numbers() -> None:
    again = call(request='{"b":1.10,"a":[1E+2,"x"]}')
    assert wire.submit_body(again, PROFILE) == wire.submit_body(again, PROFILE)
    assert b'"payload":{"b":1.10,"a":[1E+2,"x"]}' in wire.submit_body(again, PROFILE)[1]


def test_the_correlation_value_goes_out_only_where_the_profile_allows(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("correlation = true")
    allowing = Profile.load(file)
    session = call(route="enrich/lead-session", request='{"lead":{"company":"A"}}')
    key = session.idempotency_key
    assert key.encode() not in wire.submit_body(session, PROFILE)[1]
    sent = json.loads(wire.submit_body(session, allowing)[1])
    assert sent["payload"]["lead"] == {"company": "A", "source_ref": key}
    assert json.loads(wire.submit_body(call(), allowing)[1])["payload"]["source_ref"] == key


@pytest.mark.parametrize("broken", [call(request="[]"), call(request="{"), call(mode="batch")])
def test_a_call_that_cannot_be_sent_is_our_own_bug(broken: Any) -> None:
    with pytest.raises(Bug):
        wire.submit_body(broken, PROFILE)


# --- the classes of a paid POST ---


@pytest.mark.parametrize("status", [200, 201, 202, 299])
@pytest.mark.parametrize(
    ("job_id", "expected"), [("job_9f2c", "job_9f2c"), (12, "12"), ("a" * 128, "a" * 128), ("A-b_3", "A-b_3")]
)
def test_any_2xx_with_a_job_id_is_accepted(status: int, job_id: Any, expected: Any) -> None:
    event = submit({"job_id": job_id, "poll_bearer": BEARER, "billing_mode": "virtual_balance"}, status)
    assert isinstance(event, ev.Accepted)
    assert (event.remote_job_id, event.bearer) == (expected, ev.Secret(BEARER))
    assert event.billing_mode == "virtual_balance"
    assert event.answer.kind == "accepted"


@pytest.mark.parametrize("bearer", [None, 12, "", "with space", "näh", "a\nb", {}, "x" * 5_000])
def test_an_acceptance_without_a_usable_bearer_is_still_one(bearer: Any) -> None:
    event = submit({"job_id": "job_1", "poll_bearer": bearer})
    assert isinstance(event, ev.Accepted)
    assert event.bearer is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"job_id": None},
        {"job_id": ""},
        {"job_id": "../agents/balance"},
        {"job_id": "a\n"},
        {"job_id": "a" * 129},
        {"job_id": "jöb"},
        {"job_id": True},
        {"job_id": 1.5},
        {"job_id": ["job_1"]},
        [{"job_id": "job_1"}],
        b"",
        b'{"job_id": "job_1", "poll_bear',
        b'{"job_id": "job_1", "job_id": "job_2"}',
        b'{"job_id": "job_1", "cost": NaN}',
        b"<html>Bad gateway</html>",
        b"[" * 100_000,
        b'{"job_id": ' + b"1" * 5_000 + b"}",
        b"\x1f\x8b\x00\xff",
    ],
)
@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_2xx_without_a_usable_job_id_is_in_doubt_and_kept(body: Any, status: int) -> None:
    event = submit(body, status)
    assert isinstance(event, ev.Unknown)
    assert event.http_status == status
    assert event.answer is not None
    assert event.answer.kind == "odd"


@pytest.mark.parametrize("read", [submit, sync])
@pytest.mark.parametrize("body", [{"error": {"code": "NOPE", "message": "no"}}, b"<html>", b""])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ev.Refused) for status in (400, 404, 405, 413, 415, 422)),
        *((status, ev.NotAllowed) for status in (401, 403)),
        (402, ev.NoMoney),
        (429, ev.Throttled),
        *((status, ev.Unknown) for status in (301, 302, 307, 308, 408, 409, 410, 412, 418, 425)),
        *((status, ev.Unknown) for status in (101, 304, 500, 501, 502, 503, 504, 599)),
    ],
)
def test_every_other_status_has_its_class_whatever_the_body_says(
    read: Any, body: Any, status: int, kind: type
) -> None:
    event = read(body, status)
    assert type(event) is kind
    if isinstance(event, ev.Refused | ev.NotAllowed | ev.NoMoney):
        assert event.error_code == ("NOPE" if isinstance(body, dict) else f"http_{status}")
        assert event.answer.kind == "refused"


@pytest.mark.parametrize(
    "body",
    [
        {"code": "AGENT_TOKEN_REQUIRED"},
        {"error": {"code": "AGENT_TOKEN_REQUIRED"}},
        {"detail": {"code": "AGENT_TOKEN_REQUIRED"}},
        {"error": "AGENT_TOKEN_REQUIRED", "accepts": [{"scheme": "upto"}]},
        {"code": "PAYMENT_REQUIRED", "detail": {"code": "AGENT_TOKEN_REQUIRED"}},
    ],
)
def test_a_402_that_asks_for_a_token_refuses_us_and_not_the_money(body: Any) -> None:
    event = submit(body, 402)
    assert isinstance(event, ev.NotAllowed)
    assert event.error_code == "AGENT_TOKEN_REQUIRED"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "PAYMENT_REQUIRED"}, "PAYMENT_REQUIRED"),
        ({"detail": {"billing_reason": "virtual_balance_insufficient"}}, "virtual_balance_insufficient"),
        ({"billing_reason": "payment_required"}, "payment_required"),
        ({"x402Version": 2, "accepts": []}, "http_402"),
    ],
)
def test_any_other_402_is_about_money(body: Any, code: str) -> None:
    event = submit(body, 402)
    assert isinstance(event, ev.NoMoney)
    assert event.error_code == code


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"code": "A", "message": "m"}, "A", "m"),
        ({"error": {"code": "B", "message": "m"}}, "B", "m"),
        ({"detail": {"code": "C", "message": "m"}}, "C", "m"),
        ({"error": "VENDOR_DOWN"}, "VENDOR_DOWN", "VENDOR_DOWN"),
        ({"error": "it went wrong"}, "http_422", "it went wrong"),
        ({"detail": "Not Found"}, "http_422", "Not Found"),
        (
            {"detail": [{"loc": ["body", "x"], "msg": "bad"}]},
            "http_422",
            '[{"loc":["body","x"],"msg":"bad"}]',
        ),
        ({"code": 17}, "17", ""),
        ({"code": ["x"], "message": 5}, "http_422", "5"),
        ({"message": "a\x1b[2Jb\n"}, "http_422", "a [2Jb"),
    ],
)
def test_codes_and_messages_are_found_where_providers_put_them(body: Any, code: str, message: str) -> None:
    event = submit(body, 422)
    assert (event.error_code, event.message) == (code, message)


def test_a_429_hands_on_what_it_asks_for() -> None:
    assert submit({}, 429, retry_after="120").retry_after_s == 120
    assert submit({}, 429, retry_after="-5").retry_after_s is None
    assert submit({}, 429).retry_after_s is None


def test_no_reply_is_unsent_or_in_doubt_with_what_came() -> None:
    assert wire.read_no_reply(NoReply("connect_error", sent=False)) == ev.NotSent("connect_error")
    assert wire.read_no_reply(NoReply("read_timeout", sent=True)) == ev.Unknown("read_timeout", None, None)
    part = wire.read_no_reply(
        NoReply("deadline", sent=True, status=202, body=b'{"job_id": "job_1", "poll_bearer": "pb_nee')
    )
    assert part.http_status == 202
    assert part.answer.body == '{"job_id": "job_1", "poll_bearer": "[cut]"'


# --- sync answers ---


@pytest.mark.parametrize(
    ("body", "state", "cost"),
    [
        ({"matched": True, "billed": True, "cost_usd": 0.33}, State.MATCHED, 330_000),
        ({"matched": True}, State.MATCHED, None),
        ({"matched": True, "billed": False}, State.MATCHED, 0),
        ({"matched": False}, State.NO_MATCH, 0),
        ({"matched": False, "billed": False, "cache_hit": False}, State.NO_MATCH, 0),
        ({"matched": False, "charged_usd": "0.10"}, State.NO_MATCH, 100_000),
        ({"matched": "false"}, State.NO_MATCH, 0),
        ({"billed": False}, State.NO_MATCH, 0),
        ({"billed": True}, State.MATCHED, None),
        ({"cost_usd": 0}, State.NO_MATCH, 0),
        ({}, State.MATCHED, None),
        ({"result": {"matched": False}}, State.NO_MATCH, 0),
        ({"status": "failed", "error": {"code": "X"}}, State.FAILED, 0),
        ({"error": {"code": "X"}}, State.FAILED, 0),
        ({"error": {"code": "X"}, "charged_usd": 0.1}, State.FAILED, 100_000),
        ({"error": None, "matched": True}, State.MATCHED, None),
        ({"matched": True, "status": "running"}, State.MATCHED, None),
        ({"matched": True, "refunded_usd": 0.1}, State.MATCHED, None),
        ({"matched": True, "refunded_usd": 0.1, "bill_up_to_usd": 0.5}, State.MATCHED, 400_000),
    ],
)
def test_a_sync_object_is_the_answer(body: Any, state: State, cost: Any) -> None:
    event = sync(body)
    assert isinstance(event, ev.Answered)
    assert (event.verdict.state, event.verdict.cost_microusd) == (state, cost)
    assert json.loads(event.verdict.body) == body
    assert event.answer.kind == "answered"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[]", 200), (b"", 200), (b"{", 200), (b'{"matched": true}', 202), (b"{}", 204)],
)
def test_a_sync_2xx_that_is_no_object_at_200_is_in_doubt(body: Any, status: int) -> None:
    assert isinstance(sync(body, status), ev.Unknown)


def test_a_sync_answer_that_is_not_final_is_in_doubt() -> None:
    event = sync({"job_id": "job_1", "status": "queued"})
    assert (type(event), event.error) == (ev.Unknown, "not_final")


# --- polls ---


@pytest.mark.parametrize("key", ["status", "state"])
@pytest.mark.parametrize("word", DONE)
def test_every_done_word_is_final(key: str, word: str) -> None:
    event = poll({"job_id": "job_1", key: word, "result": {"matched": True}, "charged_usd": 0.42})
    assert isinstance(event, ev.Finished)
    assert (event.verdict.state, event.verdict.cost_microusd) == (State.MATCHED, 420_000)
    assert event.answer.kind == "poll"


@pytest.mark.parametrize("key", ["status", "state"])
@pytest.mark.parametrize("word", FAILED)
def test_every_failed_word_is_final_and_free_unless_it_says_otherwise(key: str, word: str) -> None:
    event = poll({key: word, "error": {"code": "VENDOR_TIMEOUT", "message": "m"}})
    assert isinstance(event, ev.Finished)
    assert (event.verdict.state, event.verdict.cost_microusd) == (State.FAILED, 0)
    assert event.verdict.error_code == "VENDOR_TIMEOUT"
    assert poll({key: word, "charged_usd": "0.05"}).verdict.cost_microusd == 50_000


@pytest.mark.parametrize("word", ["queued", "running", "Running", "in progress", "processing", "pending"])
def test_a_known_word_is_still_running_and_keeps_nothing(word: str) -> None:
    event = poll({"status": word})
    assert (event.known, event.answer) == (True, None)


@pytest.mark.parametrize("word", ["paused", "refunding", "läuft"])
def test_an_unknown_word_is_still_running_and_kept(word: str) -> None:
    event = poll({"job_id": "job_1", "status": word})
    assert (event.word, event.known) == (word, False)
    assert event.answer.kind == "odd"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"status": "done", "result": {"matched": True}, "data": {"x": 1}}, {"matched": True}),
        ({"status": "done", "data": {"matched": True}}, {"matched": True}),
        ({"status": "done", "output": {"matched": True}}, {"matched": True}),
        ({"status": "done", "result": None, "output": {"matched": True}}, {"matched": True}),
        ({"status": "done", "matched": True}, {"status": "done", "matched": True}),
        ({"status": "done", "result": [1, 2], "matched": True}, [1, 2]),
    ],
)
def test_the_result_is_found_in_each_of_its_places(body: Any, kept: Any) -> None:
    event = poll(body)
    assert event.verdict.matched is True
    assert json.loads(event.verdict.body) == kept


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        ({"result": {"matched": True, "billed": False, "cache_hit": True}}, (True, False, True)),
        ({"result": {}, "matched": False, "billed": True, "cache_hit": False}, (False, True, False)),
        ({"result": {"matched": False}, "matched": True}, (False, None, None)),
        ({"result": {}}, (None, None, None)),
        ({"result": {"matched": 1, "billed": "maybe", "cache_hit": None}}, (None, None, None)),
    ],
)
def test_flags_are_in_the_result_or_beside_it_and_absent_is_not_false(body: Any, flags: Any) -> None:
    verdict = poll({"status": "done", **body}).verdict
    assert (verdict.matched, verdict.billed, verdict.cache_hit) == flags


NAMES = ["charged_usd", "billed_usd", "cost_usd", "amount_charged_usd", "charge_usd"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("raw", "microusd"),
    [
        ("0.42", 420_000),
        ('"0.42"', 420_000),
        ('"$1,000.50"', 1_000_500_000),
        ("0.30000000000000004", 300_000),
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("1", 1_000_000),
        ("0", 0),
        ("-0.0", 0),
        ("1e-2", 10_000),
        ("9.5", 9_500_000),
    ],
)
def test_every_cost_name_place_and_number_form(name: str, inside: bool, raw: str, microusd: int) -> None:
    cost = f'"{name}": {raw}'
    body = f'{{"status": "done", "result": {{"matched": true{", " + cost if inside else ""}}}'
    body += "}" if inside else f", {cost}}}"
    event = poll(body.encode())
    assert event.verdict.cost_microusd == microusd
    assert raw.strip('"') in event.answer.body  # the text as it came


@pytest.mark.parametrize(
    "raw",
    ["-1", "true", '"-0.42"', '"n/a"', '"NaN"', '"Infinity"', "9e999999", "1e999", "[]", "{}", '"٣"', '""'],
)
def test_a_cost_that_is_no_amount_is_unknown_and_never_zero(raw: str) -> None:
    assert (
        poll(f'{{"status": "done", "matched": true, "charged_usd": {raw}}}'.encode()).verdict.cost_microusd
        is None
    )
    assert poll(f'{{"status": "failed", "charged_usd": {raw}}}'.encode()).verdict.cost_microusd is None


@pytest.mark.parametrize(
    ("body", "ceiling", "cost"),
    [
        ({"charged_usd": 0.1, "billed_usd": 0.2}, 1_500_000, 100_000),
        ({"charged_usd": None, "billed_usd": 0.2}, 1_500_000, 200_000),
        ({"result": {"charged_usd": 0.1}, "cost_usd": 0.2}, 1_500_000, 100_000),
        ({"refunded_usd": 1.08}, 1_500_000, 420_000),
        ({"refunded_usd": "1.50"}, 1_500_000, 0),
        ({"refunded_usd": 1.08}, None, None),
        ({"refunded_usd": 1.08, "bill_up_to_usd": 2}, None, 920_000),
        ({"refunded_usd": 1.08, "bill_up_to_usd": 2}, 1_500_000, 920_000),
        ({"refunded_usd": 2}, 1_500_000, None),
        ({"billed": False}, 1_500_000, 0),
        ({"matched": False}, 1_500_000, 0),
        ({"matched": True}, 1_500_000, None),
        ({}, 1_500_000, None),
    ],
)
def test_the_cost_is_taken_in_the_order_of_the_notes(body: Any, ceiling: int | None, cost: Any) -> None:
    assert poll({"status": "done", **body}, ceiling=ceiling).verdict.cost_microusd == cost


def test_a_done_word_with_a_failure_inside_has_failed() -> None:
    verdict = poll({"status": "completed", "error": {"code": "NO_VENDOR"}}).verdict
    assert (verdict.state, verdict.error_code, verdict.cost_microusd) == (State.FAILED, "NO_VENDOR", 0)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_job_may_be_gone(status: int) -> None:
    event = poll(b"<html>", status)
    assert (type(event), event.http_status) == (ev.Gone, status)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"<html>fine</html>", 200, "not_json"),
        (b"", 200, "empty"),
        (b"", 204, "empty"),
        (b'{"status": "completed", "charged_usd": 1', 200, "not_json"),
        (b'{"status": "completed", "charged_usd": NaN}', 200, "not_a_number"),
        (b'{"status": "completed", "charged_usd": 1, "charged_usd": 2}', 200, "repeated_key"),
        (b"[" * 100_000, 200, "too_deep"),
        ([], 200, "not_an_object"),
        ({"error": {"code": "INTERNAL"}}, 200, "INTERNAL"),
        ({"job_id": "job_1"}, 200, "no_state"),
        ({"status": 3}, 200, "no_state"),
        ({"job_id": "job_2", "status": "completed"}, 200, "other_job"),
        ({}, 302, "http_302"),
        ({}, 400, "http_400"),
        ({}, 402, "http_402"),
        ({}, 409, "http_409"),
        (b"<html>", 502, "http_502"),
        ({}, 503, "http_503"),
    ],
)
def test_a_poll_that_says_nothing_of_the_job_has_failed(body: Any, status: int, error: str) -> None:
    assert poll(body, status) == ev.PollFailed(error)


def test_a_throttled_poll_says_so() -> None:
    assert poll({}, 429, retry_after="7") == ev.PollFailed("http_429", 7.0, throttled=True)
    assert poll({}, 503, retry_after="9999").retry_after_s == 900


# --- balance ---


def balance(body: Any, status: int = 200) -> Any:
    return wire.read_balance(reply(body, status), PROFILE, (KEY,))


@pytest.mark.parametrize(
    ("raw", "microusd", "digit"),
    [
        ("12.34", 12_340_000, 10_000),
        ('"12.34"', 12_340_000, 10_000),
        ("12", 12_000_000, 1_000_000),
        ("0.000001", 1, 1),
        ("9.579999999999998", 9_580_000, 1),
    ],
)
def test_a_balance_knows_its_last_digit(raw: str, microusd: int, digit: int) -> None:
    body = f'{{"virtual_balance_usd": {raw}, "agent_id": "agent_7"}}'.encode()
    assert balance(body) == ev.Balance(microusd, digit, "agent_7")


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({}, 200, ev.BalanceUnknown("no_balance")),
        ({"virtual_balance_usd": -1}, 200, ev.BalanceUnknown("no_balance")),
        (b"<html>", 200, ev.BalanceUnknown("not_json")),
        (b'{"virtual_balance_usd": 1, "virtual_balance_usd": 2}', 200, ev.BalanceUnknown("repeated_key")),
        ({}, 401, ev.BalanceUnknown("http_401", not_allowed=True)),
        ({"code": "REVOKED"}, 403, ev.BalanceUnknown("REVOKED", not_allowed=True)),
        ({"code": "AGENT_TOKEN_REQUIRED"}, 402, ev.BalanceUnknown("AGENT_TOKEN_REQUIRED", not_allowed=True)),
        ({}, 402, ev.BalanceUnknown("http_402")),
        (b"", 503, ev.BalanceUnknown("http_503")),
    ],
)
def test_a_balance_that_cannot_be_read_is_unknown(body: Any, status: int, expected: Any) -> None:
    assert balance(body, status) == expected


# --- secrets and surprises ---


@pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 402, 404, 409, 422, 429, 500])
def test_no_secret_survives_in_any_event(status: int) -> None:
    told = {"echo": f"Bearer {KEY} {BEARER}", "deep": [{"poll_bearer": BEARER}], "upload_token": "ut_needle"}
    body = {"job_id": "job_1", "poll_bearer": BEARER, "error": {"code": KEY, "message": KEY}, **told}
    final = {"status": "completed", "result": {"matched": True, **told}, "agent_id": KEY}
    running = {"status": BEARER, **told}
    for event in (
        submit(body, status),
        sync(final, status),
        submit(json.dumps(body).encode()[:-1], status),
        poll(final, status),
        poll({"status": "failed", **body}, status),
        poll(running, status),
        poll({"code": KEY}, status),
        balance(final, status),
    ):
        assert "needle" not in repr(event)


def test_a_bearer_under_a_name_of_the_users_profile_is_cut_too(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("[places]\nbearer = ['token']")
    body = {"job_id": "job_1", "token": BEARER, "poll_url": f"/jobs/job_1?t={BEARER}"}
    event = wire.read_submit(reply(body, 202), Profile.load(file), NOW)
    assert isinstance(event, ev.Accepted)
    assert event.bearer == ev.Secret(BEARER)
    assert "needle" not in repr(event)


def test_odd_bodies_are_kept_in_part_and_final_ones_whole() -> None:
    long = "x" * 100_000
    assert len(submit(long.encode(), 500).answer.body) == 4_096
    assert len(submit(long.encode(), 202).answer.body) == 65_536
    final = poll({"status": "done", "result": {"matched": True, "summary_markdown": long}})
    assert len(final.answer.body) > 100_000
    assert len(final.verdict.body) > 100_000


def test_bytes_that_no_database_takes_are_replaced() -> None:
    body = submit(b"a\x00b\xffc", 500).answer.body
    assert body == "a\ufffdb\ufffdc"
    assert poll(b'{"status": "done", "result": {"x": "\\ud800\\u0000"}}').verdict.body.encode()


KEYS = st.sampled_from(
    [
        *("job_id", "poll_bearer", "status", "state", "result", "data", "error", "detail", "code", "message"),
        *("matched", "billed", "charged_usd", "refunded_usd", "bill_up_to_usd", "virtual_balance_usd", "x"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["done", "failed", "running", "job_1", "NaN", "1e999999", "-0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@given(st.dictionaries(KEYS, VALUES) | VALUES, st.integers(min_value=100, max_value=599))
def test_no_json_body_of_any_status_raises(body: Any, status: int) -> None:
    raw = json.dumps(body)
    for event in (submit(raw.encode(), status), sync(raw.encode(), status)):
        assert isinstance(event, ev.PostEvent)
    assert isinstance(poll(raw.encode(), status), ev.PollEvent)
    assert isinstance(balance(raw.encode(), status), ev.Balance | ev.BalanceUnknown)
