import asyncio
import dataclasses
import json
import logging
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import events as ev
from ledger.api.client import Client
from ledger.api.profile import Profile
from ledger.api.provider import Provider, what_came
from ledger.clock import SystemClock
from ledger.errors import Bug, UsageProblem
from ledger.model import OpenJob, PaidCall

KEY = "411k_needle_key"
BEARER = "pb_needle_bearer"
UUID = "3f2b8c1e-0000-4000-8000-000000000001"
ASYNC = PaidCall(7, 1, "enrich/websearch", "async", '{"business_name":"A"}', UUID, 1_500_000)
SYNC = PaidCall(8, 1, "enrich/phone", "sync", '{"phone":"+14155550123"}', UUID, 330_000)


def job(bearer: Any = BEARER, remote_job_id: Any = "job_1") -> Any:
    secret = ev.Secret(bearer) if bearer else None
    return OpenJob(
        job_id=7,
        fence=1,
        route="enrich/websearch",
        in_doubt=False,
        remote_job_id=remote_job_id,
        bearer=secret,
        accepted_at="2026-01-02T03:04:05.000000Z",
    )


def client(
    profile: Profile, base_url: str = "https://411data.io", handler: Any = None, clock: Any = None
) -> Any:
    network = (lambda _: httpx.MockTransport(handler)) if handler else None
    return Client(base_url, ev.Secret(KEY), profile, clock or SystemClock(), network=network)


def ask(profile: Profile, handler: Any, verb: Any, *values: Any) -> Any:
    async def scene() -> Any:
        async with client(profile, handler=handler) as one:
            return await getattr(one, verb)(*values)

    return asyncio.run(scene())


@pytest.fixture
def impatient(tmp_path: Path) -> Any:
    file = tmp_path / "impatient.toml"
    file.write_text(
        "[limits]\nconnect_s = 0.4\nsubmit_total_s = 0.4\nsync_total_s = 0.4\npoll_total_s = 0.4\n"
    )
    return Profile.load(file)


# --- what is asked ---


def test_a_submission_is_one_post_with_key_and_idempotency_key(profile: Profile) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return httpx.Response(
            202, json={"job_id": "job_1", "poll_bearer": BEARER, "billing_mode": "virtual_balance"}
        )

    event = ask(profile, handler, "submit", ASYNC)
    assert isinstance(event, ev.Accepted)
    assert (event.remote_job_id, event.bearer.reveal()) == ("job_1", BEARER)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://411data.io/api/v1/enrich/jobs")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["idempotency-key"] == UUID
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        "route": "enrich/websearch",
        "payload": {"business_name": "A"},
        "bill_up_to_usd": 1.5,
    }


def test_the_idempotency_key_stays_at_home_where_the_profile_says_so(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("sends_idempotency_key = false")
    seen = []
    ask(Profile.load(file), lambda request: seen.append(request) or httpx.Response(500), "submit", ASYNC)
    assert "idempotency-key" not in seen[0].headers


def test_a_sync_call_is_answered_at_once(profile: Profile) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return httpx.Response(200, json={"matched": True, "cost_usd": "0.33"})

    event = ask(profile, handler, "submit", SYNC)
    assert event.verdict.cost_microusd == 330_000
    assert seen[0].url.path == "/api/v1/enrich/phone"


def test_a_submission_is_never_repeated(profile: Profile) -> None:
    for answer in (
        500,
        503,
        429,
        408,
        httpx.ReadError("x"),
        httpx.ConnectError("x"),
        httpx.ConnectTimeout("x"),
    ):
        seen = []

        def handler(request: Any, answer: Any = answer, seen: list[Any] = seen) -> Any:
            seen.append(request)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer)

        ask(profile, handler, "submit", ASYNC)
        assert len(seen) == 1


