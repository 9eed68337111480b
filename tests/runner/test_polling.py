"""Polling: when, how many at once, what is written, and when a job counts as unreachable."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import pairwise
from typing import Any

import pytest

from ledger import events as ev
from ledger.policy import Policy
from ledger.polling import HISTORY_MIN, Expectation, Track
from ledger.states import State, StopReason

ROUTE = "enrich/websearch"
RUNNING = ev.StillRunning("running", known=True, answer=None)


def test_a_poll_that_says_still_running_writes_nothing(bench: Any) -> None:
    bench.leads(3)
    bench.provider.work_s = 600.0
    connection, group = bench.ledger.books.connection, bench.ledger.group
    seen: list[tuple[object, ...]] = []

    async def watch() -> None:
        await bench.until(lambda: len(bench.provider.due) == 3 and bench.runner.poller.waiting == 3)
        before = len(bench.provider.polls)
        for polls in (before, before + 12):
            await bench.until(lambda polls=polls: len(bench.provider.polls) >= polls)
            seen.append((connection.total_changes, group.commits, group.writes, bench.rows()))

    assert bench.run(beside=watch) is StopReason.FINISHED
    assert seen[0] == seen[1]
    assert bench.one("SELECT MIN(polls) FROM attempts") > 4


def test_the_first_poll_comes_soon_and_the_pauses_grow_to_a_bound(bench: Any) -> None:
    bench.leads(1)
    bench.provider.work_s = 1000.0
    assert bench.run() is StopReason.FINISHED
    at = bench.provider.polled_at
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert at[0] <= bench.policy.first_poll_max_s + 0.2
    assert all(later > earlier - 0.001 for earlier, later in pairwise(pauses))
    assert pauses[0] < 4
    assert pauses[-1] == pytest.approx(60.05, abs=0.1)


def test_with_history_the_first_poll_comes_when_a_job_is_usually_done() -> None:
    policy = Policy()
    assert Expectation(policy, ROUTE, [100.0] * (HISTORY_MIN - 1)).first_s == 5.0
    learned = Expectation(policy, ROUTE, [float(n) for n in range(100, 200)])
    assert (learned.first_s, learned.spread_s) == (150.0, 10.0)
    fresh = Expectation(policy, ROUTE)
    for _ in range(HISTORY_MIN):
        fresh.saw(42.0)
    assert (fresh.first_s, fresh.spread_s) == (42.0, policy.poll_min_s)


def test_no_pause_is_shorter_or_longer_than_the_policy_allows() -> None:
    policy = Policy()
    track, expectation = Track(accepted=0.0), Expectation(policy, ROUTE)
    pauses = [track.next_pause(expectation, policy, chance) for chance in (0.0, 1.0) * 50]
    assert min(pauses) >= policy.poll_min_s * 0.8
    assert max(pauses) == pytest.approx(policy.poll_max_s * 1.2)


def test_a_job_that_is_gone_five_times_over_the_spread_is_in_doubt_with_its_bearer(bench: Any) -> None:
    bench.leads(1)
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    assert bench.run(audit=False) is StopReason.FINISHED
    assert bench.sql("SELECT state, reason FROM jobs") == [("in_doubt", "unreachable")]
    assert len(bench.provider.polls) == 5
    assert bench.provider.polled_at[-1] - bench.provider.polled_at[0] >= bench.policy.gone_spread_s
    assert bench.one("SELECT COUNT(*) FROM poll_bearers") == 1
    assert bench.money("hold") - bench.money("release") == 1_500_000


def test_five_gones_in_a_short_while_are_not_enough(bench: Any) -> None:
    track, policy = Track(accepted=0.0), bench.policy
    for now in range(9):
        track.note_gone(float(now))
    assert track.unreachable(500.0, policy) is None
    assert track.unreachable(600.0, policy) is not None
    track.note_answer(601.0)
    assert track.unreachable(700.0, policy) is None


def test_a_gone_among_answers_does_not_count(bench: Any) -> None:
    bench.leads(1)
    bench.provider.work_s = 2500.0
    bench.provider.polls_say = deque([*[bench.say.gone()] * 4, RUNNING, *[bench.say.gone()] * 4])
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}


def test_a_job_still_called_running_is_not_given_up_before_the_deadline(bench: Any) -> None:
    bench.with_policy(job_deadline_s=3000.0)
    bench.leads(1)
    bench.provider.work_s = 5000.0
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}


def test_polls_that_fail_say_nothing_about_the_job(bench: Any) -> None:
    bench.leads(2)
    bench.provider.polls_say = deque([ev.PollFailed("http_500"), RUNNING] * 6)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 2}


def test_a_throttled_poll_brakes_the_posts_too(bench: Any) -> None:
    bench.leads(3)
    bench.provider.post_s = 4.0
    bench.provider.polls_say = deque([ev.PollFailed("throttled", 60.0, throttled=True)])
    assert bench.run(concurrency=1) is StopReason.FINISHED
    polled = bench.provider.polled_at
    quiet_from, quiet_to = polled[0] + 0.1, polled[0] + 60.0
    assert not [at for at in polled + bench.provider.posted_at if quiet_from < at < quiet_to]


def test_an_unknown_word_is_kept_once_and_polled_on(bench: Any) -> None:
    bench.leads(1)
    answer = ev.Answer("poll", 200, '{"status": "marinating"}')
    bench.provider.polls_say = deque([ev.StillRunning("marinating", known=False, answer=answer)] * 3)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}
    assert bench.one("SELECT COUNT(*) FROM answers WHERE body LIKE '%marinating%'") == 1


def test_a_failed_job_is_released_and_one_that_states_no_cost_is_charged_whole(bench: Any) -> None:
    bench.leads(2)
    bench.provider.polls_say = deque([bench.say.finished(0, State.FAILED), bench.say.finished(None)])
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"failed": 1, "matched": 1}
    assert bench.sql("SELECT amount_microusd, assumed FROM costs WHERE kind = 'charge'") == [(1_500_000, 1)]


def test_a_doubt_with_a_remote_id_is_polled_slowly_and_settled(bench: Any) -> None:
    bench.leads(1)
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    bench.run(audit=False)
    assert bench.states() == {"in_doubt": 1}
    bench.provider.polls_say = deque([bench.say.gone()] * 6)
    first = len(bench.provider.polls)
    bench.with_policy(freeze_s=7200.0)  # the audit waits, and while it waits the doubt is polled
    assert bench.run() is StopReason.FINISHED
    assert bench.sql("SELECT state, reason FROM jobs") == [("matched", "poll_evidence")]
    pauses = [later - earlier for earlier, later in pairwise(bench.provider.polled_at[first:])]
    assert len(pauses) == 6
    assert all(54 <= pause <= 67 for pause in pauses)
    assert len(bench.provider.posts) == 1


def test_a_doubt_that_the_provider_works_on_again_is_waited_for(bench: Any) -> None:
    bench.leads(1)
    bench.provider.work_s = 900.0
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    bench.run(audit=False)
    bench.provider.due = dict.fromkeys(bench.provider.due, bench.clock.monotonic() + 300.0)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}
    reasons = [reason for (reason,) in bench.sql("SELECT reason FROM transitions ORDER BY id")]
    assert reasons[-3:] == ["unreachable", "poll_evidence", "completed"]


def test_a_late_answer_for_a_doubt_proved_free_does_not_stop_the_run(bench: Any) -> None:
    bench.leads(1)
    bench.provider.polls_say = deque([bench.say.gone()] * 5)
    bench.run(audit=False)
    bench.provider.taken_microusd = 0  # the provider gave the pre-charge back: the audit proves it free
    bench.with_policy(freeze_s=0.0)
    bench.provider.work_s = 300.0
    old = "remote-1-1"

    def late(job: Any) -> ev.PollEvent:
        fence_moved = len(bench.provider.posts) == 2 and job.remote_job_id == old
        return bench.say.finished(0, State.NO_MATCH) if fence_moved else bench.provider.look(job)

    bench.provider.due.pop(old)
    bench.provider.polls_say = deque([late] * 40)
    assert bench.run() is StopReason.FINISHED
    assert bench.states() == {"matched": 1}
    assert bench.attempts() == 2
    assert bench.provider.polls.count(old) == 6


@pytest.mark.slow
def test_ten_thousand_jobs_are_in_flight_at_once_over_ten_polls(bench: Any) -> None:
    number = 10_000
    bench.provider.work_s = long_s = 1_000.0
    bench.leads(number)
    bench.with_policy(latency_s={ROUTE: (long_s, long_s)}, first_poll_max_s=long_s)
    # Nothing dies here, and in virtual time every write is a commit of its own.
    bench.ledger.books.connection.execute("PRAGMA synchronous = OFF")
    tasks = [0]

    def count_tasks(job: Any) -> ev.PollEvent:
        if job.job_id % 100 == 0:
            tasks.append(len(asyncio.all_tasks()))
        return bench.provider.look(job)

    def count_and_accept(call: Any) -> ev.PostEvent:
        if call.job_id % 100 == 0:
            tasks.append(len(asyncio.all_tasks()))
        return bench.provider.accept(call)

    bench.provider.posts_say = deque([count_and_accept] * number)
    bench.provider.polls_say = deque([count_tasks] * number)
    assert bench.run(concurrency=200) is StopReason.FINISHED
    assert bench.states() == {"matched": number}
    assert bench.provider.open_max == number
    assert bench.provider.polling_max <= 10
    assert bench.provider.in_air_max <= 200
    assert max(tasks) < 450
    assert bench.money("charge") == bench.provider.taken_microusd
