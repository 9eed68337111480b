"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ledger.money import parse_usd
from ledger.states import MODES, ROUTES, full_route

F = TypeVar("F", bound=Callable[..., Any])


class Usd(click.ParamType[int]):
    """An amount in dollars, as micro-dollars."""

    name = "USD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Micro-dollars of `1.50`."""
        amount = parse_usd(str(value))
        if amount is None:
            self.fail(f"{value!r} is not an amount in dollars (like 25 or 1.50)", param, ctx)
        return amount


class Address(click.ParamType[str]):
    """A base URL. An empty one is a shell variable that is not set, and must not mean the real provider."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, unless there is none."""
        if not str(value).strip():
            self.fail("it is empty; leave the option away for the profile's address", param, ctx)
        return str(value)


class Route(click.ParamType[str]):
    """A route, in full or short."""

    name = "ROUTE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name."""
        route = full_route(str(value))
        if route not in ROUTES:
            short = ", ".join(name.removeprefix("enrich/") for name in ROUTES)
            self.fail(f"there is no route {value!r}; routes: {short}", param, ctx)
        return route


def common(command: F) -> F:
    """`--json` and `--yes`, which every command takes."""
    command = click.option("--yes", is_flag=True, help="Answer every question with yes.")(command)
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(command)


def profile(command: F) -> F:
    """Whose deliveries these are and how they are read."""
    return click.option(
        "--profile", type=click.Path(path_type=Path), help="A profile laid over the built-in one."
    )(command)


def provider(command: F) -> F:
    """Where the provider is and how to be let in. The key itself is never an option's value."""
    for decorate in (
        click.option(
            "--api-key-command", hidden=True, help="A command that prints the key (from leadledger.toml)."
        ),
        click.option(
            "--api-key-file",
            type=click.Path(path_type=Path, allow_dash=True),
            help="Read the key from FILE (- for stdin); else LEADLEDGER_API_KEY.",
        ),
        profile,
        click.option("--base-url", type=Address(), help="The provider's address.  [default: the profile's]"),
    ):
        command = decorate(command)
    return command


def selection(command: F) -> F:
    """Which leads, and on which route."""
    for decorate in (
        click.option("--limit", type=click.IntRange(min=1), help="At most N jobs."),
        click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Only leads whose field says so."),
        click.option("--lead", "leads", multiple=True, help="Only this lead (number, contact id, email, …)."),
        click.option("--import", "import_name", metavar="ID|last", help="Only leads of this import."),
        click.option("--ceiling", type=Usd(), help="At most so much for one attempt."),
        click.option("--mode", type=click.Choice(MODES[:2]), help="async or sync.  [default: the route's]"),
        click.option(
            "--route",
            type=Route(),
            required=True,
            help="What to ask: " + ", ".join(name.removeprefix("enrich/") for name in ROUTES) + ".",
        ),
    ):
        command = decorate(command)
    return command


def budgets(*, required: bool) -> Callable[[F], F]:
    """The four caps; a run cannot do without the first."""

    def decorated(command: F) -> F:
        for decorate in (
            click.option("--new-budget", is_flag=True, help="A fresh budget instead of continuing the last."),
            click.option("--budget-total", type=Usd(), help="Cap of the whole ledger."),
            click.option("--budget-lead", type=Usd(), help="Cap of one lead over the ledger's life."),
            click.option("--budget-day", type=Usd(), help="Cap of one UTC day."),
            click.option(
                "--budget",
                type=Usd(),
                required=required,
                help="Cap of this run and those that continue it.",
            ),
        ):
            command = decorate(command)
        return command

    return decorated


def pace(command: F) -> F:
    """How much at once, until when, and what becomes of doubts."""
    for decorate in (
        click.option("--no-audit", is_flag=True, help="Leave doubts alone at the end."),
        click.option(
            "--freeze", type=click.FloatRange(min=0), help="Seconds after which a lost POST is dead."
        ),
        click.option("--until", metavar="HH:MM", help="Claim nothing from this local time on."),
        click.option(
            "--in-flight",
            type=click.IntRange(1, 100_000),
            default=10_000,
            show_default=True,
            help="Jobs at the provider.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 200),
            default=5,
            show_default=True,
            help="Paid POSTs in the air: bounds the doubts of one crash.",
        ),
        click.option("--change-provider", is_flag=True, help="Accept another provider than the last run's."),
    ):
        command = decorate(command)
    return command
