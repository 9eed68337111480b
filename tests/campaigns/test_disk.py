"""The disk model and the file of results: what the campaigns lean on, held by small cases."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("disk")


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("totals")


def images(disk: Any, *ops: Any, mode: str = "half", draws: int = 40) -> set[tuple[tuple[str, bytes], ...]]:
    """Everything that a cut after `ops` may leave, as far as so many draws find it."""
    state = disk.disk_at([disk.Op(*op) for op in ops], len(ops))
    return {tuple(sorted(state.image(mode, Random(seed)).items())) for seed in range(draws)}


MADE = (("create", "a"), ("write", "a", 0, b"old"), ("sync", "a"))
WRITTEN = (*MADE, ("write", "a", 0, b"new"))


def test_what_is_synced_stays(disk: Any) -> None:
    assert images(disk, *MADE) == {(("a", b"old"),)}
    assert images(disk, *WRITTEN, ("sync", "a")) == {(("a", b"new"),)}


def test_what_is_not_synced_may_be_there_or_not(disk: Any) -> None:
    assert images(disk, *WRITTEN, mode="none") == {(("a", b"old"),)}
    assert images(disk, *WRITTEN, mode="all") == {(("a", b"new"),)}
    assert images(disk, *WRITTEN) == {(("a", b"old"),), (("a", b"new"),)}
    assert images(disk, *WRITTEN, ("truncate", "a", 1), mode="all") == {(("a", b"n"),)}


def test_a_torn_write_keeps_whole_sectors(disk: Any) -> None:
    ops = (("create", "a"), ("truncate", "a", 1536), ("sync", "a"), ("write", "a", 256, b"x" * 1024))
    found = {image[0][1] for image in images(disk, *ops, mode="torn")}
    sectors = [(256, 512), (512, 1024), (1024, 1280)]
    assert len(found) == 8
    for contents in found:
        assert all(len(set(contents[begin:end])) == 1 for begin, end in sectors)


def test_an_unlink_is_undone_until_the_folder_is_synced_and_never_after(disk: Any) -> None:
    gone = (*MADE, ("unlink", "a"))
    assert images(disk, *gone) == {(), (("a", b"old"),)}
    assert images(disk, *gone, ("sync_folder",)) == {()}
    assert images(disk, *gone, ("sync_folder",), ("create", "b"), ("write", "b", 0, b"1")) <= {
        (),
        (("b", b""),),
        (("b", b"1"),),
    }


def test_a_new_file_of_an_old_name_does_not_bring_the_old_one_back(disk: Any) -> None:
    again = (*MADE, ("unlink", "a"), ("create", "a"), ("write", "a", 0, b"2"), ("sync", "a"))
    assert images(disk, *again) == {(("a", b"2"),)}


def test_a_call_that_the_model_does_not_know_stops_it(disk: Any, tmp_path: Path) -> None:
    name = "".join(f"\\x{byte:02x}" for byte in str(tmp_path / "a").encode())
    log = tmp_path.with_suffix(".strace")
    for line in (
        f'rename("{name}", "{name}")',
        f'openat(AT_FDCWD, "{name}", O_RDWR|O_CREAT) = 3\nfallocate(3)',
    ):
        log.write_text(f"{line} = 0\n", encoding="ascii")
        with pytest.raises(AssertionError):
            disk.recorded(log, tmp_path)


def test_the_newest_result_of_a_campaign_replaces_its_last(totals: Any, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    for line in ({"campaign": "b", "n": 1}, {"campaign": "a", "n": 1}, {"campaign": "b", "n": 2}):
        totals._record(line, results)
    kept = [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]
    assert kept == [{"campaign": "a", "n": 1}, {"campaign": "b", "n": 2}]


@pytest.mark.parametrize(
    ("bad", "failed", "code"),
    [([], "", 0), ([{"key": "1", "bad": ["paid twice"]}], "", 1), ([], "the control was not caught", 1)],
)
def test_a_broken_promise_or_a_deaf_control_fails_a_campaign(
    totals: Any, capsys: pytest.CaptureFixture[str], bad: Any, failed: str, code: int
) -> None:
    assert totals.finish({"campaign": "x"}, bad, begun=0.0, record=False, failed=failed) == code
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (line["campaign"], line["bad"]) == ("x", len(bad))
    assert {"seconds", "date", "commit", "dirty"} <= set(line)
