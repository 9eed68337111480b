"""How the pages say things: states with a sign, dollars with their unit, times relative and exact."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from markupsafe import Markup, escape

from ledger.clock import from_text
from ledger.money import usd
from ledger.plaintext import clean
from ledger.states import State, StopReason

SIGNS: Final[dict[str, str]] = {
    State.QUEUED: "○",
    State.SUBMITTING: "↑",
    State.WAITING: "◔",
    State.IN_DOUBT: "?",
    State.MATCHED: "✓",
    State.NO_MATCH: "∅",
    State.FAILED: "✕",
    State.LOST: "!",
    State.SKIPPED: "»",
    State.CANCELLED: "⊘",
}
"""A sign beside each state's name: colour alone carries no meaning."""
ENDINGS: Final[dict[str, str]] = {
    StopReason.FINISHED: "every selected job was final",
    StopReason.LIMIT: "its limit was reached",
    StopReason.UNTIL: "it was time",
    StopReason.BUDGET: "a budget was spent",
    StopReason.NO_FUNDS: "the balance did not carry another job",
    StopReason.INTERRUPTED: "somebody stopped it",
    StopReason.NOT_ALLOWED: "the provider refused the key",
    StopReason.REFUSED: "the provider refused every request",
    StopReason.UNREACHABLE: "the provider could not be reached",
    StopReason.DISK: "the disk refused",
    StopReason.DIED: "it died without a word",
}
"""Why a run ended, after a colon."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_STEPS: Final = ((86400 * 2, 86400, "days"), (3600, 3600, "h"), (60, 60, "min"), (0, 1, "s"))


def badge(state: object) -> Markup:
    """A state as a badge: sign, name, colour."""
    name = str(state)
    if name not in SIGNS:
        return escape(name)
    return Markup('<span class="badge s-{0}"><span aria-hidden="true">{1}</span> {2}</span>').format(
        name, SIGNS[name], name.replace("_", " ")
    )


def ending(reason: object) -> str:
    """Why a run ended, in words."""
    return ENDINGS.get(str(reason), str(reason or ""))


def is_time(value: object) -> bool:
    """True for a time as the ledger writes it."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def span(seconds: float) -> str:
    """A length of time in its largest unit: `12 s`, `3 min`, `2 h`, `4 days`."""
    for least, size, unit in _STEPS:
        if seconds >= least:
            return f"{int(seconds // size):,} {unit}"
    return "0 s"


def ago(at: str, now: datetime) -> str:
    """`3 min ago`, or `in 5 min`."""
    seconds = (now - from_text(at)).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def when(at: object, now: datetime) -> Markup:
    """A time: relative to read, exact on hover. Anything else as it is."""
    if not is_time(at):
        return escape(clean("" if at is None else at))
    exact = str(at)[:19].replace("T", " ") + " UTC"
    return Markup('<time datetime="{0}" title="{1}">{2}</time>').format(at, exact, ago(str(at), now))


def dollars(microusd: object) -> str:
    """`$1.50`; a dash where nothing is known."""
    return usd(microusd) if isinstance(microusd, int) else "—"


def count(number: object) -> str:
    """`1,204`."""
    return f"{number:,}" if isinstance(number, int) else "—"


FILTERS: Final[dict[str, Any]] = {
    "badge": badge,
    "clean": clean,
    "count": count,
    "dollars": dollars,
    "ending": ending,
    "span": span,
    "when": when,
}
"""What the templates may call, under `ledger_` and these names."""
