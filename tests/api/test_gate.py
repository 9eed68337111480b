import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api.gate import BRAKE_MIN_S, Gate, pause_s
from ledger.errors import Bug


class Still:
    """A clock a property test can make as many of as it likes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> Any:
        return self.seconds


def gate(clock: Any, limit_max: int = 8, limit_start: Any = None, chance: Any = 1.0) -> Any:
    return Gate(clock, limit_max, limit_start, chance=lambda: chance)


def test_slots_are_handed_out_up_to_the_limit(clock: Any) -> None:
    some = gate(clock, 3)
    assert some.try_slots(2) == 2
    assert some.try_slots(5) == 1
    assert some.try_slots(1) == 0
    assert some.try_slots(-1) == 0
    assert (some.in_use, some.limit) == (3, 3)
    some.release()
    assert some.try_slots(1) == 1


def test_a_slot_that_nobody_took_cannot_be_given_back(clock: Any) -> None:
    with pytest.raises(Bug):
        gate(clock).release()


def test_a_waiter_goes_on_when_a_slot_is_given_back(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 1)
        await some.slot()
        waiters = [asyncio.create_task(some.slot()) for _ in range(3)]
        await settled()
        assert not any(waiter.done() for waiter in waiters)
        for count in (1, 2, 3):
            some.release()
            await settled()
            assert sum(waiter.done() for waiter in waiters) == count
            assert some.in_use == 1

    asyncio.run(scene())


def test_a_cancelled_waiter_takes_no_slot(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 1)
        await some.slot()
        waiter = asyncio.create_task(some.slot())
        await settled()
        waiter.cancel()
        some.release()
        await settled()
        assert some.in_use == 0
        assert some.try_slots(1) == 1

    asyncio.run(scene())


def test_nobody_passes_while_the_brake_is_on(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 4)
        assert some.try_slots(1) == 1
        some.release(throttled=True, retry_after_s=30.0)
        assert some.braked_for_s() == 30
        assert some.try_slots(4) == 0
        waiters = [asyncio.create_task(some.slot()) for _ in range(3)]
        await settled()
        await clock.advance(29.9)
        assert not any(waiter.done() for waiter in waiters)
        await clock.advance(0.1)
        assert sum(waiter.done() for waiter in waiters) == 2  # halved from 4
        for waiter in waiters:
            waiter.cancel()

    asyncio.run(scene())


def test_a_longer_brake_holds_those_who_wait_already(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock)
        some.hold_off(5)
        waiter = asyncio.create_task(some.slot())
        await settled()
        some.hold_off(50)
        some.hold_off(1)
        await clock.advance(5)
        assert not waiter.done()
        await clock.advance(45)
        assert waiter.done()

    asyncio.run(scene())


def test_one_burst_of_429s_halves_once(clock: Any) -> None:
    some = gate(clock, 8)
    some.try_slots(8)
    for _ in range(8):
        some.release(throttled=True, retry_after_s=10.0)
    assert (some.limit, some.in_use) == (4, 0)
    clock._seconds += 10
    some.try_slots(1)
    some.release(throttled=True, retry_after_s=10.0)
    assert some.limit == 2


def test_the_limit_never_falls_below_one(clock: Any) -> None:
    some = gate(clock, 8)
    for _ in range(10):
        clock._seconds += 1_000
        assert some.try_slots(1) == 1
        some.release(throttled=True)
    assert some.limit == 1


def test_in_a_burst_the_longest_retry_after_counts(clock: Any) -> None:
    some = gate(clock)
    some.try_slots(3)
    some.release(throttled=True, retry_after_s=10.0)
    some.release(throttled=True, retry_after_s=60.0)
    some.release(throttled=True, retry_after_s=5.0)
    assert some.braked_for_s() == 60


def test_a_429_that_says_zero_still_pauses(clock: Any) -> None:
    some = gate(clock)
    some.try_slots(1)
    some.release(throttled=True, retry_after_s=0.0)
    assert some.braked_for_s() == pytest.approx(BRAKE_MIN_S)


def test_without_retry_after_the_pause_doubles_and_a_success_resets_it(clock: Any) -> None:
    some = gate(clock)

    def throttle() -> Any:
        clock._seconds += 1_000
        some.try_slots(1)
        some.release(throttled=True)
        return some.braked_for_s()

    assert [throttle() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    clock._seconds += 1_000
    some.try_slots(1)
    some.release()
    assert throttle() == 1


def test_the_pause_is_spread_by_chance() -> None:
    assert [pause_s(3, chance) for chance in (0.0, 0.5, 1.0)] == [2.0, 3.0, 4.0]


def test_a_round_of_successes_adds_one_slot_up_to_the_maximum(clock: Any) -> None:
    some = gate(clock, 4, limit_start=2)
    grown = []
    for _ in range(12):
        some.try_slots(1)
        some.release()
        grown.append(some.limit)
    assert grown == [2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]


def test_a_success_from_before_the_brake_says_nothing(clock: Any) -> None:
    some = gate(clock, 4, limit_start=2)
    some.try_slots(2)
    some.release(throttled=True, retry_after_s=10.0)
    some.release()
    assert some.limit == 1
    assert some._successes == 0


@pytest.mark.parametrize(("asked", "braked"), [(-5, 0), (0, 0), (3, 3), (10_000, 900)])
def test_a_hold_off_is_clamped(clock: Any, asked: Any, braked: float) -> None:
    some = gate(clock)
    some.hold_off(asked)
    assert some.braked_for_s() == braked
    assert some.limit == 8


def test_slots_that_were_not_used_teach_nothing(clock: Any) -> None:
    some = gate(clock, 4, limit_start=1)
    assert some.try_slots(1) == 1
    some.give_back(0)
    some.give_back(1)
    assert (some.in_use, some.limit) == (0, 1)
    for count in (1, -1):
        with pytest.raises(Bug):
            some.give_back(count)


def test_slots_given_back_wake_a_waiter(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 2)
        some.try_slots(2)
        waiter = asyncio.create_task(some.slot())
        await settled()
        some.give_back(2)
        await settled()
        assert waiter.done()
        assert some.in_use == 1

    asyncio.run(scene())


def test_a_hold_off_that_is_let_go_frees_those_who_wait(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 4)
        some.hold_off(60)
        waiters = [asyncio.create_task(some.slot()) for _ in range(2)]
        await settled()
        some.let_go()
        await settled()
        assert all(waiter.done() for waiter in waiters)
        assert some.braked_for_s() == 0

    asyncio.run(scene())


def test_letting_go_does_not_lift_the_pause_of_a_429(clock: Any, settled: Any) -> None:
    async def scene() -> None:
        some = gate(clock, 4)
        some.try_slots(1)
        some.release(throttled=True, retry_after_s=20.0)
        some.hold_off(60)
        waiter = asyncio.create_task(some.slot())
        await settled()
        some.let_go()
        await settled()
        assert some.braked_for_s() == 20
        assert not waiter.done()
        await clock.advance(20)
        assert waiter.done()

    asyncio.run(scene())


def test_odd_limits_are_brought_into_range(clock: Any) -> None:
    assert gate(clock, 0).limit == 1
    assert gate(clock, 4, limit_start=9).limit == 4
    assert gate(clock, 4, limit_start=-1).limit == 1


@given(
    st.integers(1, 6),
    st.lists(
        st.sampled_from(["take", "ok", "throttled", "asked", "hold", "let_go", "back", "tick"]),
        min_size=1,
        max_size=60,
    ),
)
def test_whatever_happens_the_limit_holds(limit_max: int, steps: Any) -> None:
    clock = Still()
    some = Gate(clock, limit_max, chance=lambda: 0.5)
    for step in steps:
        braked = some.braked_for_s() > 0
        match step:
            case "take":
                before = some.in_use
                taken = some.try_slots(2)
                assert not (braked and taken)
                assert some.in_use == before + taken
                assert not taken or some.in_use <= some.limit
            case "hold":
                some.hold_off(3)
            case "let_go":
                some.let_go()
            case "back":
                some.give_back(min(1, some.in_use))
            case "tick":
                clock.seconds += 2.5
            case _ if some.in_use:
                some.release(step != "ok", 4.0 if step == "asked" else None)
        assert 1 <= some.limit <= limit_max
        assert 0 <= some.in_use <= limit_max
        assert some._room.is_set() == (some.in_use < some.limit)
        assert some.braked_for_s() <= 900
