"""The generated blocks of the README and docs/: cog calls these, `make docs` checks that they are current."""

from __future__ import annotations

import ast
import json
import textwrap
from pathlib import Path

import click
from sqlite_utils import Database

from ledger.cli.main import COMMANDS, cli
from ledger.migrations.migrations import migrations
from ledger.states import FINAL, MEANS, NEW, STEPS, State, StopReason

WIDTH = 100
RESULTS = Path(__file__).parent.parent / "tests" / "campaigns" / "results.jsonl"
ABOUT_A_RESULT = ("campaign", "commit", "dirty", "date", "seconds", "seed", "bad")


def states() -> str:
    """Every state with its paragraph."""
    rows = [f"| `{state.value}` | {MEANS[state]} |" for state in State]
    return "\n".join(["| State | Means |", "|---|---|", *rows])


def diagram() -> str:
    """The state machine as a Mermaid diagram: one arrow a pair of states, its reasons beside it."""
    reasons: dict[tuple[str, State], list[str]] = {}
    for step in STEPS:
        reasons.setdefault((step.from_state, step.to_state), []).append(step.reason.value)
    lines = ["```mermaid", "stateDiagram-v2"]
    for (before, after), why in reasons.items():
        start = "[*]" if before == NEW else before
        lines.append(f"    {start} --> {after.value}: {', '.join(why)}")
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    return "\n".join([*lines, "```"])


def steps() -> str:
    """Every allowed step, one row a pair of states."""
    reasons: dict[tuple[str, State], list[str]] = {}
    for step in STEPS:
        reasons.setdefault((step.from_state, step.to_state), []).append(f"`{step.reason.value}`")
    rows = [f"| `{before}` | `{after.value}` | {' '.join(why)} |" for (before, after), why in reasons.items()]
    return "\n".join(["| From | To | Reasons |", "|---|---|---|", *rows])


def stop_reasons() -> str:
    """Why a run can end."""
    return ", ".join(f"`{reason.value}`" for reason in StopReason)


def commands() -> str:
    """The one-line list of commands."""
    rows = [f"| `{name}` | {text} |" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["| Command | Does |", "|---|---|", *rows])


def helps() -> str:
    """`--help` of the group and of every command."""
    root = click.Context(cli, info_name="leadledger", max_content_width=WIDTH, terminal_width=WIDTH)
    blocks = [_help("leadledger", cli, root)]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(
            command, info_name=name, parent=root, max_content_width=WIDTH, terminal_width=WIDTH
        )
        blocks.append(_help(f"leadledger {name}", command, context))
    return "\n\n".join(blocks)


def _help(title: str, command: click.Command, context: click.Context) -> str:
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    return f"## {title}\n\n```text\n{text}\n```"


def schema() -> str:
    """Every table and view with its columns, from a ledger made now."""
    database = Database(memory=True)
    migrations.apply(database)
    parts = []
    for kind, names in (("Tables", database.table_names()), ("Views", database.view_names())):
        rows = [f"## {kind}", ""]
        for name in names:
            if not name.startswith(("_sqlite", "sqlite_")):
                columns = [row[1] for row in database.execute(f"PRAGMA table_info([{name}])").fetchall()]
                rows += textwrap.wrap(f"**{name}**: " + ", ".join(f"`{column}`" for column in columns), 110)
                rows.append("")
        parts.append("\n".join(rows).rstrip())
    return "\n\n".join(parts)


def campaigns() -> str:
    """What every campaign counted when it was last recorded."""
    lines = [
        "| Campaign | What it does | Counted | Bad | Control | Took | Seed, commit, date |",
        "|---|---|---|---:|---|---:|---|",
    ]
    for text in RESULTS.read_text(encoding="utf-8").splitlines():
        told = json.loads(text)
        controls = {name: told[name] for name in told if name.startswith("control_")}
        counts = {name: told[name] for name in told if name not in controls and name not in ABOUT_A_RESULT}
        commit = told["commit"][:7] + (" and changes" if told["dirty"] else "")
        lines.append(
            f"| {told['campaign']} | {_about(told['campaign'])} | {_counts(counts)} | {told['bad']} "
            f"| {_counts(controls) or 'none'} "
            f"| {_minutes(told['seconds'])} | {told.get('seed') or 'none'}, {commit}, {told['date'][:10]} |"
        )
    return "\n".join(lines)


def _about(campaign: str) -> str:
    """The first sentence of the campaign's own file."""
    source = (RESULTS.parent / f"{campaign}.py").read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())


def _counts(found: dict[str, object]) -> str:
    """Names and numbers; tables within a result (by call, by exit code) stay in the file."""
    return ", ".join(
        f"{name.removeprefix('control_').replace('_', ' ')} {value:,}"
        for name, value in found.items()
        if isinstance(value, int | float)
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
