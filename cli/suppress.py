"""`leadledger suppress`: people who are not to be asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger suppress --lead jane@example.com")
@control.which
@options.common
@click.pass_obj
def command(obj: Globals, /, *, as_json: bool, yes: bool, **named: Any) -> None:
    """Never ask about these leads again; their queued jobs are skipped. What was sent before goes on.

    JOB, --state and the like mean the leads of those jobs.
    """
    control.carry_out(obj, "suppress", _sentence, as_json=as_json, yes=yes, **named)


def _sentence(number: int, worst: str) -> str:
    del worst
    return f"{number:,} leads are never asked again and their queued jobs are skipped. That costs nothing."
