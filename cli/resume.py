"""`leadledger resume`: paused jobs may go again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger resume --all")
@control.which
@options.common
@click.pass_obj
def command(obj: Globals, /, *, as_json: bool, yes: bool, **named: Any) -> None:
    """Let paused jobs go again: the run that is on, or the next one, sends them."""
    control.carry_out(obj, "resume", _sentence, as_json=as_json, yes=yes, **named)


def _sentence(number: int, worst: str) -> str:
    return f"{number:,} paused jobs may be sent: up to {worst}."
