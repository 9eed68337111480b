"""`leadledger resolve`: a person decides what evidence could not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options, output
from ledger.errors import UsageProblem
from ledger.events import BEARER, REMOTE_JOB_ID, Secret
from ledger.money import usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.store.balance import Doubt


@click.command(epilog="Example: leadledger resolve 42 --write-off   (leadledger jobs --state in_doubt lists)")
@click.argument("job", type=click.IntRange(1, 2**63 - 1), required=False)
@click.option("--all", "everything", is_flag=True, help="Every doubt.")
@click.option("--resend", is_flag=True, help="Give up on the doubtful call and ask anew.")
@click.option("--write-off", is_flag=True, help="Give up on the doubtful call.")
@click.option("--accept", metavar="REMOTE_JOB_ID", help="The provider knows it by this id: poll it.")
@click.option("--bearer-stdin", is_flag=True, help="With --accept: read the poll bearer from stdin.")
@options.profile
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
    profile: Path | None,
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
    if accept is not None and not REMOTE_JOB_ID.fullmatch(accept):
        raise UsageProblem(f"{accept!r} is not a job id: letters, digits, _ and - only, at most 128.")
    bearer = _read_bearer() if bearer_stdin and accept is not None else None
    from ledger.api.profile import Profile
    from ledger.store.read import Reader

    loaded = Profile.load(profile)
    control.settle(obj.db, loaded)
    with Reader(obj.db) as reader:
        doubts, missing = reader.doubts(job), reader.audited_gap()
    result = {"schema": 1, "resolved": 0, "charged_microusd": 0, "applied": True}
    if not doubts:
        output.tell("Nothing is in doubt.")
    else:
        _say_and_ask(doubts, missing, accept, resend=resend, yes=yes)
        decision = _decision(doubts, accept, bearer, resend=resend)
        outcome = control.send(obj.db, "resolve", decision, loaded)
        if outcome is None:
            result["applied"] = False
        else:
            result |= {"resolved": outcome.jobs, "charged_microusd": outcome.charged_microusd}
        if not as_json:
            output.say(control.LATER if outcome is None else outcome.outcome)
    if as_json:
        output.emit_json(result)


def _decision(
    doubts: list[Doubt], accept: str | None, bearer: Secret | None, *, resend: bool
) -> dict[str, Any]:
    """The item for the inbox: exactly the doubts that the person was shown. Its file is 0600."""
    decided: dict[str, Any] = {"doubts": [[doubt.job_id, doubt.fence] for doubt in doubts]}
    if accept is None:
        return {**decided, "choice": "resend" if resend else "write-off"}
    secret = None if bearer is None else bearer.reveal()
    return {**decided, "choice": "accept", "remote_job_id": accept, "bearer": secret}


def _say_and_ask(
    doubts: list[Doubt], missing: int | None, accept: str | None, *, resend: bool, yes: bool
) -> None:
    held = ceilings = sum(doubt.ceiling_microusd for doubt in doubts)
    if missing is not None:
        held = min(held, missing)
        output.tell(f"The last balance audit found {usd(missing)} gone.")
    if accept is not None:
        control.ask(f"Job {doubts[0].job_id} will be polled as {accept}. That costs nothing.", yes=yes)
    elif resend:
        control.ask(
            f"{len(doubts)} doubtful calls count as spent (up to {usd(held)}) and are asked anew: up to "
            f"{usd(ceilings)} more. If the first calls were accepted, both are paid.",
            yes=yes,
        )
    else:
        control.ask(
            f"{len(doubts)} doubtful calls are given up: up to {usd(held)} counts as spent, marked assumed.",
            yes=yes,
        )


def _read_bearer() -> Secret:
    text = sys.stdin.readline(4097).strip()
    if not BEARER.fullmatch(text):
        raise UsageProblem("What came on stdin is not a poll bearer: one word of plain ASCII.")
    return Secret(text)
