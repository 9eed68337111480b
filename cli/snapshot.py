"""`leadledger snapshot`: a clean copy to share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.cli import options, output
from ledger.cli.files import check_new

if TYPE_CHECKING:
    from ledger.cli.settings import Globals


@click.command(epilog="Example: leadledger snapshot --mask night.db && datasette night.db")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--mask", is_flag=True, help="Leave out whatever says who somebody is; keep the money.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@options.common
@click.pass_obj
def command(obj: Globals, *, file: Path, mask: bool, force: bool, as_json: bool, yes: bool) -> None:
    """Write a clean copy of the ledger to FILE, also while a run is on.

    The copy holds no poll bearer, opens in anything that reads SQLite, and is no ledger: no run works on it.
    """
    del yes
    check_new(file, force=force)
    from ledger.store.snapshot import take

    done = take(obj.db, file, mask=mask)
    if as_json:
        output.emit_json(
            {
                "schema": 1,
                "file": str(file),
                "bytes": done.size_bytes,
                "bearers_dropped": done.bearers_dropped,
                "masked": done.masked,
                "searched": done.searched,
            }
        )
        return
    output.say(
        f"{file}: {done.size_bytes:,} bytes; {done.bearers_dropped:,} poll bearers left out"
        + (", personal fields blanked" if mask else "; it names people, --mask would not")
        + "."
    )
    output.tell(f"  datasette {file}")
