"""The protocol of a paid call, checked by Spin: what must be safe is, and the controls fail."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.states import NEW, STEPS

HERE = Path(__file__).parent
MODEL = HERE / "protocol.pml"
RESULTS = HERE / "results.json"
SAFETY = ("once", "recorded", "books", "cap")
LIVENESS = ("ends", "settles")
ALL_OF_SAFETY = {"safety": "safe"}
ONE_JOB = "JOBS=1 ATTEMPTS=2 CRASHES=2"
TWO_JOBS = "JOBS=2 ATTEMPTS=1 CRASHES=1"
TWO_ATTEMPTS_EACH = "JOBS=2 ATTEMPTS=2 CRASHES=0"
CAMPAIGN = "CAMPAIGN"
PROTOCOL = "DURABLE_INTENT LATE FREEZE SETTLE PRECHARGE AUDIT SAME_BOOKS OPERATOR"
SECONDS_MAX = 60
STATES_MIN = 100_000
NOT_MODELLED = {
    ("queued", "skipped"): "never sent, nothing to pay",
    ("queued", "cancelled"): "never sent, nothing to pay",
    ("submitting", "matched"): "a synchronous answer: submitting and waiting in one call",
    ("submitting", "no_match"): "as above",
    ("waiting", "failed"): "for the money the same as no match",
    ("in_doubt", "failed"): "for the money the same as no match",
    ("lost", "failed"): "for the money the same as no match",
}


@dataclass(frozen=True)
class Case:
    """One combination of switches, and what each property must come to."""

    title: str
    size: str
    switches: str
    expected: dict[str, str]


def without(*names: str, plus: str = "") -> str:
    kept = [name for name in PROTOCOL.split() if name not in names]
    return " ".join([*kept, *plus.split()])


def safe(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "safe")


def violated(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "violated")


CASES = (
    Case("the protocol", ONE_JOB, PROTOCOL, {**ALL_OF_SAFETY, **safe("ends", "settles")}),
    Case("the protocol", TWO_JOBS, PROTOCOL, {**ALL_OF_SAFETY, **safe("ends")}),
    Case("the protocol, larger", CAMPAIGN, PROTOCOL, ALL_OF_SAFETY),
    Case("with webhooks", ONE_JOB, without(plus="WEBHOOK"), {**ALL_OF_SAFETY, **safe("ends")}),
    Case("with a key", ONE_JOB, without(plus="KEY"), {**ALL_OF_SAFETY, **safe("ends")}),
    Case("no audit", ONE_JOB, without("AUDIT"), {**ALL_OF_SAFETY, **safe("ends", "settles")}),
    Case("no freeze, nothing lands late", ONE_JOB, without("FREEZE", "LATE"), ALL_OF_SAFETY),
    Case("no freeze", ONE_JOB, without("FREEZE"), violated("once", "recorded")),
    Case("no freeze, webhooks", ONE_JOB, without("FREEZE", plus="WEBHOOK"), violated("once", "recorded")),
    Case("no freeze, a key", ONE_JOB, without("FREEZE", plus="KEY"), violated("once", "recorded")),
    Case("no durable intent", ONE_JOB, without("DURABLE_INTENT"), violated("once", "recorded")),
    Case("charged only at the end", ONE_JOB, without("PRECHARGE"), violated("once", "recorded")),
    Case(
        "a re-sent key may be refused",
        ONE_JOB,
        without(plus="KEY REFUSED_AGAIN"),
        violated("once", "recorded"),
    ),
    Case("readings too close together", TWO_JOBS, without("SETTLE"), violated("books")),
    Case("books move between the readings", TWO_JOBS, without("SAME_BOOKS"), violated("books")),
    Case(
        "a group written off at its gap",
        TWO_ATTEMPTS_EACH,
        without(plus="UNATTRIBUTED"),
        violated("once", "recorded", "books"),
    ),
    Case("cap checked too early", TWO_ATTEMPTS_EACH, without(plus="LOOSE_CAP"), violated("cap")),
    Case("no audit, no person", ONE_JOB, without("AUDIT", "OPERATOR"), violated("ends", "settles")),
    Case("webhooks alone", ONE_JOB, without("AUDIT", "OPERATOR", plus="WEBHOOK"), violated("ends")),
    Case("the audit alone", ONE_JOB, without("OPERATOR"), violated("ends")),
    Case("sent again at once", ONE_JOB, "DURABLE_INTENT PRECHARGE POLICY=BLIND", violated("once")),
    Case(
        "sent again at once, a key",
        ONE_JOB,
        "DURABLE_INTENT LATE PRECHARGE KEY POLICY=BLIND",
        safe("once", "recorded"),
    ),
    Case(
        "the same, no durable intent, key made from the request",
        ONE_JOB,
        "LATE PRECHARGE KEY DERIVED_KEY POLICY=BLIND",
        {**safe("once"), **violated("recorded")},
    ),
    Case(
        "the same, no durable intent, random key",
        ONE_JOB,
        "LATE PRECHARGE KEY POLICY=BLIND",
        violated("once", "recorded"),
    ),
    Case(
        "sent again when the provider shows nothing",
        ONE_JOB,
        "DURABLE_INTENT LATE PRECHARGE POLICY=LOOK",
        violated("once"),
    ),
    Case(
        "the same, nothing lands late",
        ONE_JOB,
        "DURABLE_INTENT PRECHARGE POLICY=LOOK",
        safe("once", "recorded"),
    ),
)


def verdict(output: str) -> tuple[str, int]:
    """`safe`, `violated` or `incomplete`, and the states stored, from what `pan` printed."""
    errors = re.search(r"errors: (\d+)", output)
    stored = re.search(r"^\s*([\d.e+]+) states, stored", output, re.MULTILINE)
    if errors is None or stored is None:
        return "incomplete", 0
    states = int(float(stored[1]))
    if int(errors[1]):
        of_property = re.search(r"assertion violated\s+!\( ?!\(|acceptance cycle", output)
        return ("violated" if of_property else "incomplete"), states
    cut = re.search(r"depth too small|Search not completed|out of memory|MEMLIM", output)
    return ("incomplete" if cut else "safe"), states


def command(arguments: list[str], folder: Path, *, check: bool = True) -> str:
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, f"{' '.join(arguments)}:\n{output}"
    return output


def verify(case: Case, folder: Path) -> dict[str, Any]:
    """Make the verifier of one combination and run it once a property."""
    folder.mkdir()
    switches = f"{case.size} {case.switches}".split()
    command(["spin", *(f"-D{switch}" for switch in switches), "-a", str(MODEL)], folder)
    optimise = "-O1" if case.size == CAMPAIGN else "-O0"  # compiling costs more than most searches
    command(["gcc", optimise, "-w", "-DNFAIR=3", "-DMEMLIM=1500", "-o", "pan", "pan.c"], folder)
    found, states = {}, 0
    for name in case.expected:
        fairness = ["-f"] if name in LIVENESS else []
        output = command(["./pan", "-a", *fairness, "-w20", "-m50000", "-N", name], folder, check=False)
        found[name], stored = verdict(output)
        states += stored
    if found.pop("safety", None) == "safe":
        found = dict.fromkeys(SAFETY, "safe") | found
    return {
        "case": case.title, "size": case.size, "switches": case.switches, "found": found, "states": states,
    }  # fmt: skip


def verify_all(root: Path) -> dict[str, Any]:
    """Every combination, two at a time."""
    folders = [root / str(number) for number in range(len(CASES))]
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(verify, CASES, folders))
    version = re.search(r"Version (\S+)", command(["spin", "-V"], root))
    return {"spin": version[1] if version else "", "rows": rows}


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{row['case']:<55} {row['size']:<22} {row['states']:>9,}  "
        + ", ".join(f"{name} {result}" for name, result in row["found"].items())
        for row in results["rows"]
    ]
    total = sum(row["states"] for row in results["rows"])
    return "\n".join([*lines, f"{total:,} states, Spin {results['spin']}"])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_spin_finds_what_is_expected_and_published(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: apt-get install -y spin gcc")
    fresh = verify_all(tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{table(fresh)}\n")
    for case, row in zip(CASES, fresh["rows"], strict=True):
        for name, expected in case.expected.items():
            for each in SAFETY if name == "safety" else (name,):
                assert row["found"].get(each) == expected, f"{case.title}, {case.size}: {each}"
    assert sum(row["states"] for row in fresh["rows"]) >= STATES_MIN
    if request.config.getoption("golden"):
        RESULTS.write_text(json.dumps(fresh, indent=1) + "\n", encoding="utf-8")
    published = json.loads(RESULTS.read_text(encoding="utf-8"))
    if published["spin"] != fresh["spin"]:  # another Spin may cut its search differently
        for row in (*published["rows"], *fresh["rows"]):
            del row["states"]
    assert published["rows"] == fresh["rows"]


def test_every_property_is_held_by_the_protocol_and_broken_by_a_control() -> None:
    held = {name for name, result in CASES[0].expected.items() if result == "safe"}
    broken = {name for case in CASES for name, result in case.expected.items() if result == "violated"}
    assert held == {"safety", *LIVENESS}
    assert broken == {*SAFETY, *LIVENESS}


def modelled_steps() -> set[tuple[str, str, str]]:
    """The moves of the model, as (from, to, reason)."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.pml")))
    moves = set(re.findall(r"\bMOVE\(\w+, (\w+), (\w+), (\w+)\)", text))
    for before, reason in re.findall(r"\bANSWER\(\w+, [^,]+, (\w+), (\w+)\)", text):
        moves |= {(before, "matched", reason), (before, "no_match", reason)}
    return {move for move in moves if move[0] != "before" and move[2] != "forbidden"}


