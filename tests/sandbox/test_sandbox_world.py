"""Settings, time, latency and the invented world."""

from __future__ import annotations

import ast
import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import ledger.sandbox
from ledger.sandbox.clock import VirtualClock
from ledger.sandbox.dollars import spoken, to_microusd
from ledger.sandbox.faults import draw
from ledger.sandbox.settings import Latency, Settings, Speech
from ledger.sandbox.world import fate, fingerprint, latency


def test_settings_survive_json() -> None:
    one = Settings(
        seed=5,
        faults={"lose_answer": 0.1},
        fault_limits={"lose_answer": 3},
        latency_s={"enrich/phone": Latency("bimodal", 1, 60, 0.1)},
        required_fields={"enrich/websearch": ("business_name",)},
        keys=("411_a",),
        speech=Speech(state_field="state", words={"failed": "ERRORED"}),
    )
    assert Settings.from_json(one.to_json()) == one
    assert Settings.from_json("{}") == Settings()


def test_a_table_needs_only_what_differs() -> None:
    one = Settings.from_json(
        '{"latency_s": {"enrich/phone": ["fixed", 0]}, "prices_usd": {"enrich/phone": "1"}}'
    )
    assert one.latency_s["enrich/phone"] == Latency("fixed", 0)
    assert one.latency_s["enrich/websearch"] == Latency("uniform", 5, 30)
    assert one.prices_usd["enrich/person"] == "0.50"


@pytest.mark.parametrize(
    "wrong",
    [
        {"faults": {"lose_answer": 1.5}},
        {"fault_limits": {"nope": 1}},
        {"match_rate": -0.1},
        {"prices_usd": {"enrich/phone": "-1"}},
        {"prices_usd": {"enrich/fax": "1"}},
        {"latency_s": {"enrich/phone": ["sometimes", 1]}},
        {"latency_s": {"enrich/phone": ["fixed", -1]}},
        {"answer_ms_of": {"nowhere": 1}},
        {"answer_ms_of": {"poll": -1}},
        {"cache": "maybe"},
        {"speed": -1},
        {"rate_burst": 0},
        {"cost_spread": [1]},
        {"opening_usd": "lots"},
        {"speech": {"money_as": "shells"}},
        {"speech": {"words": {"paused": "x"}}},
        {"speech": {"balance_decimals": 7}},
        {"speech": {"accent": "welsh"}},
        {"speech": 3},
        {"keys": 3},
        {"speed": "fast"},
        {"no_such_setting": 1},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Settings.from_json(json.dumps(wrong))


def test_virtual_time_runs_at_its_speed_and_can_be_advanced() -> None:
    real = [50.0]
    clock = VirtualClock(1000.0, 60.0, lambda: real[0])
    real[0] += 2
    assert clock.now() == 1120.0
    clock.advance(30)
    assert clock.now() == 1150.0
    clock.set_speed(0)
    real[0] += 100
    assert clock.now() == 1150.0


def test_a_wait_ends_by_the_speed_or_by_an_advance() -> None:
    async def story() -> None:
        fast = VirtualClock(0.0, 1_000_000.0)
        await asyncio.wait_for(fast.wait_until(fast.now() + 1000), 5)
        still = VirtualClock(0.0, 0.0)
        waiting = asyncio.create_task(still.wait_until(10))
        await asyncio.sleep(0)
        still.advance(9)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        still.advance(1)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("shape", "low", "median", "high"),
    [
        (Latency("fixed", 7), 7, 7, 7),
        (Latency("uniform", 5, 30), 5, 17.5, 30),
        (Latency("exponential", 10), 0, 6.93, 340),
        (Latency("lognormal", 20, 0.5), 0, 20, 700),
        (Latency("bimodal", 2, 60, 0.25), 1.8, 2.1, 66),
    ],
)
def test_latencies_follow_their_shape(shape: Latency, low: float, median: float, high: float) -> None:
    drawn = [latency(shape, draw(n, "at"), draw(n, "mode")) for n in range(4000)]
    assert low <= min(drawn)
    assert max(drawn) <= high
    assert statistics.median(drawn) == pytest.approx(median, rel=0.08)
    if shape.shape == "bimodal":
        assert sum(one > 30 for one in drawn) / 4000 == pytest.approx(0.25, abs=0.03)


def test_the_match_rate_is_a_share_of_the_payloads() -> None:
    world = Settings(match_rate=0.72)
    matched = sum(fate(world, "enrich/websearch", str(n)).matched for n in range(4000))
    assert matched / 4000 == pytest.approx(0.72, abs=0.03)


def test_a_fingerprint_ignores_order_and_correlation_but_nothing_else() -> None:
    lead = {"company": "Acme", "zip": "02139"}
    one = fingerprint({"lead": lead, "refresh": True})
    assert fingerprint({"refresh": True, "lead": {**lead, "source_ref": "u"}, "source_ref": "v"}) == one
    assert fingerprint({"lead": lead, "refresh": False}) != one


def test_money_is_exact_in_both_directions() -> None:
    assert [to_microusd(one) for one in (0.1, "0.1", 1, "1e-6", 0.30000000000000004)] == [
        100_000,
        100_000,
        1_000_000,
        1,
        300_000,
    ]
    assert spoken(420_000, "number") == 0.42
    assert spoken(-420_000, "text", 2) == "-0.42"
    for wrong in (True, None, "x", "inf", 1e10, [1]):
        with pytest.raises(ValueError, match="not an amount"):
            to_microusd(wrong)


def test_the_sandbox_shares_no_code_with_the_client() -> None:
    folder = Path(ledger.sandbox.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top not in ("httpx", "sqlite3", "sqlite_utils"), (file.name, name)
                assert top != "ledger" or name.startswith("ledger.sandbox"), (file.name, name)
