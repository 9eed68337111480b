"""Malformed answers end to end: real Client, Runner and Ledger against a server that says anything."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from deck import CEILING, COSTS, RETRY_AFTER, TO_POLL, TO_POST
from driving import Way, drive, open_ledger
from impostor import Impostor, http, served

from ledger.clock import from_text
from ledger.migrations.migrations import migrations
from ledger.runner import Runner
from ledger.states import StopReason
from ledger.store.audit import audit

SLACK_REAL_S = 3.0
STATE = "j.state, a.error, a.http_status, (SELECT COUNT(*) FROM costs c WHERE c.attempt_id = a.id)"
KEPT = (
    "(SELECT group_concat(w.kind || ' ' || COALESCE(w.http_status, '') || ' ' || w.body) "
    "FROM answers w WHERE w.attempt_id = a.id)"
)
RESULT = "(SELECT r.body FROM results r WHERE r.job_id = j.id)"
BOOKED = (
    "(SELECT json_group_object(c.kind, c.amount_microusd || ' ' || c.assumed) "
    "FROM costs c WHERE c.attempt_id = a.id)"
)


def run(
    folder: Path, impostor: Impostor, cases: Sequence[str], *, speed: float = 300.0, stopped: bool = False
) -> StopReason:
    """One run over the deck; `stopped`: told to drain once every odd poll was answered three times.

    Patience is short only where something is slow on purpose: a slow machine must not make doubts.
    """
    driven = Way(
        speed=speed,
        freeze_s=30.0,
        deadline_real_s=1.0 if impostor.healed or impostor.say_to_post else 5.0,
        poll_deadline_real_s=0.4 if stopped else 5.0,
        concurrency=40,
    )

    async def stop(runner: Runner) -> None:
        async with asyncio.timeout(30):
            await impostor.polled.wait()
        runner.stop()

    async def scene() -> StopReason:
        async with served(impostor):
            with open_ledger(folder, driven, cases) as ledger:
                return await drive(
                    ledger, impostor.url, driven, audit=impostor.healed, beside=stop if stopped else None
                )

    return asyncio.run(scene())


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "leads.db")) as connection:
        return connection.execute(query).fetchall()


def by_case(folder: Path, columns: str) -> dict[str, Any]:
    """`columns` of each lead's job (j) and its latest attempt (a)."""
    query = (
        f"SELECT l.company, {columns} FROM leads l JOIN jobs j ON j.lead_id = l.id "
        "JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt"
    )
    return {name: rest for name, *rest in rows(folder, query)}


def broken_checks(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "leads.db")) as connection:
        return [failure.name for failure in audit(connection, migrations).failed]


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StopReason]:
    """A run whose every POST was answered by one of the deck; the doubts are left alone."""
    folder = tmp_path_factory.mktemp("posted")
    impostor = Impostor(say_to_post={name: odd.say for name, odd in TO_POST.items()})
    return folder, run(folder, impostor, list(TO_POST))


@pytest.mark.parametrize("case", TO_POST)
def test_a_post_answered_so_is_in_doubt_with_what_came(posted: tuple[Path, StopReason], case: str) -> None:
    odd = TO_POST[case]
    state, error, status, movements = by_case(posted[0], STATE)[case]
    assert (state, error, status) == ("in_doubt", odd.error, odd.status)
    assert movements == 1, "the hold, and nothing else"
    (kept,) = by_case(posted[0], KEPT)[case]
    if odd.status is None:
        assert kept is None
    else:
        assert kept.startswith(f"odd {odd.status} {odd.kept}")


def test_a_run_of_malformed_answers_to_posts_ends_and_its_ledger_is_sound(
    posted: tuple[Path, StopReason],
) -> None:
    folder, reason = posted
    assert reason is StopReason.FINISHED
    assert broken_checks(folder) == []
    assert rows(folder, "SELECT * FROM results") == []


def test_doubts_that_cost_nothing_are_sent_again_and_settle(tmp_path: Path) -> None:
    cases = list(TO_POST)
    broken = Impostor(say_to_post={name: odd.say for name, odd in TO_POST.items()})
    run(tmp_path, broken, cases)
    healed = Impostor(healed=True)
    assert run(tmp_path, healed, cases) is StopReason.FINISHED
    assert rows(tmp_path, "SELECT state, COUNT(*) FROM jobs GROUP BY 1") == [("matched", len(cases))]
    assert set(healed.posts.values()) == {1}
    assert broken_checks(tmp_path) == []


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StopReason]:
    """A run whose every poll was answered by one of the deck, until it was told to stop."""
    folder = tmp_path_factory.mktemp("polled")
    return folder, run(folder, Impostor(say_to_poll=TO_POLL), list(TO_POLL), stopped=True)


@pytest.mark.parametrize("case", TO_POLL)
def test_a_poll_answered_so_leaves_the_job_waiting(polled: tuple[Path, StopReason], case: str) -> None:
    state, error, status, movements = by_case(polled[0], STATE)[case]
    assert (state, error, status, movements) == ("waiting", None, 202, 1)


