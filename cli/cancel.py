"""`leadledger cancel`: what was not sent is not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger cancel --lead 42")
@control.which
@options.common
@click.pass_obj
def command(obj: Globals, /, *, as_json: bool, yes: bool, **named: Any) -> None:
    """Cancel queued jobs for good. What is already sent goes on.

    `retry` would ask a cancelled job again.
    """
    control.carry_out(obj, "cancel", _sentence, as_json=as_json, yes=yes, **named)


def _sentence(number: int, worst: str) -> str:
    del worst
    return f"{number:,} queued jobs are cancelled. That costs nothing."
