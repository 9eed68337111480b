from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import blind
import pytest
from comparing import charged_twice
from driving import Way, sandbox_settings, served
from faults import FAULTS, Fault, complaints, play
from proxy import Proxy, Rule

from ledger.clock import from_text
from ledger.sandbox.testing import tell

BY_LABEL = {fault.label: fault for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.label.replace(" ", "_"))
def test_no_trouble_on_the_wire_loses_or_doubles_anything(fault: Fault, tmp_path: Path) -> None:
    played = asyncio.run(play(tmp_path, fault))
    assert played.did[fault.behaviour] > 0, "the fault never fired"
    assert len(played.books["submissions"]) >= 10 - played.did[fault.behaviour]
    assert complaints(fault, played) == []
    assert (played.verdict.doubts_ever > 0) == fault.may_doubt


@pytest.mark.parametrize("label", ["POST drop_answer", "POST reset_after", "POST cut_answer"])
def test_a_single_answer_that_is_lost_is_closed_at_what_it_cost(label: str, tmp_path: Path) -> None:
    fault = BY_LABEL[label]
    played = asyncio.run(play(tmp_path, fault, rate=1.0, at_most=1, leads=4, seed=3))
    assert complaints(fault, played) == []
    assert played.verdict.states["lost"] == 1
    (lost,) = [one for one in played.books["submissions"] if one["polls"] == 0]
    with closing(sqlite3.connect(tmp_path / "leads.db")) as connection:
        charge = "SELECT c.amount_microusd, c.assumed FROM costs c JOIN attempts a ON a.id = c.attempt_id "
        booked = connection.execute(charge + "WHERE a.outcome = 'lost' AND c.kind = 'charge'").fetchall()
    assert booked == [(lost["charged_microusd"], 0)]


def test_an_answer_that_trickles_does_not_outlive_the_deadline(tmp_path: Path) -> None:
    fault = BY_LABEL["POST trickle_past_deadline"]
    asyncio.run(play(tmp_path, fault, rate=1.0, leads=3))
    with closing(sqlite3.connect(tmp_path / "leads.db")) as connection:
        times = connection.execute("SELECT started_at, ended_at FROM attempts").fetchall()
    speed = Way().speed
    for started, ended in times:
        took_real_s = (from_text(ended) - from_text(started)).total_seconds() / speed
        assert fault.deadline_real_s <= took_real_s <= fault.deadline_real_s + 1.0


def test_a_client_that_sends_again_without_evidence_is_charged_twice() -> None:
    async def scene() -> Any:
        rule = Rule("drop_answer")
        async with served(sandbox_settings(1, 300.0, match_rate=1.0)) as url, Proxy(url, rule) as proxy:
            posts = await blind.submit(proxy.url, "Firm")
            await asyncio.to_thread(tell, url, "/sandbox/advance", {"seconds": 3600})
            return posts, proxy.did, await asyncio.to_thread(tell, url, "/sandbox/books")

    posts, did, books = asyncio.run(scene())
    assert (posts, did["drop_answer"]) == (2, 1)
    assert len(charged_twice(books)) == 1
