"""A run looks into the inbox: what came in is carried out by the store, and the run learns what it means.

Often, and cheaply: a look that finds nothing is one directory that is not there, or is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ledger.clock import Clock
from ledger.poller import Poller
from ledger.states import State
from ledger.store.intents import Taken
from ledger.store.ledger import Ledger
from ledger.transition import Transition

_LOOK_S: Final = 1.0
"""The inbox is looked into this often while a run is busy."""
_ROUNDS_MAX: Final = 20
"""A flood of deliveries must not keep a run from ending: what is left waits for the next start."""


class Told(NamedTuple):
    """What a run wants to hear of."""

    moved: Callable[[Transition], None]
    """A job took this step."""
    may_send: Callable[[], None]
    """Something may have been queued."""
    note: Callable[[str], None]
    """What was done, in a sentence."""


class InTray:
    """The inbox of one run.

    Args:
        ledger: Carries out what came.
        poller: Told which jobs to poll, to poll at once, or to leave alone.
        clock: The one clock.
        told: What the run hears of it.
        alone: The balance is ours alone: a job nobody knows may be matched to the one doubt it fits.
    """

    def __init__(self, ledger: Ledger, poller: Poller, clock: Clock, told: Told, *, alone: bool) -> None:
        self._ledger, self._poller, self._clock, self._told = ledger, poller, clock, told
        self._alone = self._unfitted = alone
        self._looked = -_LOOK_S

    def look(self, *, at_once: bool = False, rounds: int = 1) -> None:
        """Carry out what waits, `rounds` times the bound of one go; once a second at most unless `at_once`.

        Raises:
            DiskTrouble: The ledger or the inbox cannot be written; paying must stop.
        """
        now = self._clock.monotonic()
        if not at_once and now - self._looked < _LOOK_S:
            return
        self._looked = now
        for _ in range(rounds):
            taken = self._ledger.take_inbox()
            if not taken:
                return
            for one in taken:
                self._learn(one)
            self._unfitted = self._alone and (self._unfitted or any(one.delivered for one in taken))

    def empty(self) -> None:
        """Carry out everything that waits, as far as a flood allows: at the start and before the end.

        Raises:
            DiskTrouble: As `look`.
        """
        self.look(at_once=True, rounds=_ROUNDS_MAX)

    def fit(self) -> None:
        """Match deliveries that name nothing of ours, once no call of theirs can still be in the air."""
        if self._unfitted:
            self._unfitted = False
            for one in self._ledger.fit_deliveries():
                self._learn(one)

    def _learn(self, one: Taken) -> None:
        for step in one.steps:
            self._told.moved(step)
            if step.to_state is not State.LOST:  # of a lost one an answer may still come: go on asking
                self._poller.forget(step.job_id)
            if step.to_state is State.WAITING and (job := self._ledger.open_job(step.job_id)) is not None:
                self._poller.add(job, at_once=True)
        if one.ask_now is not None:
            self._poller.ask_now(one.ask_now)
        if one.may_send:
            self._told.may_send()
        self._told.note(one.note)
