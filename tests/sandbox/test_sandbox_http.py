"""Keys, refusals, limits, and the shapes the answers can take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.settings import Settings, Speech
from ledger.sandbox.testing import Reply, call
from ledger.sandbox.wire import Message

JOB: dict[str, Any] = {"route": "enrich/websearch", "payload": {"business_name": "Acme"}}
JOBS = "/api/v1/enrich/jobs"


def ask(app: Sandbox, method: str, path: str, body: object = None, **more: Any) -> Reply:
    return asyncio.run(call(app, method, path, body, **more))


def still(**settings: Any) -> Sandbox:
    return create_app(Settings(**{"speed": 0, "match_rate": 1, **settings}))


def finished(speech: Speech, **settings: Any) -> Any:
    """The final poll of one job in this speech."""
    app = still(speech=speech, **settings)
    told = ask(app, "POST", JOBS, JOB).json()
    ask(app, "POST", "/sandbox/advance", {"seconds": 60})
    return ask(app, "GET", f"{JOBS}/{told['job_id']}", token=told["poll_bearer"]).json()


def test_who_may_pay() -> None:
    app = still(revoked_keys=["411_gone"])
    anonymous = ask(app, "POST", JOBS, JOB, token=None)
    assert (anonymous.status, anonymous.json()["code"]) == (402, "AGENT_TOKEN_REQUIRED")
    assert [ask(app, "POST", JOBS, JOB, token=token).status for token in ("411_a", "411k_b")] == [202, 202]
    assert [ask(app, "POST", JOBS, JOB, token=token).status for token in ("sk_a", "411_gone")] == [401, 401]
    named = still(keys=["411_mine"])
    assert ask(named, "POST", JOBS, JOB, token="411_mine").status == 202
    assert ask(named, "POST", JOBS, JOB, token="411_other").status == 401
    assert ask(named, "GET", "/api/v1/agents/balance", token="411_other").status == 401


def test_who_may_poll() -> None:
    app = still()
    told = ask(app, "POST", JOBS, JOB).json()
    path = f"{JOBS}/{told['job_id']}"
    assert ask(app, "GET", path, token=told["poll_bearer"]).status == 200
    assert ask(app, "GET", path).status == 200
    assert ask(app, "GET", path, token="pb_other").status == 403
    assert ask(app, "GET", path, token=None).status == 401
    assert ask(app, "GET", f"{JOBS}/job_unknown").status == 404
    assert ask(app, "PATCH", "/sandbox/settings", {"account_key_polls": False}).status == 200
    assert ask(app, "GET", path).status == 403
    assert ask(app, "GET", path, token=told["poll_bearer"]).status == 200


def test_a_sync_submission_is_no_job() -> None:
    app = still(latency_s={"enrich/phone": ["fixed", 0]})
    ask(app, "POST", "/api/v1/enrich/phone", {"phone": "1"})
    one = app.provider.books.submissions[0]
    assert ask(app, "GET", f"{JOBS}/{one.remote_job_id}", token=one.poll_bearer).status == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", ["body"]),
        (b"[" * 100_000, ["body"]),
        ([1], ["body"]),
        ({**JOB, "route": "enrich/email"}, ["body", "route"]),
        ({**JOB, "route": ["enrich/websearch"]}, ["body", "route"]),
        ({"route": "enrich/websearch"}, ["body", "payload"]),
        ({**JOB, "payload": {}}, ["body", "payload"]),
        ({**JOB, "payload": {"city": "Reno"}}, ["body", "payload", "business_name"]),
        ({**JOB, "bill_up_to_usd": 0.049999}, ["body", "bill_up_to_usd"]),
        ({**JOB, "bill_up_to_usd": 50.01}, ["body", "bill_up_to_usd"]),
        ({**JOB, "bill_up_to_usd": True}, ["body", "bill_up_to_usd"]),
        ({**JOB, "bill_up_to_usd": "NaN"}, ["body", "bill_up_to_usd"]),
    ],
)
def test_an_invalid_body_is_answered_as_fastapi_does(body: object, where: list[str]) -> None:
    app = still(required_fields={"enrich/websearch": ["business_name"]})
    answer = ask(app, "POST", JOBS, body)
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == where
    assert ask(app, "GET", "/sandbox/books").json()["counts"]["accepted"] == 0


def test_a_ceiling_may_be_at_either_end_of_its_range() -> None:
    app = still()
    ceilings = [0.05, "50.00", 1.234567]
    assert [ask(app, "POST", JOBS, {**JOB, "bill_up_to_usd": one}).status for one in ceilings] == [202] * 3
    pre_charged = [one.pre_charge_microusd for one in app.provider.books.submissions]
    assert pre_charged == [50_000, 50_000_000, 1_234_567]


def test_other_pages_and_methods() -> None:
    app = still()
    assert ask(app, "POST", "/api/v1/enrich/email", {"email": "a@example.com"}).status == 404
    assert ask(app, "GET", "/api/v1/enrich/jobsters").status == 404
    assert ask(app, "GET", JOBS).status == 405
    assert ask(app, "GET", "/sandbox/secrets").status == 404
    assert ask(app, "POST", JOBS, b"x" * (1 << 21)).status == 413
    assert ask(app, "GET", "/api/v1/agents/me", token="411k_a").json() == {
        "agent_id": "agent_sandbox",
        "key": "usage",
    }


def test_the_rate_limit_is_a_bucket_in_real_seconds() -> None:
    now = [100.0]
    app = create_app(Settings(rate_per_s=2, rate_burst=3), real=lambda: now[0])
    assert [ask(app, "POST", JOBS, JOB).status for _ in range(5)] == [202, 202, 202, 429, 429]
    assert ask(app, "POST", JOBS, JOB).headers["retry-after"] == "1"
    now[0] += 0.5
    assert [ask(app, "POST", JOBS, JOB).status for _ in range(2)] == [202, 429]
    job_id = app.provider.books.submissions[0].remote_job_id
    assert ask(app, "GET", f"{JOBS}/{job_id}").status == 429
    ask(app, "POST", "/sandbox/settings", {"limit_polls": False})
    assert ask(app, "GET", f"{JOBS}/{job_id}").status == 200


@pytest.mark.parametrize(
    ("style", "header"),
    [
        ("seconds", "1"),
        ("date", "Thu, 01 Jan 1970 00:01:01 GMT"),
        ("nonsense", "nonsense"),
        ("-5", "-5"),
        ("absent", None),
    ],
)
def test_retry_after_comes_in_many_ways(style: str, header: str | None) -> None:
    app = create_app(Settings(faults={"throttle": 1}, retry_after=style), wall=lambda: 60.0)
    answer = ask(app, "POST", JOBS, JOB)
    assert answer.status == 429
    assert answer.headers.get("retry-after") == header


def test_only_so_many_posts_at_once() -> None:
    async def story() -> None:
        app = still(max_posts_at_once=2)
        path, body = "/api/v1/enrich/person", {"name": "Ann"}
        waiting = [asyncio.create_task(call(app, "POST", path, body)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await call(app, "POST", path, body)).status == 429
        await call(app, "POST", "/sandbox/advance", {"seconds": 3})
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert app.provider.limits.posts_at_once == 0
        told = (await call(app, "GET", "/sandbox/books")).json()
        assert told["counts"]["posts_at_once_max"] == 3
        assert told["counts"]["accepted"] == 2

    asyncio.run(story())


def test_only_so_many_open_jobs() -> None:
    app = still(max_open_jobs=2)
    assert [ask(app, "POST", JOBS, JOB).status for _ in range(3)] == [202, 202, 429]
    ask(app, "POST", "/sandbox/advance", {"seconds": 60})
    assert ask(app, "POST", JOBS, JOB).status == 202


def test_the_default_shapes_are_those_of_the_notes() -> None:
    app = still()
    told = ask(app, "POST", JOBS, JOB).json()
    assert list(told) == ["job_id", "poll_bearer", "billing_mode", "status"]
    assert (told["billing_mode"], told["status"]) == ("virtual_balance", "queued")
    path = f"{JOBS}/{told['job_id']}"
    assert ask(app, "GET", path).json() == {"job_id": told["job_id"], "status": "running"}
    ask(app, "POST", "/sandbox/advance", {"seconds": 30})
    final = ask(app, "GET", path).json()
    assert list(final) == ["job_id", "status", "charged_usd", "refunded_usd", "result"]
    assert list(final["result"]) == ["summary_markdown", "entities", "matched", "billed", "cache_hit"]
    assert ask(app, "GET", path).json() == final
    assert isinstance(final["charged_usd"], float)


def test_the_state_may_have_another_field_and_other_words() -> None:
    speech = Speech(state_field="state", words={"completed": "SUCCEEDED"})
    assert finished(speech)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("place", ["result", "data", "output", "body"])
def test_the_result_may_sit_elsewhere(place: str) -> None:
    final = finished(Speech(result_at=place))
    assert (final if place == "body" else final[place])["matched"] is True


def test_the_flags_may_sit_beside_the_result_or_be_absent() -> None:
    beside = finished(Speech(flags_in="body"))
    assert beside["matched"] is True
    assert "matched" not in beside["result"]
    absent = finished(Speech(flags_in="absent"))
    assert "matched" not in {*absent, *absent["result"]}


def test_the_cost_may_have_another_name_place_and_type() -> None:
    plain = finished(Speech())
    text = finished(Speech(cost_field="cost_usd", cost_in="result", money_as="text"))
    assert text["result"]["cost_usd"] == f"{plain['charged_usd']:.6f}"
    assert "charged_usd" not in text
    noisy = finished(Speech(money_as="noisy"))
    assert plain["charged_usd"] < noisy["charged_usd"] < plain["charged_usd"] + 1e-9
    quiet = finished(Speech(cost_field=""))
    assert "charged_usd" not in quiet
    assert quiet["refunded_usd"] == plain["refunded_usd"]
    assert "refunded_usd" not in finished(Speech(refund_field=""))


def test_a_sync_answer_may_keep_quiet_about_its_cost() -> None:
    speech = Speech(sync_states_cost=False)
    app = still(speech=speech, latency_s={"enrich/phone": ["fixed", 0]})
    assert "charged_usd" not in ask(app, "POST", "/api/v1/enrich/phone", {"phone": "1"}).json()


def test_errors_come_in_three_envelopes() -> None:
    said = {
        shape: ask(still(speech=Speech(error_shape=shape)), "POST", JOBS, JOB, token="x").json()
        for shape in ("flat", "error", "detail")
    }
    assert said["flat"]["code"] == said["error"]["error"]["code"] == said["detail"]["detail"]["code"]


def test_the_balance_may_be_text_with_few_decimals() -> None:
    speech = Speech(money_as="text", balance_field="balance", balance_decimals=2)
    told = ask(still(opening_usd="12.345678", speech=speech), "GET", "/api/v1/agents/balance").json()
    assert told == {"agent_id": "agent_sandbox", "balance": "12.35"}


def test_settings_change_while_it_runs_but_not_the_frozen_ones() -> None:
    app = still()
    changed = ask(app, "POST", "/sandbox/settings", {"faults": {"poll_500": 0.5}, "speed": 2})
    assert changed.json()["faults"] == {"poll_500": 0.5}
    assert ask(app, "GET", "/sandbox/settings").json()["speed"] == 2
    for wrong in ({"seed": 1}, {"faults": {"nope": 1}}, {"colour": "red"}, {"match_rate": "x"}, [1]):
        assert ask(app, "POST", "/sandbox/settings", wrong).status == 422
    assert app.provider.settings.faults == {"poll_500": 0.5}


@pytest.mark.parametrize("usd", ["-1", "abc", None, True])
def test_a_top_up_is_an_amount(usd: object) -> None:
    app = still()
    assert ask(app, "POST", "/sandbox/top-up", {"usd": usd}).status == 422
    assert ask(app, "GET", "/sandbox/books").json()["money"]["top_ups_microusd"] == 0


def test_an_answer_takes_its_real_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    app = still(answer_ms=50, answer_ms_of={"balance": 0, "me": 7})
    for path in ("/api/v1/agents/balance", "/api/v1/agents/me", f"{JOBS}/job_x", "/sandbox/books"):
        ask(app, "GET", path)
    ask(app, "POST", JOBS, JOB)
    assert slept == [0.007, 0.05, 0.05]


def test_a_full_sandbox_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.sandbox.paid.MAX_SUBMISSIONS", 1)
    app = still()
    assert [ask(app, "POST", JOBS, JOB).status for _ in range(2)] == [202, 503]


def test_an_answer_to_a_client_that_has_gone_is_lost() -> None:
    class Cycle:
        """As far as `deliver` looks: the request cycle of uvicorn after its connection is gone."""

        disconnected = True

        async def send(self, message: Message) -> None:
            raise AssertionError(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(JOB).encode()}

    app = still()
    scope = {"type": "http", "method": "POST", "path": JOBS, "query_string": b""}
    headers = [(b"authorization", b"Bearer 411_a")]
    asyncio.run(app({**scope, "headers": headers}, receive, Cycle().send))
    told = ask(app, "GET", "/sandbox/books").json()
    assert told["answers_lost"] == [told["submissions"][0]["remote_job_id"]]