def test_the_model_moves_jobs_only_as_the_ledger_allows() -> None:
    allowed = {tuple(map(str, step)) for step in STEPS}
    assert modelled_steps() - allowed == set()


def test_what_the_model_leaves_out_is_listed() -> None:
    pairs = {(before, after) for before, after, _ in modelled_steps()}
    left_out = {(step.from_state, step.to_state.value) for step in STEPS if step.from_state != NEW} - pairs
    assert left_out == set(NOT_MODELLED)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("State-vector 9 byte, errors: 0\n    12 states, stored\n", ("safe", 12)),
        (
            "pan:1: acceptance cycle (at depth 9)\nerrors: 1\n  3 states, stored (4 visited)\n",
            ("violated", 3),
        ),
        ("pan:1: assertion violated  !( !( !(twice)))\nerrors: 1\n  3 states, stored\n", ("violated", 3)),
        ("pan:1: invalid array index\nerrors: 1\n  3 states, stored\n", ("incomplete", 3)),
        ("error: max search depth too small\nerrors: 0\n  3 states, stored\n", ("incomplete", 3)),
        ("pan: reached -DMEMLIM bound\nerrors: 0\n 1.5e+06 states, stored\n", ("incomplete", 1_500_000)),
        ("Segmentation fault", ("incomplete", 0)),
    ],
)
def test_only_a_search_that_was_finished_counts(output: str, expected: tuple[str, int]) -> None:
    assert verdict(output) == expected
