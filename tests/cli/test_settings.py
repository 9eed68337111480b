"""Every option of every command is a flag, a variable or a line of `leadledger.toml`, and means the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ledger.cli import main, options, settings

NAMES = ["", *main.COMMANDS]
RESERVED = {"LEADLEDGER_API_KEY", "LEADLEDGER_DEBUG", "LEADLEDGER_CRASH_AT"}
ROOT = click.Context(main.cli)

Run = Callable[..., int]


def command(name: str) -> click.Command:
    found = main.cli.get_command(ROOT, name) if name else main.cli
    assert found is not None
    return found


def word(option: click.Option) -> str:
    """A value that no default has, as a person would type it."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return str(kind.choices[-1])
    if isinstance(kind, options.Usd):
        return "7.25"
    if isinstance(kind, options.Route):
        return "phone"
    if isinstance(kind, click.types.IntRange | click.types.FloatRange) or kind is click.INT:
        return "7"
    return "http://127.0.0.1:1" if isinstance(kind, options.Address) else "a-word"


EVERY = [
    pytest.param(name, key, id=f"{name or 'leadledger'} --{key}")
    for name in NAMES
    for key in settings.options_of(command(name))
]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the program with flags, a file and variables; gives what the command was called with."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        for key in settings.options_of(command(name)):
            monkeypatch.delenv(f"LEADLEDGER_{key.upper()}", raising=False)

    def call(name: str, *flags: str, toml: str = "", **variables: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        (tmp_path / "leadledger.toml").write_text(toml, encoding="utf-8")
        target = command(name or "status")
        needed = [
            part
            for one in target.params
            if one.required and isinstance(one, click.Option) and not _said(one, flags, toml, variables)
            for part in (one.opts[0], word(one))
        ]
        words = ["1" for one in target.params if one.required and isinstance(one, click.Argument)]

        def callback(**values: Any) -> None:
            context = click.get_current_context()
            seen.update(values, globals=context.obj)

        with monkeypatch.context() as patch:
            patch.setattr(target, "callback", callback)
            for variable, value in variables.items():
                patch.setenv(variable, value)
            before = flags if not name else ()
            after = flags if name else ()
            arguments = [*before, name or "status", *needed, *after, *words]
            seen["exit"] = main._run(arguments)
        return seen

    return call


def _said(option: click.Option, flags: tuple[str, ...], toml: str, variables: dict[str, str]) -> bool:
    key = option.opts[0].removeprefix("--").replace("-", "_")
    return option.opts[0] in flags or f"\n{key} =" in toml or f"LEADLEDGER_{key.upper()}" in variables


@pytest.mark.parametrize(("name", "key"), EVERY)
def test_every_option_comes_from_a_flag_a_variable_and_the_file(
    called: Callable[..., dict[str, Any]], name: str, key: str
) -> None:
    option = settings.options_of(command(name))[key]
    value = word(option)
    flag, variable = option.opts[0], f"LEADLEDGER_{key.upper()}"
    by_default = called(name) if not option.required else None
    by_flag = called(name, *((flag,) if option.is_flag else (flag, value)))
    assert by_flag["exit"] == 0
    assert by_flag != by_default, "the sample is no default"
    assert called(name, **{variable: "1" if option.is_flag else value}) == by_flag
    line = f"\n{key} = {'true' if option.is_flag else json.dumps(value)}\n"
    assert called(name, toml=line) == by_flag
    if name:
        assert called(name, toml=f"[{name}]{line}") == by_flag
    with_empty = called(name, **{variable: ""})
    assert (with_empty["exit"], "globals" in with_empty) == (2, False)


def test_no_option_takes_the_key_or_a_word_that_means_something_else() -> None:
    taken = {option.envvar for name in NAMES for option in settings.options_of(command(name)).values()}
    assert len(taken) > 40
    assert not taken & RESERVED
    assert "LEADLEDGER_HELP" not in taken


def test_a_flag_goes_before_a_variable_and_that_before_the_file(
    called: Callable[..., dict[str, Any]],
) -> None:
    toml = '\nlimit = 1\n[run]\nlimit = 2\nbudget = 12.50\nlead = [3, "jane@example.com"]\n'
    assert called("run", toml=toml)["limit"] == 2
    assert called("plan", toml=toml)["limit"] == 1
    assert called("run", toml=toml)["budget"] == 12_500_000
    assert called("run", toml=toml)["leads"] == ("3", "jane@example.com")
    assert called("run", toml=toml, LEADLEDGER_LIMIT="3")["limit"] == 3
    assert called("run", "--limit", "4", toml=toml, LEADLEDGER_LIMIT="3")["limit"] == 4
    assert called("run", "--limit", "4", LEADLEDGER_LIMIT="")["limit"] == 4


def test_several_leads_in_a_variable_are_parted_by_blanks(called: Callable[..., dict[str, Any]]) -> None:
    assert called("run", LEADLEDGER_LEAD="3\n42  jane@example.com")["leads"] == (
        "3",
        "42",
        "jane@example.com",
    )
    assert called("run", LEADLEDGER_WHERE="state=AZ city=Tucson")["where"] == ("state=AZ", "city=Tucson")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("rout = 1", "unknown setting 'rout'"),
        ("[rum]\nbudget = 1", "no command 'rum'"),
        ("[run]\ndelimiter = 'tab'", "run has no setting 'delimiter'"),
        ("[run]\ndb = 'x'", "run has no setting 'db'"),
        ("run = 3", "unknown setting 'run'"),
        ("= 3", "cannot be read"),
        ("limit = [1]", "limit must be a text or a number"),
        ("limit = true", "limit must be a text or a number"),
        ("limit = 1.5", "It comes from leadledger.toml."),
        ("dry_run = 'yes'", "dry_run must be true or false"),
        ("db = 1979-05-27", "db must be a text or a number"),
        ("where = [{a = 1}]", "where must be a text or a number"),
        ("\nbudget = 'lots'", "It comes from leadledger.toml."),
        ("api_key = '411k_x'", "unknown setting 'api_key'"),
    ],
)
def test_a_wrong_setting_is_a_sentence_and_nothing_runs(
    called: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], toml: str, says: str
) -> None:
    assert called("run", toml=toml) == {"exit": 2}
    assert says in capsys.readouterr().err


def test_a_wrong_variable_is_named(
    called: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("run", LEADLEDGER_LIMIT="lots") == {"exit": 2}
    assert "It comes from LEADLEDGER_LIMIT." in capsys.readouterr().err
    assert called("run", "--limit", "lots") == {"exit": 2}
    assert "comes from" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "how",
    [{"toml": "json = true"}, {"toml": "[show]\njson = true"}, {"LEADLEDGER_JSON": "1"}],
    ids=["file", "table", "variable"],
)
def test_an_error_is_json_where_json_was_configured(
    called: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], how: dict[str, str]
) -> None:
    assert called("show", "--no-such", **how) == {"exit": 2}
    assert "No such option" in json.loads(capsys.readouterr().out)["error"]["what"]


@pytest.mark.parametrize("name", ["plan", "run", "audit", "balance", "doctor"])
def test_an_empty_address_is_not_the_real_provider(
    called: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for how in ({"flags": ("--base-url", "")}, {"LEADLEDGER_BASE_URL": ""}, {"toml": "base_url = ' '"}):
        flags = how.pop("flags", ())
        assert called(name, *flags, **how) == {"exit": 2}
        assert "empty" in capsys.readouterr().err