def test_a_poll_uses_the_jobs_own_bearer(profile: Profile) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return httpx.Response(200, json={"job_id": "job_1", "status": "running"})

    assert ask(profile, handler, "poll", job()) == ev.StillRunning("running", known=True, answer=None)
    assert str(seen[0].url) == "https://411data.io/api/v1/enrich/jobs/job_1"
    assert [request.headers["authorization"] for request in seen] == [f"Bearer {BEARER}"]
    ask(profile, handler, "poll", job(bearer=None))
    assert seen[1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_bearer_is_tried_once_more_with_the_key(profile: Profile, status: int) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request.headers["authorization"])
        if BEARER in seen[-1]:
            return httpx.Response(status)
        return httpx.Response(200, json={"status": "done", "matched": False})

    assert isinstance(ask(profile, handler, "poll", job()), ev.Finished)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("status", "bearer", "asked"), [(401, BEARER, 2), (403, None, 1), (404, BEARER, 1), (410, None, 1)]
)
def test_a_job_that_nobody_knows_is_gone(profile: Profile, status: int, bearer: Any, asked: Any) -> None:
    seen = []
    event = ask(profile, lambda request: seen.append(request) or httpx.Response(status), "poll", job(bearer))
    assert (type(event), event.http_status, len(seen)) == (ev.Gone, status, asked)


def test_the_ceiling_of_the_attempt_makes_a_cost_of_a_refund(profile: Profile) -> None:
    answer = {"status": "done", "matched": True, "refunded_usd": 1.08}
    asked = dataclasses.replace(job(), ceiling_microusd=1_500_000)
    event = ask(profile, lambda _: httpx.Response(200, json=answer), "poll", asked)
    assert event.verdict.cost_microusd == 420_000


@pytest.mark.parametrize(
    "remote", ["../agents/balance", "a/b", "a?b", "a#b", "", "%2e%2e", "a" * 129, "a\n", "é"]
)
def test_an_id_that_does_not_belong_in_a_url_never_gets_into_one(profile: Profile, remote: str) -> None:
    seen = []
    event = ask(profile, seen.append, "poll", job(remote_job_id=remote))
    assert event == ev.PollFailed("bad_remote_job_id")
    assert seen == []


def test_the_balance_is_read_with_the_key(profile: Profile) -> None:
    seen = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return httpx.Response(200, json={"virtual_balance_usd": "12.50"})

    assert ask(profile, handler, "balance") == ev.Balance(12_500_000, 10_000, None)
    assert seen[0].url.path == "/api/v1/agents/balance"
    assert ask(profile, lambda _: httpx.Response(401), "balance").not_allowed


def test_a_retry_after_date_is_measured_on_our_clock(profile: Profile, clock: Any) -> None:
    async def scene() -> Any:
        headers = {"Retry-After": "Fri, 02 Jan 2026 03:04:35 GMT"}
        async with client(
            profile, handler=lambda _: httpx.Response(429, headers=headers), clock=clock
        ) as one:
            return await one.submit(ASYNC), await one.poll(job())

    submitted, polled = asyncio.run(scene())
    assert submitted.retry_after_s == 30
    assert (polled.retry_after_s, polled.throttled) == (30, True)


@pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(profile: Profile, key: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        Client("https://411data.io", ev.Secret(key), profile, SystemClock())
    assert not key or key not in str(caught.value)


def test_plain_http_is_refused_off_loopback(profile: Profile) -> None:
    with pytest.raises(UsageProblem):
        client(profile, "http://411data.io")


def test_the_client_is_a_provider(profile: Profile) -> None:
    async def scene() -> None:
        one: Provider = client(profile, handler=lambda _: httpx.Response(500))
        await one.aclose()

    asyncio.run(scene())


# --- malformed answers, over a real socket (faults.md, 8.2) ---


def http(body: Any, head: Any = b"200 OK", extra: Any = b"") -> Any:
    return b"HTTP/1.1 " + head + b"\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


BROKEN = {
    "html_502": (http(b"<html>502</html>", b"502 Bad Gateway"), "http_502", "http_502"),
    "html_200": (http(b"<html>fine</html>"), "not_json", "not_json"),
    "truncated_json": (http(b'{"job_id": "job_1", "sta'), "not_json", "not_json"),
    "empty_202": (http(b"", b"202 Accepted"), "empty", "empty"),
    "empty_204": (b"HTTP/1.1 204 No Content\r\n\r\n", "empty", "empty"),
    "length_larger_than_body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        "remote_protocol_error",
        None,
    ),
    "bad_chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        "remote_protocol_error",
        None,
    ),
    "unfinished_chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "remote_protocol_error",
        None,
    ),
    "not_http": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "remote_protocol_error", None),
    "closed": (b"", "remote_protocol_error", None),
    "half_a_head": (b"HTTP/1.1 200 OK\r\nContent-Le", "remote_protocol_error", None),
    "huge_header": (http(b"{}", extra=b"X-Big: " + b"x" * 200_000 + b"\r\n"), "remote_protocol_error", None),
    "bad_gzip": (http(b"nonsense", extra=b"Content-Encoding: gzip\r\n"), "decoding_error", "decoding_error"),
    "nan": (
        http(b'{"job_id": "job_1", "status": "done", "charged_usd": NaN}'),
        "not_a_number",
        "not_a_number",
    ),
    "5000_digits": (http(b'{"job_id": ' + b"1" * 5_000 + b"}"), "not_json", "not_json"),
    "deep": (http(b"[" * 100_000), "too_deep", "too_deep"),
    "repeated_job_id": (http(b'{"job_id": "a", "job_id": "b"}'), "repeated_key", "repeated_key"),
    "missing_job_id": (http(b"{}"), "no_job_id", "no_state"),
    "redirect": (http(b"", b"302 Found", b"Location: http://127.0.0.1:9/\r\n"), "http_302", "http_302"),
    "conflict": (http(b"{}", b"409 Conflict"), "http_409", "http_409"),
    "not_utf8": (http(b'{"job_id": "\xff"}'), "not_json", "not_json"),
    "status_999": (http(b"{}", b"999 Odd"), "http_999", "http_999"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_malformed_answer_leaves_a_post_in_doubt_and_a_poll_failed(
    profile: Profile, raw_server: Any, name: str
) -> None:
    answer, post_error, poll_error = BROKEN[name]

    async def scene() -> Any:
        async with raw_server(answer) as server, client(profile, server.url) as one:
            return await one.submit(ASYNC), await one.submit(SYNC), await one.poll(job()), await one.balance()

    submitted, sync, polled, balance = asyncio.run(scene())
    assert (type(submitted), submitted.error) == (ev.Unknown, post_error)
    if name not in ("missing_job_id", "repeated_job_id"):  # an object is an answer to a sync call
        assert isinstance(sync, ev.Unknown)
    assert (type(polled), polled.error) == (ev.PollFailed, poll_error or post_error)
    assert isinstance(balance, ev.BalanceUnknown)


def test_a_broken_body_is_kept_with_its_status(profile: Profile, raw_server: Any) -> None:
    async def scene() -> Any:
        answer = (
            b'HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n{"job_id": "job_1", "poll_bearer": "pb_need'
        )
        async with raw_server(answer) as server, client(profile, server.url) as one:
            return await one.submit(ASYNC)

    event = asyncio.run(scene())
    assert (event.error, event.http_status) == ("remote_protocol_error", 202)
    assert event.answer.body == '{"job_id": "job_1", "poll_bearer": "[cut]"'


def test_a_server_that_says_nothing_leaves_a_doubt_at_the_deadline(
    impatient: Profile, raw_server: Any
) -> None:
    async def scene() -> Any:
        async def silent(_reader: Any, _writer: Any) -> None:
            await asyncio.Event().wait()

        async with raw_server(silent) as server, client(impatient, server.url) as one:
            return await asyncio.gather(one.submit(ASYNC), one.submit(SYNC), one.poll(job()), one.balance())

    submitted, sync, polled, balance = asyncio.run(scene())
    for event in (submitted, sync):
        assert isinstance(event, ev.Unknown)
        assert event.error in ("deadline", "read_timeout")
    assert isinstance(polled, ev.PollFailed)
    assert isinstance(balance, ev.BalanceUnknown)


def test_a_closed_port_is_surely_not_sent(profile: Profile, raw_server: Any) -> None:
    async def scene() -> Any:
        async with raw_server(b"") as server:
            pass
        async with client(profile, server.url) as one:
            return await one.submit(ASYNC), await one.poll(job())

    submitted, polled = asyncio.run(scene())
    assert submitted == ev.NotSent("connect_error")
    assert polled == ev.PollFailed("connect_error")


def test_tls_that_fails_is_surely_not_sent(profile: Profile, raw_server: Any) -> None:
    async def scene() -> Any:
        async with (
            raw_server(b"HTTP/1.1 400 Not TLS\r\n\r\n", at_once=True) as server,
            client(profile, server.url.replace("http:", "https:")) as one,
        ):
            return await one.submit(ASYNC)

    assert asyncio.run(scene()) == ev.NotSent("connect_error")


# --- cancellation ---


def test_a_cancelled_submission_raises_and_says_what_had_come(profile: Profile, raw_server: Any) -> None:
    async def scene() -> Any:
        said = asyncio.Event()

        async def silent(_reader: Any, _writer: Any) -> None:
            said.set()
            await asyncio.Event().wait()

        async with raw_server(silent) as server, client(profile, server.url) as one:
            task = asyncio.create_task(one.submit(ASYNC))
            await said.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            return what_came(caught.value)

    assert asyncio.run(scene()) == ev.Unknown("cancelled", None, None)


def test_an_answer_that_was_whole_when_the_cancellation_struck_is_not_lost(profile: Profile) -> None:
    class Stubborn(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"job_id": "job_1"}'

        async def aclose(self) -> None:
            closing.set()
            await asyncio.Event().wait()

    closing = asyncio.Event()

    async def scene() -> Any:
        async with client(profile, handler=lambda _: httpx.Response(202, stream=Stubborn())) as one:
            task = asyncio.create_task(one.submit(ASYNC))
            await closing.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            return what_came(caught.value)

    assert isinstance(asyncio.run(scene()), ev.Accepted)


def test_a_timeout_of_the_caller_still_works_around_a_submission(profile: Profile, raw_server: Any) -> None:
    async def scene() -> None:
        async def silent(_reader: Any, _writer: Any) -> None:
            await asyncio.Event().wait()

        async with raw_server(silent) as server, client(profile, server.url) as one:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await one.submit(ASYNC)

    asyncio.run(scene())


def test_any_other_cancellation_knows_nothing() -> None:
    assert what_came(asyncio.CancelledError()) == ev.Unknown("cancelled", None, None)
    assert what_came(asyncio.CancelledError("shutdown")) == ev.Unknown("cancelled", None, None)


# --- secrets and surprises ---


def test_no_secret_reaches_a_log_a_repr_or_a_traceback(
    profile: Profile, raw_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.getLogger(name).level, name)
    shown = []

    async def scene() -> None:
        body = json.dumps(
            {"job_id": "job_1", "poll_bearer": BEARER, "status": "paused", "echo": KEY}
        ).encode()
        answer = http(body, b"202 Accepted", b"X-Echo: " + KEY.encode() + b"\r\n")
        async with raw_server(answer) as server, client(profile, server.url) as one:
            shown.append(repr(one) + str(one) + repr(one._transport) + repr(vars(one)))
            shown.append(repr([await one.submit(ASYNC), await one.submit(SYNC), await one.poll(job())]))
            shown.append(repr(await one._transport.post("/p", b"{}", {}, 1.0)))
            try:
                await one.submit(PaidCall(1, 1, "enrich/phone", "batch", "{}", UUID, 1))
            except Bug:
                shown.append(traceback.format_exc())

    asyncio.run(scene())
    assert len(shown) == 4
    assert "needle" not in "".join(shown)
    assert "needle" not in caplog.text


@settings(deadline=None, max_examples=60)
@given(st.integers(200, 599), st.binary(max_size=60), st.sampled_from(["", "gzip", "br", "identity"]))
def test_no_answer_at_all_makes_a_verb_raise(status: int, body: Any, encoding: str) -> None:
    class Raw(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield body

    def handler(_request: Any) -> Any:
        return httpx.Response(status, headers={"Content-Encoding": encoding}, stream=Raw())

    async def scene() -> Any:
        async with client(Profile.load(), handler=handler) as one:
            return await one.submit(ASYNC), await one.submit(SYNC), await one.poll(job()), await one.balance()

    submitted, sync, polled, balance = asyncio.run(scene())
    assert isinstance(submitted, ev.PostEvent)
    assert isinstance(sync, ev.PostEvent)
    assert isinstance(polled, ev.PollEvent)
    assert isinstance(balance, ev.Balance | ev.BalanceUnknown)
