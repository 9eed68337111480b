"""Totals that refresh by reading only what is new.

`costs` and `transitions` are append-only and their numbers only grow (triggers hold both), so a sum up to a
number never changes. The pages keep those sums in memory and add the rows that came since: a refresh costs
the same on ten thousand jobs and on a million. The first look at a large ledger reads it once, in pieces, so
that no read lasts long enough to keep the writer's log from being cut.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ledger.states import NEW

if TYPE_CHECKING:
    from datasette.database import Database

_PIECE: Final = 250_000
"""Rows read in one go: a few tenths of a second."""
_NEWEST: Final = "SELECT (SELECT MAX(id) FROM costs), (SELECT MAX(id) FROM transitions)"
_COSTS: Final = """
    SELECT run_id, substr(at, 1, 16), kind, SUM(amount_microusd) FROM costs
    WHERE id > ? AND id <= ? GROUP BY 1, 2, 3
"""
_STEPS: Final = """
    SELECT run_id, substr(at, 1, 16), from_state, to_state, reason, COUNT(*) FROM transitions
    WHERE id > ? AND id <= ? GROUP BY 1, 2, 3, 4, 5
"""

Minutes = defaultdict[str, Counter[Any]]


class Tally:
    """What moved, by run and minute, up to the newest row seen."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._forget()

    def _forget(self) -> None:
        self._last = {"costs": 0, "steps": 0}
        self.states: Counter[str] = Counter()
        """Jobs by state, now."""
        self.spend: defaultdict[int | None, Minutes] = defaultdict(lambda: defaultdict(Counter))
        """Run -> minute (`2026-11-26T21:04`) -> kind of cost -> micro-dollars."""
        self.steps: defaultdict[int | None, Minutes] = defaultdict(lambda: defaultdict(Counter))
        """Run -> minute -> (state after, reason) -> jobs."""

    async def catch_up(self, database: Database) -> None:
        """Take in what was written since the last call; both tables as of one moment."""
        async with self._lock:
            costs, steps = (await database.execute(_NEWEST)).rows[0]
            if (costs or 0) < self._last["costs"] or (steps or 0) < self._last["steps"]:
                self._forget()  # another file has taken this one's place
            await self._read(database, "costs", _COSTS, costs or 0, self._add_costs)
            await self._read(database, "steps", _STEPS, steps or 0, self._add_steps)

    async def _read(self, database: Database, name: str, query: str, newest: int, add: Any) -> None:
        while self._last[name] < newest:
            first, last = self._last[name], min(self._last[name] + _PIECE, newest)
            found = await database.execute_fn(partial(_fetch, query, (first, last)))
            for row in found:
                add(*row)
            self._last[name] = last

    def _add_costs(self, run_id: int | None, minute: str, kind: str, amount: int) -> None:
        self.spend[run_id][minute][kind] += amount

    def _add_steps(
        self, run_id: int | None, minute: str, before: str, after: str, reason: str, number: int
    ) -> None:
        self.steps[run_id][minute][after, reason] += number
        self.states[after] += number
        if before != NEW:
            self.states[before] -= number

    def money(self, run_ids: list[int] | None = None) -> Counter[str]:
        """Micro-dollars by kind of cost, of these runs or of all, plus `charged` and `held`."""
        chosen = list(self.spend) if run_ids is None else run_ids
        total: Counter[str] = Counter()
        for run_id in chosen:
            for kinds in self.spend.get(run_id, {}).values():
                total.update(kinds)
        total["charged"] = total["charge"] + total["adjust"]
        total["held"] = total["hold"] - total["charge"] - total["release"]
        return total

    def reasons(self, run_id: int) -> Counter[tuple[str, str]]:
        """(state after, reason) -> jobs, of one run."""
        total: Counter[tuple[str, str]] = Counter()
        for steps in self.steps.get(run_id, {}).values():
            total.update(steps)
        return total


def _fetch(query: str, parameters: tuple[int, int], connection: Any) -> list[Any]:
    found: list[Any] = connection.execute(query, parameters).fetchall()
    return found
