"""One round: some leads, one kind of trouble on the wire, a run, and the books compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comparing import Verdict, compare
from driving import Way, drive, open_ledger, sandbox_settings, served
from proxy import Pace, Proxy, Rule

from ledger.sandbox.testing import tell
from ledger.states import StopReason

LATE_S: Final = 180.0
"""The longest time a job takes (a lead session), in virtual seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. `may_doubt`: a paid call may end in doubt; `charged`: it may have cost."""

    behaviour: str
    method: str
    may_doubt: bool = False
    charged: bool = False
    silent: bool = False
    """The client only learns of it by its deadline."""
    byte_s: float = 0.001
    freeze_s: float = 60.0
    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.method} {self.name or self.behaviour}"

    @property
    def deadline_real_s(self) -> float:
        """The client's patience. It adds to every freeze, so it is short where there are doubts."""
        return 0.6 if self.silent else 1.0 if self.may_doubt else 5.0


def _polls(behaviour: str, **rest: Any) -> Fault:
    return Fault(behaviour, "GET", **rest)


def _posts(behaviour: str, **rest: Any) -> Fault:
    return Fault(behaviour, "POST", may_doubt=True, **rest)


FAULTS: Final = (
    _posts("cut_request"),
    _posts("drop_answer", charged=True),
    _posts("cut_answer", charged=True),
    _posts("swallow", charged=True, silent=True),
    _posts("never_forward", silent=True),
    Fault("trickle", "POST"),
    _posts("trickle", charged=True, silent=True, byte_s=0.05, name="trickle_past_deadline"),
    Fault("refuse", "POST"),
    _posts("reset_before"),
    _posts("reset_after", charged=True),
    _posts("accept_late", charged=True, silent=True, freeze_s=1200.0),
    _polls("cut_request"),
    _polls("drop_answer"),
    _polls("cut_answer"),
    _polls("swallow", silent=True),
    _polls("never_forward", silent=True),
    _polls("trickle"),
    _polls("trickle", silent=True, byte_s=0.05, name="trickle_past_deadline"),
    _polls("refuse"),
    _polls("reset_before"),
    _polls("reset_after"),
)


@dataclass(slots=True)
class Round:
    """What a round came to."""

    did: Counter[str]
    reason: StopReason
    verdict: Verdict
    books: dict[str, Any]


async def play(
    folder: Path,
    fault: Fault,
    *,
    seed: int = 1,
    leads: int = 10,
    rate: float = 0.5,
    times: int = 1,
    at_most: int | None = None,
    late_s: tuple[float, float] = (0.0, LATE_S),
    freeze_s: float | None = None,
) -> Round:
    """One run over the proxy, to its end; then everything that was held back lands, and the books are read.

    Args:
        folder: For the ledger.
        fault: What the wire does.
        seed: Of the sandbox and of the rule.
        leads: Paid calls at least.
        rate: Share of the requests that are struck.
        times: Only the first so many requests for each lead or job can be.
        at_most: Strikes at most.
        late_s: A late acceptance comes so long (from, to) after the client gave up, in virtual seconds.
        freeze_s: The freeze, if not the fault's own.
    """
    way = Way(
        speed=600.0 if fault.behaviour == "accept_late" else 300.0,
        freeze_s=fault.freeze_s if freeze_s is None else freeze_s,
        deadline_real_s=fault.deadline_real_s if fault.method == "POST" else 5.0,
        poll_deadline_real_s=fault.deadline_real_s if fault.method == "GET" else 5.0,
    )
    rule = Rule(fault.behaviour, fault.method, seed, rate, times, at_most)
    pace = Pace(late_s=(late_s[0] / way.speed, late_s[1] / way.speed), byte_s=fault.byte_s)
    companies = [f"Firm {seed}-{number}" for number in range(leads)]
    async with served(sandbox_settings(seed, way.speed)) as upstream, Proxy(upstream, rule, pace) as proxy:
        with open_ledger(folder, way, companies) as ledger:
            reason = await drive(ledger, proxy.url, way)
        await proxy.landed()
        await asyncio.to_thread(tell, upstream, "/sandbox/advance", {"seconds": 3600})
        books = await asyncio.to_thread(tell, upstream, "/sandbox/books")
    return Round(proxy.did, reason, compare(folder / "leads.db", books), books)


def complaints(fault: Fault, played: Round) -> list[str]:
    """What is wrong with a round: in its books, or with doubts that this trouble cannot cause."""
    verdict = played.verdict
    wrong = list(verdict.wrong)
    if played.reason is not StopReason.FINISHED:
        wrong.append(f"the run ended as {played.reason}")
    if not fault.may_doubt and verdict.doubts_ever:
        wrong.append(f"{verdict.doubts_ever} doubts, and {fault.label} can cause none")
    if fault.may_doubt and not fault.charged:
        if set(verdict.states) - {"matched", "no_match"}:
            wrong.append(f"nothing was charged, and it ended {verdict.states}")
        if verdict.reasons["proved_free"] != played.did[fault.behaviour]:
            wrong.append(f"{verdict.reasons['proved_free']} proved free of {played.did[fault.behaviour]}")
    return wrong
