"""SIGTERM and SIGINT: POSTs in the air come in first; a second signal leaves at once. Both are safe."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

CONCURRENCY = 5
RUN = ("run", "--route", "lead-session", "--budget", "500", "--concurrency", str(CONCURRENCY), "--json")
CODES = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), CODES, ids=["SIGTERM", "SIGINT"])
def test_a_signal_drains_and_the_next_run_goes_on(
    stage: Callable[..., Any],
    run_contract: Callable[[dict[str, Any]], None],
    number: signal.Signals,
    code: int,
) -> None:
    night = stage(answer_ms_of={"submit": 300}, latency_s={"enrich/lead-session": ["uniform", 0.2, 3.0]})
    night.leads(40)
    run = night.start(night.command(*RUN))
    night.wait(lambda: night.accepted() >= 10, "the tenth POST")
    run.send_signal(number)
    done = night.ended(run)
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    run_contract(done.json)
    assert (done.json["stop_reason"], done.json["in_doubt"]) == ("interrupted", 0)
    states = night.states()
    assert states["queued"] > 0
    assert not {"submitting", "in_doubt"} & states.keys()
    assert night.sql("SELECT stop_reason FROM runs") == [("interrupted",)]
    assert night.accepted() == 40 - states["queued"]

    again = night.cli(*RUN)
    assert (again.code, again.json["stop_reason"]) == (0, "finished")
    assert night.accepted() == 40
    night.check_money()


@pytest.mark.parametrize(("number", "code"), CODES, ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_leaves_at_once_and_says_what_is_in_doubt(
    stage: Callable[..., Any],
    run_contract: Callable[[dict[str, Any]], None],
    number: signal.Signals,
    code: int,
) -> None:
    night = stage(answer_ms_of={"submit": 8000})
    night.leads(20)
    run = night.start(night.command(*RUN))
    night.wait(lambda: night.accepted() == CONCURRENCY, "the fifth POST")
    run.send_signal(number)
    night.wait(lambda: "Stopping" in (night.folder / "err").read_text(), "the first signal's answer")
    struck = time.monotonic()
    run.send_signal(number)
    done = night.ended(run)
    assert time.monotonic() - struck < 5
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    run_contract(done.json)
    assert (done.json["stop_reason"], done.json["in_doubt"]) == ("interrupted", CONCURRENCY)
    assert night.states() == {"in_doubt": CONCURRENCY, "queued": 15}
    assert done.json["held_microusd"] == CONCURRENCY * 1_500_000
    night.check_money()
