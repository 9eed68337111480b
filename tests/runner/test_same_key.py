"""Where the provider honours keys, a doubt is ended by asking once more with the same key."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import events as ev


def lost_after_accepting(bench: Any) -> Any:
    def say(call: Any) -> ev.PostEvent:
        bench.provider.accept(call)
        return bench.say.unknown()

    return say


def the_first_answer_again(call: Any) -> ev.PostEvent:
    answer = ev.Answer("accepted", 202, "{}")
    return ev.Accepted(f"remote-{call.job_id}-{call.fence}", ev.Secret("pb"), "virtual_balance", answer)


def test_the_same_attempt_goes_out_again_with_its_key_and_its_hold(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say.extend([lost_after_accepting(bench), the_first_answer_again])
    assert bench.run(same_key_rounds=3) == "finished"
    first, second = bench.provider.posts
    assert (first.idempotency_key, first.request, first.fence) == (
        second.idempotency_key,
        second.request,
        second.fence,
    )
    assert bench.states() == {"matched": 1}
    assert bench.sql("SELECT COUNT(*) FROM attempts") == [(1,)]
    assert bench.sql("SELECT COUNT(*) FROM costs WHERE kind = 'hold'") == [(1,)]
    steps = [row[0] for row in bench.sql("SELECT reason FROM transitions ORDER BY id")]
    assert steps == ["enqueued", "claimed", "outcome_unknown", "same_key_resend", "accepted", "completed"]


@pytest.mark.parametrize("what", ["throttled", "no_money", "refused", "not_sent"])
def test_a_resend_that_is_sent_back_proves_nothing_about_the_first_time(bench: Any, what: str) -> None:
    """A 429, a 402 or a 422 now says nothing of what happened then: the hold must stay."""
    sent_back = ev.NotSent("connect_error") if what == "not_sent" else getattr(bench.say, what)()
    bench.leads(1)
    bench.provider.posts_say.extend([lost_after_accepting(bench), sent_back])
    bench.run(same_key_rounds=1, audit=False)
    assert len(bench.provider.posts) == 2
    assert bench.states() == {"in_doubt": 1}
    assert bench.sql("SELECT kind FROM costs") == [("hold",)]


def test_it_ends_after_its_rounds(bench: Any) -> None:
    bench.leads(2)
    bench.provider.posts_say.extend([bench.say.unknown()] * 20)
    bench.run(same_key_rounds=3, audit=False)
    assert len(bench.provider.posts) == 2 + 3 * 2
    assert bench.states() == {"in_doubt": 2}


def test_without_a_promise_of_the_provider_nothing_is_sent_again(bench: Any) -> None:
    bench.leads(1)
    bench.provider.posts_say.append(bench.say.unknown())
    bench.run(audit=False)
    assert len(bench.provider.posts) == 1
