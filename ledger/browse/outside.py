"""What the pages know beyond the rows of the ledger: who runs, the time, the secrets of the receiver.

`leadledger browse` hands an `Outside` in when it starts Datasette. A plain `datasette leads.db` with this
package installed gets the default one: the pages, the masking and the guard work, nothing is received, and
an intent waits in the inbox for the next command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledger.clock import Clock, SystemClock
from ledger.events import Secret

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

APPLICATION_ID: Final = 0x4C454447
"""What `PRAGMA application_id` says of a ledger (store/connect.py, migrations)."""
SNAPSHOT_ID: Final = 0x4C454453
"""The same of a snapshot: looked at like a ledger; a command refuses to carry out a wish there."""
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ATTRIBUTE: Final = "_leadledger"


@dataclass(frozen=True, slots=True)
class Outside:
    """Handed in by the command line, which wires parts together."""

    clock: Clock = field(default_factory=SystemClock)
    holder: Callable[[Path], str] | None = None
    """Who holds the ledger's lock, as a phrase; empty when nobody does. None: nobody can tell."""
    apply: Callable[[Path], None] | None = None
    """Takes the inbox in if the lock is free. None: it waits for the next command that writes."""
    webhook_secrets: tuple[Secret, ...] = ()
    """Signing secrets that are in force; several while one is being replaced."""
    host_names: frozenset[str] = LOOPBACK_NAMES
    """Names under which this server may be addressed (lower case, without a port)."""


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger among the databases that this Datasette serves."""

    name: str
    path: Path
    database: Database


def attach(datasette: Datasette, outside: Outside) -> None:
    """Let the pages of this Datasette know its surroundings."""
    setattr(datasette, _ATTRIBUTE, outside)


def of(datasette: Datasette) -> Outside:
    """The surroundings that were attached, or the default ones."""
    found = getattr(datasette, _ATTRIBUTE, None)
    return found if isinstance(found, Outside) else _NOTHING


async def find_book(datasette: Datasette) -> Book | None:
    """The first ledger that is served; None where there is none: then this plugin keeps out of the way."""
    for name, database in list(datasette.databases.items()):
        if not (database.is_memory or database.path is None) and await is_ledger(database):
            return Book(name, Path(database.path), database)
    return None


async def is_ledger(database: Database) -> bool:
    """True for a ledger; asked once for each database object and remembered on it."""
    known: bool | None = getattr(database, _ATTRIBUTE, None)
    if known is None:
        known = await database.execute_fn(has_ledger_id)
        setattr(database, _ATTRIBUTE, known)
    return known


def is_known_ledger(datasette: Datasette, name: str) -> bool:
    """True for a database that has been found to be a ledger (`startup` looks at each)."""
    return getattr(datasette.databases.get(name), _ATTRIBUTE, None) is True


def has_ledger_id(connection: Any) -> bool:
    """True when this connection's main file calls itself a ledger."""
    return connection.execute("PRAGMA application_id").fetchone()[0] in {APPLICATION_ID, SNAPSHOT_ID}


_NOTHING: Final = Outside()
