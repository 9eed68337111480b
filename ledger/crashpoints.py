"""Named moments at which a test may have this process killed, as a power switch would: SIGKILL, no clean-up.

`LEADLEDGER_CRASH_AT=post_before` kills at the first passing of that point, `post_before:3` at the third.
Without the variable a point is one comparison and does nothing. `tests/campaigns/statements.py` kills at
every one of them; a test holds that each name here is passed somewhere and that no other is.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from ledger.errors import UsageProblem

VARIABLE: Final = "LEADLEDGER_CRASH_AT"
POINTS: Final = {
    "migrate_before_commit": "The schema is written, inside the transaction.",
    "migrate_after_commit": "The schema is on disk; a backup of the old file may still lie beside it.",
    "import_before_commit": "Every row of a file is written, inside the transaction.",
    "import_after_commit": "The file is taken in; nobody has been told.",
    "recover_before_commit": "The dead run's POSTs are doubts, inside the transaction.",
    "recover_after_commit": "They are on disk; the reserve they may have come from is not wiped yet.",
    "reserve_wiped": "The reserve is all zeros, and still there.",
    "begin_after_reserve": "The reserve is allocated; there is no run yet.",
    "begin_after_commit": "The run is open; nothing is enqueued.",
    "enqueue_before_commit": "A page of jobs is written, inside the transaction.",
    "enqueue_after_commit": "That page is on disk.",
    "claim_before_commit": "Intents and holds are written, inside the transaction.",
    "claim_after_commit": "Intents and holds are on disk; nothing has been sent for them.",
    "post_before": "A paid POST is about to leave.",
    "post_answering": "The first bytes of its answer are here, the rest is not.",
    "post_after": "Its answer is in memory only.",
    "step_before_commit": "A job has taken a step (state, money, answer), inside the transaction.",
    "record_after_commit": "What the POST brought is on disk; the run has not reacted.",
    "reserve_before_write": "The ledger did not take a paid answer; the reserve has not got it yet.",
    "reserve_after_write": "It is in the reserve, synced.",
    "poll_after": "A poll's answer is in memory only.",
    "settle_after_commit": "It is on disk, with the job's money; the run has not reacted.",
    "end_after_commit": "The run is closed; the log is not cut yet.",
    "end_after_checkpoint": "The log is cut; the ledger is still open and locked.",
}
"""Every point, and what is true when it is passed."""

_at = ""
_left = 0


def arm(wanted: str | None) -> None:
    """Kill this process at `NAME` or `NAME:N` (its N-th passing); None or "": never.

    Raises:
        UsageProblem: There is no such point.
    """
    global _at, _left
    name, counted, times = (wanted or "").partition(":")
    times = times if counted else "1"
    if wanted and (name not in POINTS or not (times.isascii() and times.isdigit() and int(times) > 0)):
        raise UsageProblem(
            f"{VARIABLE}={wanted} names no crash point.",
            next_step=f"It is NAME or NAME:N, with one of: {', '.join(POINTS)}. Unset it to work normally.",
        )
    _at, _left = name, int(times)


def reach(name: str) -> None:
    """Pass a point: the process ends here, if it was armed for this passing."""
    global _left  # noqa: PLW0603 - see `arm`
    if name != _at:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
