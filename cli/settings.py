"""Where values come from, in growing strength: `leadledger.toml`, the environment, a flag.

Every option of every command has a name in both, made from its long flag: `--budget-day` is `budget_day` in
the file and `LEADLEDGER_BUDGET_DAY` in the environment. The names are read off the commands; no list of them
is kept. The API key is the value of no option, so it has none.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from ledger.errors import UsageProblem

FILE: Final = Path("leadledger.toml")
"""Looked for in the working folder."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The options before the command."""

    db: Path
    log_format: str


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Setting -> option, for every option that has a value (`--help` and `--version` have none)."""
    return {
        _key(option): option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
    }


def _key(option: click.Option) -> str:
    long = next(flag for flag in option.opts if flag.startswith("--"))
    return long.removeprefix("--").replace("-", "_")


def bind(command: click.Command) -> None:
    """Let every option of a command be read from its `LEADLEDGER_…` variable, and refuse an empty one."""
    for key, option in options_of(command).items():
        option.envvar = "LEADLEDGER_" + key.upper()
        option.callback = _not_empty


def _not_empty(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Click takes an empty variable for none, and then a cap that was meant would be no cap at all."""
    name = str(option.envvar)
    told = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if not told and os.environ.get(name) == "":
        raise UsageProblem(f"{name} is set, and empty.", next_step="Give it a value, or unset it.")
    return value


def read(file: Path, group: click.Command) -> dict[str, Any]:
    """The settings file as it is, with the options before the command checked; empty when there is none.

    Raises:
        UsageProblem: It cannot be read or is not TOML, or says something of `group` that cannot be.
    """
    try:
        # A number stays the text that it is: money goes through no float.
        table = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=str)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"{file} cannot be read: {error}.") from error
    known = options_of(group)
    return {**table, **{key: _value(known[key], key, table[key]) for key in table.keys() & known}}


def defaults(
    table: Mapping[str, Any],
    group: click.Command,
    name: str,
    names: Iterable[str],
    load: Callable[[str], click.Command],
) -> dict[str, Any]:
    """What the settings file says of the command `name`, by click's own names for its parameters.

    What stands above the tables is for every command that has such an option; `[name]` is for this one and
    goes before it.

    Args:
        table: The file, as `read` gives it.
        group: Whose options stand before the command.
        name: The command.
        names: Every command.
        load: Imports a command; called for others only to tell another's setting from a misspelt one.

    Raises:
        UsageProblem: A setting or a table that is not known, or a value that cannot be one.
    """
    known = options_of(load(name))
    # `import` is a command and an option: a table is for the one, a value is that of the other.
    own = table[name] if isinstance(table.get(name), dict) else {}
    for key, value in table.items():
        if isinstance(value, dict):
            if key not in names:
                raise _unknown(f"there is no command {key!r}", "Tables", names)
        elif key not in options_of(group) and key not in known:
            everywhere = {key for other in names for key in options_of(load(other))}
            if key not in everywhere:
                raise _unknown(f"unknown setting {key!r}", "Settings", everywhere | options_of(group).keys())
    for key in own:
        if key not in known:
            raise _unknown(f"{name} has no setting {key!r}", f"Settings of [{name}]", known)
    shared = {key: value for key, value in table.items() if key in known and not isinstance(value, dict)}
    return {
        known[key].name or key: _value(known[key], key, value) for key, value in {**shared, **own}.items()
    }


def _unknown(what: str, kind: str, known: Iterable[str]) -> UsageProblem:
    return UsageProblem(f"{FILE}: {what}.", next_step=f"{kind}: {', '.join(sorted(known))}.")


def _value(option: click.Option, key: str, value: Any) -> Any:
    """A value as click wants it: the words of a flag's value, so that its own check says what is wrong."""
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise UsageProblem(f"{FILE}: {key} must be true or false.")
    if option.multiple:
        return [_word(key, item) for item in (value if isinstance(value, list) else [value])]
    return _word(key, value)


def _word(key: str, value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise UsageProblem(f"{FILE}: {key} must be a text or a number.")


def source(context: click.Context | None, parameter: click.Parameter | None) -> str:
    """Where a value that will not do came from, as a sentence; empty for the command line."""
    if context is None or parameter is None:
        return ""
    found = context.get_parameter_source(parameter.name or "")
    if found is ParameterSource.ENVIRONMENT:
        return f"It comes from {parameter.envvar}."
    return f"It comes from {FILE}." if found is ParameterSource.DEFAULT_MAP else ""
