"""Each fault fires where it says, does what it says to the money, and is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.faults import (
    AFTER_JOB,
    ASSUMED_AWAY,
    BEFORE,
    DELIVERY,
    FAULTS,
    LOSING,
    POLL,
    Faults,
    draw,
)
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import Reply, call
from ledger.sandbox.wire import ConnectionDropped

JOB = {"route": "enrich/websearch", "payload": {"business_name": "Acme"}}
FATED = {"unknown_word", "missing_cost", "refund_late", "fail_job", "over_ceiling"}


def world(**settings: Any) -> Sandbox:
    return create_app(Settings(**{"speed": 0, "match_rate": 1, "slow_byte_ms": 0, **settings}))


async def submit(app: Sandbox, n: int = 0) -> Reply | None:
    """The answer; None when the connection was dropped."""
    try:
        return await call(
            app, "POST", "/api/v1/enrich/jobs", {**JOB, "payload": {"business_name": f"Acme {n}"}}
        )
    except ConnectionDropped:
        return None


async def poll(app: Sandbox, index: int = 0) -> Reply:
    one = app.provider.books.submissions[index]
    return await call(app, "GET", f"/api/v1/enrich/jobs/{one.remote_job_id}", token=one.poll_bearer)


async def advance(app: Sandbox, seconds: float) -> None:
    await call(app, "POST", "/sandbox/advance", {"seconds": seconds})


async def books(app: Sandbox) -> Any:
    return (await call(app, "GET", "/sandbox/books")).json()


def test_every_fault_belongs_to_exactly_one_place() -> None:
    places = [*BEFORE, *AFTER_JOB, *POLL, *FATED, *DELIVERY, "balance_wrong"]
    assert sorted(places) == sorted([*FAULTS, *ASSUMED_AWAY])
    assert all(sentence.endswith(".") for sentence in FAULTS.values())


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no such fault: lose_everything; known: .*lose_answer"):
        Settings(faults={"lose_everything": 1})


@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_before_acceptance_accepts_nothing(fault: str) -> None:
    async def story() -> None:
        app = world(faults={fault: 1})
        answer = await submit(app)
        told = await books(app)
        assert told["faults"] == {fault: 1}
        assert told["counts"]["accepted"] == 0
        assert told["money"]["balance_microusd"] == told["money"]["opening_microusd"]
        statuses = {"error_500_before": 500, "html_page": 502, "throttle": 429, "no_money": 402}
        assert (answer.status if answer else None) == statuses.get(fault)
        if fault == "html_page":
            assert answer is not None
            assert answer.headers["content-type"].startswith("text/html")

    asyncio.run(story())


def test_a_late_accept_charges_when_nobody_looks() -> None:
    async def story() -> None:
        app = world(faults={"late_accept": 1}, late_accept_s=600)
        assert await submit(app) is None
        assert (await books(app))["counts"] == {**(await books(app))["counts"], "late_pending": 1}
        await advance(app, 599)
        assert (await books(app))["counts"]["accepted"] == 0
        await advance(app, 2)
        told = await books(app)
        assert (told["counts"]["accepted"], told["counts"]["late_pending"]) == (1, 0)
        assert told["money"]["held_microusd"] == 1_500_000
        assert told["answers_lost"] == [told["submissions"][0]["remote_job_id"]]
        assert told["submissions"][0]["accepted_at"] == "2026-01-01T00:10:00.000000Z"
        await advance(app, 30)
        assert (await books(app))["counts"]["completed"] == 1

    asyncio.run(story())


def test_a_late_accept_is_refused_by_an_empty_balance() -> None:
    async def story() -> None:
        app = world(faults={"late_accept": 1}, opening_usd="1")
        await submit(app)
        await advance(app, 10)
        counts = (await books(app))["counts"]
        assert (counts["accepted"], counts["late_refused"]) == (0, 1)

    asyncio.run(story())


@pytest.mark.parametrize("fault", AFTER_JOB)
def test_a_fault_after_acceptance_is_accepted_and_charged(fault: str) -> None:
    async def story() -> None:
        app = world()
        await submit(app, 1)
        app.provider.configure(app.provider.settings.changed({"faults": {fault: 1}}))
        answer = await submit(app, 2)
        await advance(app, 30)
        told = await books(app)
        assert told["faults"] == {fault: 1}
        assert told["counts"]["charged"] == 2
        first, second = (one["remote_job_id"] for one in told["submissions"])
        assert told["answers_lost"] == ([second] if fault in LOSING else [])
        if fault in ("lose_answer", "cut_body"):
            assert answer is None
            return
        assert answer is not None
        status = {"error_500_after": 500, "refuse_charged": 422, "throttle_charged": 429}.get(fault, 202)
        assert answer.status == status
        if fault == "html_after":
            assert answer.body.startswith(b"<!doctype html>")
            return
        said = answer.json()
        assert said.get("job_id") == {
            "repeated_job_id": first,
            "slow_bytes": second,
            "missing_bearer": second,
        }.get(fault)
        assert ("poll_bearer" in said) is (fault in ("slow_bytes", "missing_job_id", "repeated_job_id"))

    asyncio.run(story())


def test_the_first_job_has_no_id_to_repeat() -> None:
    async def story() -> None:
        app = world(faults={"repeated_job_id": 1})
        await submit(app)
        assert (await books(app))["faults"] == {}

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["lose_answer", "error_500_after", "cut_body", "slow_bytes", "html_after"])
def test_a_sync_answer_can_be_spoilt_too(fault: str) -> None:
    async def story() -> None:
        app = world(faults={fault: 1}, latency_s={"enrich/phone": Latency("fixed", 0)})
        try:
            answer = await call(app, "POST", "/api/v1/enrich/phone", {"phone": "+14155550123"})
        except ConnectionDropped:
            assert fault in ("lose_answer", "cut_body")
        else:
            assert answer.status == (500 if fault == "error_500_after" else 200)
        told = await books(app)
        assert told["faults"] == {fault: 1}
        assert told["money"]["charged_microusd"] == 330_000
        assert len(told["answers_lost"]) == (fault != "slow_bytes")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "status"), [("poll_500", 500), ("poll_html", 502), ("poll_404", 404), ("poll_cut", None)]
)
def test_a_spoilt_poll_changes_nothing(fault: str, status: int | None) -> None:
    async def story() -> None:
        app = world(faults={fault: 1}, fault_limits={fault: 1})
        await submit(app)
        if status is None:
            with pytest.raises(ConnectionDropped):
                await poll(app)
        else:
            assert (await poll(app)).status == status
        assert (await books(app))["faults"] == {fault: 1}
        assert (await poll(app)).json()["status"] == "running"

    asyncio.run(story())


def test_an_unknown_word_is_said_for_a_while() -> None:
    async def story() -> list[str]:
        app = world(faults={"unknown_word": 1}, unknown_word_polls=2)
        await submit(app)
        await advance(app, 30)
        words = [(await poll(app)).json()["status"] for _ in range(3)]
        assert (await books(app))["faults"] == {"unknown_word": 2}
        return words

    assert asyncio.run(story()) == ["marinating", "marinating", "completed"]


def test_a_missing_cost_is_missing_everywhere() -> None:
    async def story() -> None:
        app = world(faults={"missing_cost": 1})
        await submit(app)
        await advance(app, 30)
        final = (await poll(app)).json()
        assert final["status"] == "completed"
        assert not [name for name in (*final, *final["result"]) if name.endswith("_usd")]
        assert (await books(app))["faults"] == {"missing_cost": 1}

    asyncio.run(story())


def test_a_late_refund_is_held_until_it_comes() -> None:
    async def story() -> None:
        app = world(faults={"refund_late": 1}, refund_late_s=60, match_rate=0)
        await submit(app)
        await advance(app, 30)
        assert (await poll(app)).json()["refunded_usd"] == 1.5
        held = await books(app)
        assert held["money"]["held_microusd"] == 1_500_000
        assert held["balanced"]
        await advance(app, 60)
        assert (await books(app))["money"]["balance_microusd"] == 10_000_000_000

    asyncio.run(story())


def test_a_failed_job_says_so() -> None:
    async def story() -> None:
        app = world(faults={"fail_job": 1})
        await submit(app)
        await advance(app, 30)
        said = (await poll(app)).json()
        assert (said["status"], said["error"]["code"]) == ("failed", "VENDOR_TIMEOUT")

    asyncio.run(story())


def test_over_the_ceiling_takes_from_the_balance() -> None:
    async def story() -> None:
        app = world(faults={"over_ceiling": 1})
        await submit(app)
        await advance(app, 30)
        told = await books(app)
        assert told["submissions"][0]["charged_microusd"] == 1_875_000
        assert told["money"]["balance_microusd"] == 10_000_000_000 - 1_875_000
        assert told["balanced"]

    asyncio.run(story())


def test_a_wrong_balance_is_only_shown() -> None:
    async def story() -> None:
        app = world(faults={"balance_wrong": 1})
        assert (await call(app, "GET", "/api/v1/agents/balance")).json()["virtual_balance_usd"] == 9999
        assert (await books(app))["money"]["balance_microusd"] == 10_000_000_000

    asyncio.run(story())


def test_a_rate_is_a_share_of_the_requests_and_a_limit_a_number_of_them() -> None:
    faults = Faults(3, {"lose_answer": 0.25, "cut_body": 1.0}, {"cut_body": 2})
    fired = sum(faults.fires("lose_answer", str(n)) for n in range(4000))
    assert 900 < fired < 1100
    assert faults.fired["lose_answer"] == fired
    assert [faults.fires("cut_body", str(n)) for n in range(4)] == [True, True, False, False]
    assert not faults.fires("poll_500", "1")


def test_a_draw_depends_on_its_parts_alone() -> None:
    assert draw(1, "a") == draw(1, "a") != draw(1, "b")
    assert all(0 <= draw(n) < 1 for n in range(1000))


def test_a_same_key_answer_later_makes_good_a_lost_one() -> None:
    async def story() -> None:
        app = world(honours_keys=True, faults={"lose_answer": 1}, fault_limits={"lose_answer": 1})
        key = {"idempotency-key": "k"}
        with pytest.raises(ConnectionDropped):
            await call(app, "POST", "/api/v1/enrich/jobs", JOB, headers=key)
        assert len((await books(app))["answers_lost"]) == 1
        assert (await call(app, "POST", "/api/v1/enrich/jobs", JOB, headers=key)).status == 202
        told = await books(app)
        assert told["answers_lost"] == []
        assert told["counts"]["accepted"] == 1

    asyncio.run(story())
