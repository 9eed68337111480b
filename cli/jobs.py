"""`leadledger jobs`: a list to look through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ledger.cli import options, output
from ledger.money import usd
from ledger.states import Reason, State

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger jobs --state in_doubt")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only jobs in this state.")
@click.option("--route", type=options.Route(), help="Only jobs of this route.")
@click.option(
    "--reason",
    type=click.Choice([reason.value for reason in Reason]),
    metavar="REASON",
    help="Only jobs that moved last for this reason.",
)
@click.option("--lead", "lead_name", help="Only jobs of this lead.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most N.")
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    state: str | None,
    route: str | None,
    reason: str | None,
    lead_name: str | None,
    limit: int,
    as_json: bool,
    yes: bool,
) -> None:
    """List jobs, newest first."""
    del yes
    from ledger.store.read import Reader

    with Reader(obj.db) as reader:
        lead_id = None if lead_name is None else reader.find_lead(lead_name)
        found = reader.jobs({"state": state, "route": route, "reason": reason, "lead_id": lead_id}, limit)
    if as_json:
        output.emit_json({"schema": 1, "jobs": found})
        return
    output.table(
        ("job", "lead", "who", "route", "state", "reason", "tries", "charged", "held", "changed", "error"),
        (
            (
                job["job_id"],
                job["lead_id"],
                (job["company"] or job["dm_name"] or "")[:30],
                job["route"].removeprefix("enrich/"),
                job["state"],
                job["reason"],
                job["attempts"],
                usd(job["charged_microusd"]),
                usd(job["held_microusd"]),
                job["updated_at"][:19].replace("T", " "),
                job["error"],
            )
            for job in found
        ),
    )
    if len(found) == limit:
        output.tell(f"The newest {limit}; --limit shows more.")
