"""`leadledger sandbox`: a provider on this machine, with faults on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import options, output
from ledger.errors import UsageProblem

if TYPE_CHECKING:
    from ledger.sandbox.settings import Settings


@click.command(epilog="Example: leadledger sandbox --port 4110 --speed 60 --fault lose_answer=0.01")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=4110, show_default=True, help="0: a free one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same answers.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How fast its clock runs.",
)
@click.option("--fault", "faults", multiple=True, metavar="NAME=RATE", help="A fault and how often (0 to 1).")
@click.option("--balance", "opening_usd", default="10000", show_default=True, help="Opening balance, USD.")
@click.option("--scenario", type=click.Path(path_type=Path), help="JSON file with any of its settings.")
@click.option("--list-faults", is_flag=True, help="Name every fault and stop.")
@options.common
def command(
    *,
    host: str,
    port: int,
    seed: int,
    speed: float,
    faults: tuple[str, ...],
    opening_usd: str,
    scenario: Path | None,
    list_faults: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Serve a provider of our own: jobs, polling, pre-charge, refund, balance, 402, 429, and faults.

    Its books are at /sandbox/books: every accepted call, charge, refund and duplicate. Any key that starts
    with 411_ is let in. Stop it with Ctrl+C.
    """
    del yes
    from ledger.sandbox.faults import ASSUMED_AWAY, FAULTS
    from ledger.sandbox.serve import serve

    if list_faults:
        _list({**FAULTS, **ASSUMED_AWAY}, as_json=as_json)
        return
    wanted: dict[str, Any] = {"seed": seed, "speed": speed, "opening_usd": opening_usd}
    settings = _settings(scenario, wanted, faults)

    def ready(bound: int) -> None:
        if as_json:
            output.emit_json({"schema": 1, "base_url": f"http://{host}:{bound}"})
            return
        output.say(f"Sandbox at http://{host}:{bound} (books: http://{host}:{bound}/sandbox/books)")
        output.tell(f"  export LEADLEDGER_BASE_URL=http://{host}:{bound} LEADLEDGER_API_KEY=411_sandbox")

    try:
        serve(settings, host, port, ready)
    except OSError as error:
        raise UsageProblem(
            f"The sandbox cannot listen on {host}:{port}: {error.strerror}.",
            next_step="--port 0 takes a free one.",
        ) from error


def _list(faults: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        output.emit_json({"schema": 1, "faults": faults})
        return
    for name, text in faults.items():
        output.say(f"{name:18} {text}")


def _settings(scenario: Path | None, wanted: dict[str, Any], faults: tuple[str, ...]) -> Settings:
    from ledger.sandbox.settings import Settings

    try:
        rates = {name: float(rate) for name, _, rate in (text.partition("=") for text in faults)}
    except ValueError:
        raise UsageProblem("--fault is NAME=RATE, a rate between 0 and 1.") from None
    try:
        if scenario is None:
            return Settings(**wanted, faults=rates)
        settings = Settings.from_json(scenario.read_text(encoding="utf-8"))
        return settings.changed({"faults": {**settings.faults, **rates}}) if rates else settings
    except (ValueError, OSError) as error:
        raise UsageProblem(f"The sandbox cannot be set up so: {error}.") from error
