"""The real commands in processes that need not import anything: forked from a server that has it all.

A process of its own for every command, with its own memory and file descriptors, but without the third of a
second that starting Python takes. The server (multiprocessing's) holds no ledger, no socket and no thread.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

COMMAND: Final = "from ledger.cli.main import main\nmain()\n"
"""What `python -c` would be given to be `leadledger`."""
KILLED: Final = 137
HUNG: Final = 124
_PRELOADED: Final = (
    "__main__",
    *(f"ledger.cli.{name}" for name in ("main", "run", "import_", "progress", "wiring")),
    *("ledger.api.client", "ledger.api.profile", "ledger.runner", "ledger.intake.file"),
    *("ledger.migrations.migrations", "ledger.store.ledger", "ledger.store.read"),
)
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(_PRELOADED))


def run(
    source: str, arguments: Sequence[str], environment: Mapping[str, str], said: Path, timeout_s: float
) -> int:
    """Run `source` with `arguments` as its command line; what it says goes to the file `said`.

    Returns the exit code as a shell would show it: 137 when it was killed, 124 when it had to be.
    """
    child = _forks.Process(target=_be, args=(source, list(arguments), dict(environment), said))
    child.start()
    child.join(timeout_s)
    if child.is_alive():
        child.kill()
        child.join()
        return HUNG
    code = child.exitcode or 0
    return 128 - code if code < 0 else code


def _be(source: str, arguments: list[str], environment: dict[str, str], said: Path) -> None:
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["leadledger", *arguments]
    exec(compile(source, "<campaign>", "exec"), {"__name__": "__campaign__"})
