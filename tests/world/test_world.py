"""Two hundred small worlds: kills, stops, every fault of the sandbox, caps, top-ups and a person's decisions.

`python tests/campaigns/world.py --seeds 0:10000` plays more of them. A failure names its seeds.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import Told, make_template, memory_folder, play

from ledger import events as ev
from ledger import machine
from ledger.machine import Job, Transition
from ledger.policy import Policy
from ledger.sandbox.faults import FAULTS
from ledger.states import State
from ledger.store.exposure import Exposure

FIXED = range(150)
FRESH = 50
"""Worlds from a base that is new in every run (and printed when one of them fails)."""
HAPPENS = {
    *("killed", "doubts at start", "found_at_start", "outcome_unknown", "proved_free", "audit_charged"),
    *("written_off", "resent_by_person", "accepted_by_person", "topped up", "run interrupted", "run budget"),
    *("run no_funds", "run finished", "unreachable", "throttled", "not_sent", "no_money"),
    *("delivered", "forgery refused", "delivery_evidence"),
    *(f"fault {name}" for name in FAULTS),
}
Players = Callable[[int], Told]


@pytest.fixture
def player() -> Iterator[Players]:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        template = make_template(Path(folder))
        yield lambda seed: play(seed, Path(folder), template)


def broken(player: Players, seeds: range, happened: Counter[str] | None = None) -> Iterator[str]:
    for seed in seeds:
        told = player(seed)
        if happened is not None:
            happened.update(told.happened)
            happened.update({"exact": told.trusty and told.exact})
        if told.wrong:
            yield f"seed {seed}: {'; '.join(told.wrong[:5])}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_every_world_nothing_is_lost_nor_paid_twice(player: Players) -> None:
    happened: Counter[str] = Counter()
    assert list(broken(player, FIXED, happened)) == []
    assert HAPPENS - set(happened) == set()
    assert happened["exact"] > len(FIXED) / 10  # so often that the books had to agree to the micro-dollar


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_fresh_worlds_too(player: Players) -> None:
    base = random.SystemRandom().randrange(1_000_000, 1_000_000_000)
    assert list(broken(player, range(base, base + FRESH))) == [], f"seed base {base}"


def test_a_seed_tells_the_same_story_twice(player: Players) -> None:
    assert all(player(seed) == player(seed) for seed in range(5))


@pytest.mark.slow
def test_a_runner_that_forgets_its_doubts_is_caught(player: Players, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what paid twice must not pass for sound."""
    sound = machine._HANDLERS[State.SUBMITTING]

    def forgetful(job: Job, event: ev.Event, now: object, policy: Policy) -> Transition | None:
        lost = isinstance(event, ev.Unknown | ev.FoundAtStart)
        return sound(job, ev.NotSent("forgotten") if lost else event, now, policy)

    monkeypatch.setitem(machine._HANDLERS, State.SUBMITTING, forgetful)
    assert any("was paid" in said for said in broken(player, range(200)))


def test_a_runner_without_caps_is_caught(player: Players, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exposure, "blocked_by", lambda *_: None)
    assert any("above its cap" in said for said in broken(player, range(200)))
