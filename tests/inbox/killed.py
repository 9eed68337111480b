"""Kill a sender, and whoever carries its wish out, before each of its steps in turn; then start again.

    python killed.py FOLDER [--forget]

A step is a call that touches the inbox (open, fsync, rename, unlink) or a statement of SQLite's. Every life
is a fork that dies of SIGKILL. `--forget` is the control: wishes are carried out without noting their id.
Prints one JSON object a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledger.clock import SystemClock, to_text
from ledger.migrations.migrations import migrations
from ledger.store import books, connect, control, inbox, intents, ledger
from ledger.store.control import Chosen
from ledger.store.ledger import Ledger

STEPS_MAX = 400
WISH = "the-one-wish"
left = [-1]
"""Steps until the end; below zero nobody is killed."""


def step() -> None:
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    real = getattr(owner, name)

    def stepping(*arguments: Any, **rest: Any) -> Any:
        step()
        return real(*arguments, **rest)

    setattr(owner, name, stepping)


def arm(forget: bool) -> None:
    """Make every step deadly, count what is carried out, and, for the control, forget what was."""
    for owner, name in ((os, "open"), (os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir")):
        before(owner, name)
    opened = connect.connect

    def traced(path: Path) -> Any:
        connection = opened(path)
        connection.set_trace_callback(lambda _: step())
        return connection

    ledger.connect = traced  # type: ignore[attr-defined]
    act = control.act

    def counted(own: books.Books, verb: str, chosen: Chosen) -> int:
        own.connection.execute("INSERT INTO applications DEFAULT VALUES")
        return act(own, verb, chosen)

    control.act = counted  # type: ignore[assignment]
    if forget:
        intents._note = lambda *_, **__: None  # type: ignore[assignment]


def life(work: Callable[[], None]) -> int:
    """Run `work` in a fork; returns how it ended, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a fork must not fall back into the parent's loop
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def opened(path: Path) -> Ledger:
    return Ledger(path, "test", clock=SystemClock(), migrations=migrations)


def prepared(path: Path) -> None:
    with opened(path) as new:
        connection = new.books.connection
        connection.execute("CREATE TABLE applications (id INTEGER PRIMARY KEY) STRICT")
        connection.execute("INSERT INTO leads (source, company, created_at) VALUES ('file', 'Acme', '')")
        connection.execute(
            "INSERT INTO jobs (lead_id, route, mode, request, request_key, created_at, updated_at) "
            "VALUES (1, 'enrich/websearch', 'async', '{}', 'k', '', '')"
        )


def send(path: Path) -> None:
    """What `leadledger pause` does when nobody holds the ledger."""
    now = SystemClock().now()
    inbox.drop(path, "pause", Chosen(as_of=to_text(now)).to_json(), item_id=WISH, now=now)
    carry_out(path)


def carry_out(path: Path) -> None:
    """What the next start does."""
    with opened(path) as held:
        held.recover()
        held.take_inbox()


def count(path: Path) -> int:
    with opened(path) as held:
        return int(held.books.connection.execute("SELECT COUNT(*) FROM applications").fetchone()[0])


def main() -> None:
    folder, forget = Path(sys.argv[1]), "--forget" in sys.argv
    template = folder / "template.db"
    prepared(template)

    def armed(path: Path, number: int, work: Callable[[Path], None]) -> None:
        arm(forget)
        left[0] = number
        work(path)

    for number in range(1, STEPS_MAX):
        path = folder / f"step-{number}.db"
        path.write_bytes(template.read_bytes())
        ended = life(lambda path=path, number=number: armed(path, number, send))  # type: ignore[misc]
        dropped = bool(inbox.waiting(path))
        at_death = count(path)
        # The next start is killed as well, a few steps further on each time, and the one after that is not.
        again = life(lambda path=path, number=number: armed(path, 1 + number % 37, carry_out))  # type: ignore[misc]
        last = life(lambda path=path: armed(path, -1, carry_out))  # type: ignore[misc]
        row = {
            "step": number,
            "ended": ended,
            "again": again,
            "last": last,
            "given": dropped or at_death > 0,
            "applications": count(path),
            "left": len(inbox.waiting(path)),
        }
        sys.stdout.write(json.dumps(row) + "\n")
        if ended == 0:
            return
    raise SystemExit("it never came to an end")


main()
