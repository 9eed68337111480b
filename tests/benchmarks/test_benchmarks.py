"""The benchmarks run, each alone, at a hundredth of their size. What they measured is asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).with_name("run.py")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def figures(name: str, folder: Path) -> dict[str, Any]:
    ran = bench(name, "--scale", "0.002", "--json", str(folder / "figures.json"))
    assert ran.returncode == 0, ran.stderr
    assert name in ran.stdout.splitlines()
    told: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert list(told["benchmarks"]) == [name]
    found: dict[str, Any] = told["benchmarks"][name]
    return found


def test_import_says_how_both_did(tmp_path: Path) -> None:
    found = figures("import", tmp_path)
    assert found["rows"] == 200
    assert len(found["ours"]["wall_s"]) == len(found["theirs"]["wall_s"]) == found["rounds"]
    low, high = (
        pick(
            mine / other
            for mine, other in zip(found["ours"]["wall_s"], found["theirs"]["wall_s"], strict=True)
        )
        for pick in (min, max)
    )
    assert low <= found["wall_ratio"] <= high


def test_claim_compares_three_sizes_with_the_smallest(tmp_path: Path) -> None:
    found = figures("claim", tmp_path)
    assert len(found["jobs"]) == len(found["claim_us"]) == 3
    assert found["ratios"] == [one / found["claim_us"][0] for one in found["claim_us"]]


def test_audit_finds_nothing_and_says_how_long_it_took(tmp_path: Path) -> None:
    found = figures("audit", tmp_path)
    assert len(found["audit_s"]) == len(found["integrity_check_s"]) == found["rounds"]


def test_verbs_commit_in_groups(tmp_path: Path) -> None:
    found = figures("verbs", tmp_path)
    assert found["jobs"] == 50
    assert all(commits < 1 for commits in found["commits_per_job"])


def test_the_night_of_both_is_the_same_work(tmp_path: Path) -> None:
    found = figures("night", tmp_path)
    for answers in ("answer_50_ms", "answer_0_ms"):
        assert found[answers]["ours"]["polls_per_job"] == [1.0] * found["rounds"]
        assert found[answers]["theirs"]["polls_per_job"] == [1.0] * found["rounds"]


def test_pages_are_all_answered(tmp_path: Path) -> None:
    found = figures("pages", tmp_path)
    assert found["jobs"] == 2000
    assert all(page["ms"] > 0 for page in found["pages"].values())
    assert len(found["pages"]) == 14


@pytest.mark.parametrize("arguments", [("nights",), ("claim", "--scale", "0")])
def test_what_is_not_there_is_refused(arguments: tuple[str, ...]) -> None:
    ran = bench(*arguments)
    assert ran.returncode == 2
    assert "benchmarks are night, in_flight, import, claim, verbs, pages" in ran.stderr
