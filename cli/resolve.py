"""`leadledger resolve`: a person decides what evidence could not."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import click

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock
from ledger.errors import UsageProblem
from ledger.events import Secret
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.store.balance import Doubt
    from ledger.store.ledger import Ledger

_BEARER: Final = re.compile(r"[!-~]{1,4096}")
_REMOTE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@click.command(epilog="Example: leadledger resolve 42 --write-off   (leadledger jobs --state in_doubt lists)")
@click.argument("job", type=click.IntRange(1, 2**63 - 1), required=False)
@click.option("--all", "everything", is_flag=True, help="Every doubt.")
@click.option("--resend", is_flag=True, help="Give up on the doubtful call and ask anew.")
@click.option("--write-off", is_flag=True, help="Give up on the doubtful call.")
@click.option("--accept", metavar="REMOTE_JOB_ID", help="The provider knows it by this id: poll it.")
@click.option("--bearer-stdin", is_flag=True, help="With --accept: read the poll bearer from stdin.")
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    job: int | None,
    everything: bool,
    resend: bool,
    write_off: bool,
    accept: str | None,
    bearer_stdin: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Decide a JOB that is in doubt: sent, outcome unknown, its money still set aside.

    Each choice first says what it may cost, and asks; scripts answer with --yes.
    """
    if sum((resend, write_off, accept is not None)) != 1:
        raise UsageProblem("Say one of --resend, --write-off or --accept REMOTE_JOB_ID.")
    if (job is None) != everything or (everything and accept is not None):
        raise UsageProblem("Name one JOB, or --all with --resend or --write-off.")
    if accept is not None and not _REMOTE_ID.fullmatch(accept):
        raise UsageProblem(f"{accept!r} is not a job id: letters, digits, _ and - only, at most 128.")
    with wiring.open_ledger(obj.db, "resolve", SystemClock()) as ledger:
        ledger.recover()
        doubts = ledger.doubts(job)
        done = _decide(ledger, doubts, accept, bearer_stdin=bearer_stdin, resend=resend, yes=yes)
    if as_json:
        output.emit_json({"schema": 1, "resolved": done[0], "charged_microusd": done[1]})
    else:
        output.say(f"{done[0]} decided; {usd(done[1])} now counts as spent.")


def _decide(
    ledger: Ledger, doubts: list[Doubt], accept: str | None, *, bearer_stdin: bool, resend: bool, yes: bool
) -> tuple[int, int]:
    """(doubts decided, micro-dollars now counted as spent)."""
    if not doubts:
        output.tell("Nothing is in doubt.")
        return 0, 0
    missing = ledger.audited_gap()
    held = ceilings = sum(doubt.ceiling_microusd for doubt in doubts)
    if missing is not None:
        held = min(held, missing)
        output.tell(f"The last balance audit found {usd(missing)} gone.")
    if accept is not None:
        bearer = _read_bearer() if bearer_stdin else None
        _ask(f"Job {doubts[0].job_id} will be polled as {accept}. That costs nothing.", yes=yes)
        ledger.accept(doubts[0], accept, bearer)
        return 1, 0
    if resend:
        _ask(
            f"{len(doubts)} doubtful calls count as spent (up to {usd(held)}) and are asked anew: up to "
            f"{usd(ceilings)} more. If the first calls were accepted, both are paid.",
            yes=yes,
        )
    else:
        _ask(
            f"{len(doubts)} doubtful calls are given up: up to {usd(held)} counts as spent, marked assumed.",
            yes=yes,
        )
    return len(doubts), ledger.write_off(doubts, resend=resend)


def _read_bearer() -> Secret:
    text = sys.stdin.readline(4097).strip()
    if not _BEARER.fullmatch(text):
        raise UsageProblem("What came on stdin is not a poll bearer: one word of plain ASCII.")
    return Secret(text)


def _ask(what: str, *, yes: bool) -> None:
    """Say what it costs, and ask where somebody can answer."""
    output.tell(what)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem("This needs a yes.", next_step="Add --yes when no terminal is attached.")
    click.confirm("Go on?", abort=True, err=True)
