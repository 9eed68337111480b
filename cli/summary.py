"""What a run says of itself when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ledger.cli import output
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.orders import Progress

_WHY: Final = {
    "finished": "Done: every selected job is final.",
    "limit": "Done: the limit is reached.",
    "until": "Stopped: it is time. The same command goes on.",
    "budget": "Stopped: --budget is spent. The same command again starts a fresh budget.",
    "budget_day": "Stopped: --budget-day is reached. Raise it, or go on after midnight UTC.",
    "budget_lead": "Stopped: the leads that are left are at --budget-lead.",
    "budget_total": "Stopped: --budget-total is reached. Only raising it lets the ledger spend more.",
    "no_funds": "Stopped: the balance does not carry another job. Top it up; the same command goes on.",
    "interrupted": "Interrupted, safely. The same command goes on.",
    "not_allowed": "Stopped: the provider refuses the key.",
    "refused": "Stopped: the provider refuses every request of this route; the rest stays queued.",
    "unreachable": "Stopped: the provider cannot be reached. Try again later; nothing is lost.",
}


def tell(
    result: dict[str, Any], counts: dict[str, int], progress: Progress | None, skipped: dict[str, int]
) -> None:
    """Say why a run ended, what it did and what is left.

    Args:
        result: What `run --json` prints.
        counts: Jobs of the whole ledger by state.
        progress: What the run did; None when there was nothing to do.
        skipped: Leads that were not asked, by reason.
    """
    note, cap = ("", "") if progress is None else (progress.note, progress.cap)
    reason = cap if result["stop_reason"] == "budget" and cap else result["stop_reason"]
    why = _WHY.get(reason, reason)
    if result["stop_reason"] == "finished" and counts["in_doubt"]:
        why = "Done, except for what is in doubt."
    output.say(why)
    if note and result["stop_reason"] in {"not_allowed", "refused", "unreachable", "no_funds"}:
        output.say(f"  Because: {output.clean(note)}.")
    done = ", ".join(f"{n:,} {state}" for state, n in sorted(result["final"].items())) or "nothing new"
    output.say(f"  This run: {result['submitted']:,} sent; {done}.")
    for why_not, number in skipped.items():
        output.say(f"  {number:,} leads skipped: {why_not.replace('_', ' ')}.")
    if result["final"].get("lost"):
        output.say(
            f"  {result['final']['lost']:,} lost: paid for, and the answer is gone. "
            "`leadledger audit --claims FILE` writes down what to ask the provider."
        )
    output.say(f"  Charged {usd(result['charged_microusd'])}; still held {usd(result['held_microusd'])}.")
    if counts["in_doubt"]:
        output.say(
            f"  {counts['in_doubt']} in doubt: sent, outcome unknown. `leadledger jobs --state in_doubt` "
            "lists them, `leadledger resolve` decides."
        )
        if note:
            output.say(f"  {output.clean(note)}")
    open_ = counts["queued"] + counts["waiting"]
    if open_:
        output.say(f"  {counts['queued']:,} queued, {counts['waiting']:,} waiting at the provider.")
