"""Times are one text form that sorts; virtual time wakes sleepers in their order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.clock import SystemClock, from_text, later, to_text
from ledger.testing import START, FakeClock

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@given(TIMES)
def test_a_time_reads_back_as_itself(at: datetime) -> None:
    assert from_text(to_text(at)) == at


@given(TIMES, TIMES)
def test_times_sort_as_text(one: datetime, other: datetime) -> None:
    assert (one < other) == (to_text(one) < to_text(other))


def test_the_text_is_utc_with_microseconds() -> None:
    east = datetime(2026, 3, 2, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_text(east) == "2026-03-01T20:00:00.000000Z"
    assert later(east, 1.5) - east == timedelta(seconds=1.5)


@pytest.mark.parametrize("text", ["2026-03-01T20:00:00Z", "2026-03-01 20:00:00.000000Z", "yesterday", ""])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not match format"):
        from_text(text)


def test_the_system_clock_is_utc_and_never_steps_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
    asyncio.run(clock.sleep(0))


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock, woken = FakeClock(), []

    async def sleeper(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(sleeper("long", 5, 1), sleeper("short", 2, 3), sleeper("none", 0, 1))

    asyncio.run(main())
    assert woken == [("none", 0), ("short", 2), ("short", 4), ("long", 5), ("short", 6)]
    assert clock.now() == START + timedelta(seconds=6)


def test_a_cancelled_sleeper_takes_no_time() -> None:
    clock = FakeClock()

    async def main() -> None:
        sleeper = asyncio.create_task(clock.sleep(1000))
        await clock.sleep(1)
        sleeper.cancel()
        await asyncio.gather(sleeper, return_exceptions=True)
        await clock.sleep(1)

    asyncio.run(main())
    assert clock.monotonic() == 2


def test_it_still_ticks_in_a_second_loop() -> None:
    clock = FakeClock()

    async def left_asleep() -> None:
        task = asyncio.create_task(clock.sleep(100))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(left_asleep())
    asyncio.run(clock.sleep(3))
    assert clock.monotonic() == 3


def test_by_hand_it_stands_until_it_is_advanced() -> None:
    clock, woken = FakeClock(auto=False), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async def main() -> None:
        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 9)]
        await asyncio.sleep(0)
        clock.advance(5)
        await asyncio.gather(*tasks[:2])
        assert clock.monotonic() == 5
        clock.advance(4)
        await tasks[2]

    asyncio.run(main())
    assert woken == [1, 3, 9]


def test_the_wall_clock_may_jump_without_time_passing() -> None:
    clock = FakeClock()
    clock.start -= timedelta(hours=1)
    assert (clock.now(), clock.monotonic()) == (START - timedelta(hours=1), 0)
