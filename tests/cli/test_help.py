"""The help is quick and says what scripts and people need."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from ledger.cli.main import COMMANDS, cli
from ledger.sentences import SENTENCES
from ledger.states import STEPS

HEAVY = ("httpx", "sqlite_utils", "sqlite3", "uvicorn", "datasette", "asyncio", "ledger.runner")


def test_help_imports_no_command_and_no_library_it_does_not_need() -> None:
    """The promise is 150 ms of CPU; what costs is imports, and those can be counted without a clock."""
    script = (
        "import sys; from ledger.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "print(sum(name.startswith('ledger.cli.') for name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    heavy, own = done.stderr.splitlines()
    assert heavy == "[]"
    assert int(own) <= 3, "main, output and settings"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_an_example_and_the_common_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.epilog is not None
    assert command.epilog.startswith(f"Example: leadledger {name}")
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--yes"} <= options


def test_every_reason_has_its_sentence() -> None:
    assert set(SENTENCES) == {step.reason.value for step in STEPS}
