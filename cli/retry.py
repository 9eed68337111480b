"""`leadledger retry`: final jobs are asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger retry --state failed --import last")
@control.which
@options.common
@click.pass_obj
def command(obj: Globals, /, *, as_json: bool, yes: bool, **named: Any) -> None:
    """Ask again: each final job named is queued once more, as a new generation.

    Without --state, --reason or a JOB only failed jobs are meant: asking again what was answered, or what is
    lost and may have been paid, has to be said. It first says what that may cost, and asks.
    """
    control.carry_out(obj, "retry", _sentence, as_json=as_json, yes=yes, **named)


def _sentence(number: int, worst: str) -> str:
    return f"{number:,} jobs are asked again: up to {worst} more. What they have cost stays spent."
