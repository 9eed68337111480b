"""The books balance, whatever comes in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.faults import FAULTS
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import Reply, call
from ledger.sandbox.wire import ConnectionDropped

STILL = Settings(speed=0)
"""Time stands still until a test advances it."""


def job(n: int, ceiling: object = None, route: str = "enrich/websearch") -> dict[str, Any]:
    body = {"route": route, "payload": {"business_name": f"Acme {n}"}}
    return body if ceiling is None else {**body, "bill_up_to_usd": ceiling}


async def submit(app: Sandbox, body: dict[str, Any], **more: Any) -> Reply:
    return await call(app, "POST", "/api/v1/enrich/jobs", body, **more)


async def advance(app: Sandbox, seconds: float) -> None:
    assert (await call(app, "POST", "/sandbox/advance", {"seconds": seconds})).status == 200


async def books(app: Sandbox) -> Any:
    return (await call(app, "GET", "/sandbox/books")).json()


def test_a_job_is_pre_charged_then_charged_what_it_cost_and_the_rest_refunded() -> None:
    async def story() -> None:
        app = create_app(Settings(speed=0, match_rate=1))
        told = (await submit(app, job(1, 5))).json()
        before = (await books(app))["money"]
        assert (before["held_microusd"], before["charged_microusd"]) == (5_000_000, 0)
        assert before["balance_microusd"] == 10_000_000_000 - 5_000_000
        await advance(app, 30)
        final = await call(app, "GET", f"/api/v1/enrich/jobs/{told['job_id']}", token=told["poll_bearer"])
        after = await books(app)
        charged = after["money"]["charged_microusd"]
        assert 500_000 <= charged <= 1_100_000
        assert after["money"]["balance_microusd"] == 10_000_000_000 - charged
        assert after["money"]["refunded_microusd"] == 5_000_000 - charged
        assert final.json()["charged_usd"] == charged / 1_000_000
        assert final.json()["refunded_usd"] == (5_000_000 - charged) / 1_000_000
        assert after["balanced"]

    asyncio.run(story())


def test_no_match_and_failure_cost_nothing() -> None:
    async def story(world: Settings, state: str) -> None:
        app = create_app(world)
        await submit(app, job(1))
        await advance(app, 30)
        told = await books(app)
        assert told["submissions"][0]["state"] == state
        assert told["money"]["balance_microusd"] == told["money"]["opening_microusd"]
        assert told["money"]["refunded_microusd"] == 1_500_000

    asyncio.run(story(Settings(speed=0, match_rate=0), "completed"))
    asyncio.run(story(Settings(speed=0, match_rate=1, faults={"fail_job": 1}), "failed"))


def test_a_charge_never_exceeds_the_ceiling() -> None:
    async def story() -> None:
        app = create_app(Settings(speed=0, match_rate=1))
        for n in range(20):
            await submit(app, job(n, 0.05))
        await advance(app, 30)
        assert {one["charged_microusd"] for one in (await books(app))["submissions"]} == {50_000}

    asyncio.run(story())


def test_the_balance_answers_402_when_it_is_short_and_takes_a_top_up() -> None:
    async def story() -> None:
        app = create_app(Settings(speed=0, opening_usd="2"))
        assert (await submit(app, job(1))).status == 202
        short = await submit(app, job(2))
        assert short.status == 402
        assert short.json()["code"] == "PAYMENT_REQUIRED"
        assert short.json()["billing_reason"] == "virtual_balance_insufficient"
        assert "payment-required" in short.headers
        assert (await call(app, "POST", "/sandbox/top-up", {"usd": "1"})).json() == {
            "balance_microusd": 1_500_000
        }
        assert (await submit(app, job(2))).status == 202
        told = await books(app)
        assert told["counts"]["accepted"] == 2
        assert told["money"]["top_ups_microusd"] == 1_000_000
        assert told["requests"]["submit"] == {"202": 2, "402": 1}
        assert told["balanced"]

    asyncio.run(story())


def test_an_identical_payload_is_a_duplicate_whatever_its_correlation_value() -> None:
    async def story() -> None:
        app = create_app(Settings(speed=0, match_rate=1))
        for ref in ("a", "b"):
            body = job(1)
            body["payload"]["source_ref"] = ref
            await submit(app, body)
        await submit(app, job(2))
        await advance(app, 30)
        told = await books(app)
        assert [(group["accepted"], group["charged"]) for group in told["duplicates"]] == [(2, 2)]
        assert [one["correlation"] for one in told["submissions"]] == ["a", "b", None]
        assert len({one["remote_job_id"] for one in told["submissions"]}) == 3

    asyncio.run(story())


def test_keys_are_recorded_and_honoured_only_when_asked() -> None:
    async def story(honours: bool) -> tuple[int, Any]:
        app = create_app(Settings(speed=0, honours_keys=honours))
        first = await submit(app, job(1), headers={"idempotency-key": "k1"})
        again = await submit(app, job(1), headers={"idempotency-key": "k1"})
        other = await submit(app, job(2), headers={"idempotency-key": "k1"})
        told = await books(app)
        assert told["submissions"][0]["idempotency_key"] == "k1"
        assert (first.json() == again.json()) is honours
        return other.status, told["counts"]["accepted"]

    assert asyncio.run(story(honours=True)) == (409, 1)
    assert asyncio.run(story(honours=False)) == (202, 3)


def test_a_repeated_payload_may_be_a_cache_hit() -> None:
    async def story(cache: str) -> list[tuple[bool, bool]]:
        app = create_app(Settings(speed=0, match_rate=1, cache=cache))
        for _ in range(2):
            await submit(app, job(1))
            await advance(app, 30)
        return [(one["cache_hit"], one["charged_microusd"] > 0) for one in (await books(app))["submissions"]]

    assert asyncio.run(story("off")) == [(False, True), (False, True)]
    assert asyncio.run(story("free")) == [(False, True), (True, False)]
    assert asyncio.run(story("billed")) == [(False, True), (True, True)]


def test_a_sync_call_answers_when_its_work_is_done_and_costs_its_price() -> None:
    async def story() -> None:
        app = create_app(Settings(speed=0, match_rate=1))
        post = asyncio.create_task(call(app, "POST", "/api/v1/enrich/phone", {"phone": "+14155550123"}))
        await asyncio.sleep(0)
        assert (await books(app))["money"]["held_microusd"] == 330_000
        assert not post.done()
        await advance(app, 3)
        answer = await post
        assert answer.status == 200
        assert answer.json()["matched"] is True
        assert answer.json()["charged_usd"] == 0.33
        told = await books(app)
        assert told["submissions"][0]["mode"] == "sync"
        assert told["money"]["charged_microusd"] == 330_000

    asyncio.run(story())


def test_a_sync_lead_session_may_cost_more_than_its_price() -> None:
    async def story() -> int:
        app = create_app(
            Settings(
                speed=0,
                match_rate=1,
                sync_true_up=True,
                cost_spread=(2, 2),
                latency_s={"enrich/lead-session": Latency("fixed", 0)},
            )
        )
        await call(app, "POST", "/api/v1/enrich/lead-session", {"lead": {"company": "Acme"}})
        told = await books(app)
        assert told["balanced"]
        return int(told["money"]["charged_microusd"])

    assert asyncio.run(story()) == 3_000_000


def test_the_same_seed_tells_the_same_story_in_any_order() -> None:
    async def story(order: list[int], seed: int) -> dict[str, Any]:
        app = create_app(Settings(speed=0, seed=seed, faults={"lose_answer": 0.3, "fail_job": 0.2}))
        for n in order:
            try:
                await submit(app, job(n))
            except ConnectionDropped:
                continue
        await advance(app, 60)
        told = await books(app)
        kept = ("remote_job_id", "state", "matched", "charged_microusd", "answer_lost", "due_at")
        return {one["payload"]["business_name"]: [one[name] for name in kept] for one in told["submissions"]}

    forward = asyncio.run(story(list(range(40)), seed=7))
    assert asyncio.run(story(list(range(39, -1, -1)), seed=7)) == forward
    assert asyncio.run(story(list(range(40)), seed=8)) != forward
    assert any(kept[4] for kept in forward.values())
    assert not all(kept[4] for kept in forward.values())


def test_totals_come_without_submissions_when_asked() -> None:
    async def story() -> None:
        app = create_app(STILL)
        await submit(app, job(1))
        told = (await call(app, "GET", "/sandbox/books?submissions=0")).json()
        assert "submissions" not in told
        assert told["counts"]["accepted"] == 1

    asyncio.run(story())


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.integers(0, 8), st.sampled_from([None, 0.05, "0.70", 1.234567, 2, 50])
        ),
        st.tuples(st.just("sync"), st.integers(0, 8), st.none()),
        st.tuples(st.just("poll"), st.integers(0, 30), st.none()),
        st.tuples(st.just("advance"), st.integers(0, 40), st.none()),
        st.tuples(st.just("top-up"), st.integers(0, 3), st.none()),
    ),
    max_size=40,
)
RATES = st.dictionaries(st.sampled_from(sorted(FAULTS)), st.sampled_from([0.1, 0.5, 1.0]), max_size=5)


async def _act(app: Sandbox, action: tuple[str, int, Any]) -> None:
    verb, n, detail = action
    accepted = app.provider.books.submissions
    match verb:
        case "submit":
            await submit(app, job(n, detail), headers={"idempotency-key": f"k{n}"})
        case "sync":
            await call(app, "POST", "/api/v1/enrich/person", {"name": f"Ann {n}"})
        case "poll" if accepted:
            one = accepted[n % len(accepted)]
            await call(app, "GET", f"/api/v1/enrich/jobs/{one.remote_job_id}", token=one.poll_bearer)
        case "advance":
            await advance(app, n)
        case "top-up":
            await call(app, "POST", "/sandbox/top-up", {"usd": n})


@settings(max_examples=120, deadline=None)
@given(actions=ACTIONS, rates=RATES, seed=st.integers(0, 99), honours=st.booleans())
def test_money_is_never_made_nor_lost(
    actions: list[tuple[str, int, Any]], rates: dict[str, float], seed: int, honours: bool
) -> None:
    at_once = {"enrich/person": Latency("fixed", 0)}

    async def story() -> None:
        world = Settings(
            seed=seed,
            speed=0,
            opening_usd="20",
            faults=rates,
            honours_keys=honours,
            latency_s=at_once,
            slow_byte_ms=0,
        )
        app = create_app(world)
        for action in actions:
            try:
                await _act(app, action)
            except ConnectionDropped:
                assert rates
            assert (await books(app))["balanced"]
        await advance(app, 1000)
        told = await books(app)
        assert told["balanced"]
        assert told["money"]["held_microusd"] == 0
        assert told["counts"]["running"] == told["counts"]["late_pending"] == 0
        for one in told["submissions"]:
            beyond = max(0, one["charged_microusd"] - one["pre_charge_microusd"])
            assert one["pre_charge_microusd"] + beyond == one["charged_microusd"] + one["refunded_microusd"]
            assert not beyond or "over_ceiling" in rates

    asyncio.run(story())


def test_the_self_check_can_fail() -> None:
    async def story() -> bool:
        app = create_app(STILL)
        await submit(app, job(1))
        app.provider.books.balance_microusd += 1
        return bool((await books(app))["balanced"])

    assert asyncio.run(story()) is False


@pytest.mark.parametrize("seconds", [-1, True, "5", None])
def test_time_goes_only_forward(seconds: object) -> None:
    reply = asyncio.run(call(create_app(STILL), "POST", "/sandbox/advance", {"seconds": seconds}))
    assert reply.status == 422


def test_after_a_reset_the_same_post_gets_the_same_job_and_the_same_fate() -> None:
    """What a campaign leans on that sets the books back by sending the same POSTs again."""

    async def story() -> None:
        app = create_app(Settings(speed=0, faults={"fail_job": 0.5}))
        told = []
        for _ in range(2):
            assert (await call(app, "POST", "/sandbox/reset", {})).status == 200
            assert (await books(app))["submissions"] == []
            answers = [(await submit(app, job(n))).json() for n in range(5)]
            await advance(app, 30)
            after = await books(app)
            assert after["balanced"]
            fates = [(one["state"], one["charged_microusd"]) for one in after["submissions"]]
            told.append(([(one["job_id"], one["poll_bearer"]) for one in answers], fates))
        assert told[0] == told[1]
        assert len(set(told[0][1])) > 1, "fates must differ for this to show anything"

    asyncio.run(story())