def test_a_run_of_malformed_polls_drains_when_told_and_the_next_one_settles_everything(
    tmp_path: Path,
) -> None:
    cases = list(TO_POLL)
    assert run(tmp_path, Impostor(say_to_poll=TO_POLL), cases, stopped=True) is StopReason.INTERRUPTED
    assert broken_checks(tmp_path) == []
    assert rows(tmp_path, "SELECT * FROM results") == []
    unknown = rows(tmp_path, "SELECT COUNT(*) FROM answers WHERE kind = 'odd' AND body LIKE '%marinating%'")
    assert unknown == [(1,)], "a word that nobody knows is kept once, however often it comes"
    healed = Impostor(healed=True)
    assert run(tmp_path, healed, cases) is StopReason.FINISHED
    assert rows(tmp_path, "SELECT state, COUNT(*) FROM jobs GROUP BY 1") == [("matched", len(cases))]
    assert not healed.posts
    assert broken_checks(tmp_path) == []


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose final answers state odd costs."""
    folder = tmp_path_factory.mktemp("costly")
    body = b'{"status": "completed", "result": {"matched": true, "name": "Ann"}, "charged_usd": %b}'
    impostor = Impostor(say_to_poll={case: http(body % cost.stated) for case, cost in COSTS.items()})
    assert run(folder, impostor, list(COSTS)) is StopReason.FINISHED
    return folder


@pytest.mark.parametrize("case", COSTS)
def test_an_odd_cost_is_booked_as_far_as_it_is_known_and_the_result_kept(costly: Path, case: str) -> None:
    cost = COSTS[case]
    state, kept, booked = by_case(costly, f"j.state, {RESULT}, {BOOKED}")[case]
    assert (state, kept) == ("matched", '{"matched":true,"name":"Ann"}')
    expected = {"hold": f"{CEILING} 0", "charge": f"{cost.charge} {int(cost.assumed)}"}
    if cost.charge < CEILING:
        expected["release"] = f"{CEILING - cost.charge} 0"
    if cost.adjust:
        expected["adjust"] = f"{cost.adjust} 0"
    assert json.loads(booked) == expected
    assert broken_checks(costly) == []


def test_a_failure_inside_a_finished_job_fails_it_and_frees_its_hold(tmp_path: Path) -> None:
    said = http(b'{"status": "completed", "error": {"code": "VENDOR_DOWN"}}')
    assert run(tmp_path, Impostor(say_to_poll={"inside": said}), ["inside"]) is StopReason.FINISHED
    assert by_case(tmp_path, "j.state, a.error") == {"inside": ["failed", "VENDOR_DOWN"]}
    assert rows(tmp_path, "SELECT kind FROM costs ORDER BY id") == [("hold",), ("release",)]
    assert broken_checks(tmp_path) == []


def test_a_job_id_that_another_job_has_is_a_doubt(tmp_path: Path) -> None:
    same = http(b'{"job_id": "same-1", "poll_bearer": "pb"}', b"202 Accepted")
    impostor = Impostor(say_to_post={"one": same, "two": same})
    assert run(tmp_path, impostor, ["one", "two"]) is StopReason.FINISHED
    jobs = by_case(tmp_path, "j.state, a.error, a.remote_job_id")
    assert sorted(job[0] for job in jobs.values()) == ["in_doubt", "matched"]
    (doubt,) = [job for job in jobs.values() if job[0] == "in_doubt"]
    assert doubt[1].startswith("remote_job_id_of_job_")
    assert doubt[2] is None
    assert broken_checks(tmp_path) == []


@pytest.mark.parametrize("value", RETRY_AFTER, ids=lambda value: value.decode().replace(" ", "_"))
def test_an_odd_retry_after_makes_a_bounded_pause_and_no_failure(value: bytes, tmp_path: Path) -> None:
    low, high = RETRY_AFTER[value]
    speed = 1000.0
    said = http(b"{}", b"429 Too Many Requests", b"Retry-After: " + value + b"\r\n")
    impostor = Impostor(say_to_post={"post": said}, say_to_poll={"poll": said}, times=1)
    assert run(tmp_path, impostor, ["post", "poll"], speed=speed) is StopReason.FINISHED
    assert rows(tmp_path, "SELECT DISTINCT state FROM jobs") == [("matched",)]
    assert impostor.posts == {"post": 2, "poll": 1}
    assert impostor.polls["poll"] == 2
    ended, started = rows(
        tmp_path,
        "SELECT (SELECT ended_at FROM attempts WHERE outcome = 'throttled'), MAX(started_at) FROM attempts",
    )[0]
    pause = (from_text(started) - from_text(ended)).total_seconds()
    assert low <= pause <= high + SLACK_REAL_S * speed
    assert broken_checks(tmp_path) == []
