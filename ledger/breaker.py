"""When the answers themselves say: stop. Pure counting over what paid calls brought back."""

from __future__ import annotations

from collections import Counter

from ledger import events as ev
from ledger.policy import Policy
from ledger.states import StopReason


class Breaker:
    """Watches the outcomes of one run. `why` says in the provider's words what tripped it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._refusals: Counter[str] = Counter()
        self._answers = 0
        self._unknowns = 0
        self.why = ""

    def saw(self, event: ev.PostEvent) -> StopReason | None:
        """Why to stop the run, or None: a refused key, a route that refuses all, or no clear answers."""
        match event:
            case ev.NotAllowed(error_code=code, message=message):
                self.why = message or code
                return StopReason.NOT_ALLOWED
            case ev.Refused(error_code=code, message=message):
                self._refusals[code] += 1
                alike = self._refusals[code] == self._refusals.total() and not self._answers
                if alike and self._refusals[code] == self._policy.refusals_breaker:
                    self.why = message or code
                    return StopReason.REFUSED
            case ev.Accepted() | ev.Answered():
                self._answers += 1
                self._unknowns = 0
            case ev.Unknown(error=error):
                self._unknowns += 1
                if self._unknowns >= self._policy.doubts_breaker:
                    self.why = f"{self._unknowns} calls in a row had no clear answer ({error})"
                    return StopReason.UNREACHABLE
            case _:
                pass
        return None
