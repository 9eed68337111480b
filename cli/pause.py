"""`leadledger pause`: queued jobs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger pause --all")
@control.which
@options.common
@click.pass_obj
def command(obj: Globals, /, *, as_json: bool, yes: bool, **named: Any) -> None:
    """Let queued jobs wait until `leadledger resume`. What is already sent goes on."""
    control.carry_out(obj, "pause", _sentence, as_json=as_json, yes=yes, **named)


def _sentence(number: int, worst: str) -> str:
    del worst
    return f"{number:,} queued jobs wait until `leadledger resume`. That costs nothing."
