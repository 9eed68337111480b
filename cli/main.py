"""`leadledger`: the command group. Commands are imported only when they are called (start-up time)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from ledger import __version__, crashpoints
from ledger.cli import output, settings
from ledger.errors import LeadledgerError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "import": ("import_", "Take a CRM export in: every row kept, every lead once."),
    "plan": ("plan", "What a run would send and cost. No paid call."),
    "run": ("run", "Submit, poll and settle, until done or stopped."),
    "status": ("status", "Jobs by state, money, rate."),
    "show": ("show", "Everything about one lead, in sentences."),
    "jobs": ("jobs", "List jobs by state, route or reason."),
    "retry": ("retry", "Ask again what failed; says first what that may cost."),
    "cancel": ("cancel", "Take queued jobs off the list for good."),
    "pause": ("pause", "Let queued jobs wait."),
    "resume": ("resume", "Let paused jobs go again."),
    "suppress": ("suppress", "Never ask about a lead again."),
    "resolve": ("resolve", "Decide a doubt: resend, write off, or accept a job id."),
    "audit": ("audit", "Does everything add up? The books, the history, the provider's balance."),
    "export": ("export", "Results joined back to the rows of an import, as CSV."),
    "browse": ("browse", "The live ledger in your browser: overview, leads, runs, tables, SQL."),
    "snapshot": ("snapshot", "A clean copy to share: no secret in it, and with --mask nobody's name."),
    "balance": ("balance", "The provider's balance and how many jobs it carries."),
    "doctor": ("doctor", "This machine, this file, this key: what is right, what is not."),
    "sandbox": ("sandbox", "A local provider with faults on request."),
    "demo": ("demo", "The whole story in under a minute, without a key."),
}
"""Command -> (module in this package, one line of help: the list must not import every command)."""


class Commands(click.Group):
    """Looks commands up in `COMMANDS` and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of a night's work."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ledger.cli.{COMMANDS[cmd_name][0]}").command
        settings.bind(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called, with what the settings file says of it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and ctx.default_map:
            own = settings.defaults(ctx.default_map, self, name, COMMANDS, partial(self._known, ctx))
            ctx.default_map = {**ctx.default_map, name: own}
        return name, command, rest

    def _known(self, ctx: click.Context, name: str) -> click.Command:
        command = self.get_command(ctx, name)
        assert command is not None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 unexpected, or the disk; 2 usage, configuration, not allowed, refused; "
    "3 done, with failures or doubts; 4 budget or funds; 5 ledger in use; 75 unreachable, try later; "
    "130/143 interrupted, safe. Example: leadledger import leads.csv && leadledger run "
    "--route lead-session --budget 50",
)
@click.option(
    "--db",
    default="leads.db",
    show_default=True,
    help="The ledger file.",
    type=click.Path(path_type=Path),
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How progress lines are written to stderr.",
)
@click.version_option(__version__, prog_name="leadledger")
@click.pass_context
def cli(ctx: click.Context, db: Path, log_format: str) -> None:
    """A resumable ledger for paid, slow lead enrichment: nothing paid is lost, nothing is paid twice."""
    ctx.obj = settings.Globals(db=db, log_format=log_format)


settings.bind(cli)


def main() -> None:
    """Run a command and exit with its code; a user's mistake is a sentence, never a traceback."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    as_json = _wants_json(arguments, {})
    try:
        crashpoints.arm(os.environ.get(crashpoints.VARIABLE))
        table = settings.read(settings.FILE, cli)
        as_json = _wants_json(arguments, table)
        code: Any = cli.main(
            args=arguments,
            prog_name="leadledger",
            standalone_mode=False,
            default_map=table,
        )
    except LeadledgerError as error:
        output.error(error.what, error.money, error.next_step, as_json=as_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        output.error(error.format_message(), "Nothing was sent.", _hint(error), as_json=as_json)
        return 2
    except (click.Abort, KeyboardInterrupt):
        output.error("Stopped.", "Nothing further is sent.", "", as_json=as_json)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to tell it, and no traceback on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("LEADLEDGER_DEBUG"):
            raise
        what = f"Something unexpected happened: {type(error).__name__}: {error}"
        output.error(what, "What was sent is in the ledger.", _REPORT, as_json=as_json)
        return 1
    return code if isinstance(code, int) else 0


_REPORT: Final = "This is a bug. LEADLEDGER_DEBUG=1 shows where; the same command goes on safely."


def _wants_json(arguments: list[str], table: Mapping[str, Any]) -> bool:
    """Whether an error is told as JSON: found out before the options are read, as that may be the error."""
    own = table.get(next((word for word in arguments if word in COMMANDS), ""), {})
    in_file = {**table, **(own if isinstance(own, dict) else {})}.get("json") is True
    said = os.environ.get("LEADLEDGER_JSON")
    return "--json" in arguments or (click.BOOL.str_to_bool(said) is True if said else in_file)


def _hint(error: click.ClickException) -> str:
    """Where the value came from, where that was not the command line, and who explains."""
    context: click.Context | None = getattr(error, "ctx", None)
    if context is None:
        return ""
    origin = settings.source(context, getattr(error, "param", None))
    return f"{origin} `{context.command_path} --help` explains.".strip()
