"""The last resort on a full disk: what a paid call brought back survives in `LEDGER.reserve`."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from ledger import events as ev
from ledger.errors import DiskTrouble
from ledger.states import State
from ledger.store import reserve
from ledger.store.reserve import SIZE, reserve_path


def test_it_has_its_room_before_anything_is_paid_for_and_leaves_with_the_run(desk: Any) -> None:
    path = reserve_path(desk.path)
    desk.begin()
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (SIZE, 0o600)
    assert path.stat().st_blocks * 512 >= SIZE  # really written, not a hole
    desk.ledger.close()
    assert not path.exists()
    desk.open()


def test_without_room_there_is_no_run(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskTrouble, match="No space left"):
        desk.ledger.begin_run(origin=desk.origin, settings={}, caps=desk.caps)
    monkeypatch.undo()
    assert desk.one("SELECT COUNT(*) FROM runs") == 0
    assert not reserve_path(desk.path).exists(), "a part of it would only fill the disk"


def test_a_paid_answer_kept_there_is_taken_over_by_the_next_start(desk: Any) -> None:
    desk.ready(4)
    desk.claim(4)
    answered = ev.Answered(desk.verdict(420_000), ev.Answer("answered", 200, '{"caf\u00e9": 1}'))
    assert desk.ledger.keep_in_reserve(1, 1, desk.accepted("r-1", "pb-1"))
    assert desk.ledger.keep_in_reserve(2, 1, desk.accepted("r-2", None))
    assert desk.ledger.keep_in_reserve(3, 1, answered)
    assert not desk.ledger.keep_in_reserve(4, 1, desk.unknown())  # a doubt at the next start anyway
    desk.die()
    assert reserve_path(desk.path).exists()
    found = desk.ledger.recover()
    assert (found.from_reserve, found.new_doubts) == (3, 1)
    assert [desk.state(job) for job in (1, 2, 3, 4)] == ["waiting", "waiting", "matched", "in_doubt"]
    jobs = [(job.remote_job_id, job.bearer) for job in desk.ledger.open_jobs()]
    assert jobs == [("r-1", ev.Secret("pb-1")), ("r-2", None)]
    assert desk.costs(3)[1] == ("charge", 420_000)
    assert desk.one("SELECT body FROM answers WHERE kind = 'answered'") == '{"caf\u00e9": 1}'
    assert not reserve_path(desk.path).exists()
    assert desk.ledger.recover().from_reserve == 0


def test_what_was_recorded_after_all_is_not_taken_twice(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    event = desk.accepted("r-1")
    desk.ledger.keep_in_reserve(1, 1, event)
    desk.ledger.keep_in_reserve(2, 7, desk.accepted("r-2"))  # of an attempt that is not the latest
    desk.record(1, event)
    desk.die()
    assert desk.ledger.recover().from_reserve == 0
    assert [desk.state(1), desk.state(2)] == ["waiting", "in_doubt"]


def test_a_line_that_a_crash_cut_short_is_left_out(desk: Any) -> None:
    desk.ready(2)
    desk.claim(2)
    desk.ledger.keep_in_reserve(1, 1, desk.accepted("r-1"))
    desk.ledger.keep_in_reserve(2, 1, desk.accepted("r-2"))
    path = reserve_path(desk.path)
    text = path.read_bytes()
    second = text.index(b"\n") + 20
    path.write_bytes(text[:second] + b"\0" * (SIZE - second))
    assert [entry[0] for entry in reserve.read(desk.path)] == [1]


def test_it_never_grows(desk: Any) -> None:
    desk.begin()
    big = ev.Answered(desk.verdict(), ev.Answer("answered", 200, "x" * (SIZE // 3)))
    assert [desk.ledger.keep_in_reserve(job, 1, big) for job in (1, 2, 3, 4)] == [True, True, False, False]
    assert reserve_path(desk.path).stat().st_size == SIZE
    assert [entry[0] for entry in reserve.read(desk.path)] == [1, 2]
    reserve.clear(desk.path)
    assert reserve.read(desk.path) == []


def test_a_failed_verdict_comes_back_as_it_was(desk: Any) -> None:
    desk.begin()
    event = ev.Answered(desk.verdict(None, State.FAILED), ev.Answer("answered", None, ""))
    desk.ledger.keep_in_reserve(5, 2, event)
    assert reserve.read(desk.path) == [(5, 2, event)]
