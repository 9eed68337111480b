"""What no query may see or do, whoever wrote it: held by SQLite's authorizer, below every page and format.

Hiding a table in the configuration is cosmetic, and refusing its page leaves `?sql=` open. The authorizer is
asked while a statement is compiled, so it holds for tables, rows, facets, CSV, JSON and custom SQL alike.
"""

from __future__ import annotations

from typing import Any, Final

from datasette.utils.sqlite import sqlite3

from ledger.browse.outside import has_ledger_id

_OK: Final[int] = sqlite3.SQLITE_OK
_DENY: Final[int] = sqlite3.SQLITE_DENY
_AS_NULL: Final[int] = sqlite3.SQLITE_IGNORE
_SECRET: Final = ("poll_bearers", "bearer")
_RAW_PAGES: Final = frozenset({"sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr"})
"""Virtual tables of some builds that show the file's bytes, and with them the bearers'."""
_READING: Final = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_TRANSACTION,
    }
)
_ASKING_PRAGMAS: Final = frozenset(
    {
        "application_id",
        "compile_options",
        "data_version",
        "database_list",
        "encoding",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "page_count",
        "page_size",
        "schema_version",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    }
)
_TAKES_A_NAME: Final = frozenset(
    {"foreign_key_list", "index_info", "index_list", "index_xinfo", "table_info", "table_list", "table_xinfo"}
)
"""Pragmas whose argument is a name; any other pragma's argument would be a new value."""
_STRICTER: Final = frozenset({("recursive_triggers", "on")})
"""New values that guard more, and change no file: Datasette 1.0 sets this one."""


def mask(connection: Any) -> None:
    """Set the authorizer of one connection of Datasette's.

    The bearer column reads as NULL everywhere, also in a file attached later; raw pages are refused. On a
    ledger nothing but reading is allowed, whatever the connection was opened for.
    """
    reads_only = has_ledger_id(connection)

    def decide(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            name = (first or "").lower()
            if name in _RAW_PAGES:
                return _DENY
            return _AS_NULL if (name, (second or "").lower()) == _SECRET else _OK
        if not reads_only or action in _READING:
            return _OK
        if action == sqlite3.SQLITE_PRAGMA and first is not None and first.lower() in _ASKING_PRAGMAS:
            asks = second is None or first.lower() in _TAKES_A_NAME
            return _OK if asks else _DENY
        stricter = action == sqlite3.SQLITE_PRAGMA and (first, second) in _STRICTER
        return _OK if stricter else _DENY

    connection.set_authorizer(decide)


def never_write(database: Any) -> None:
    """Let Datasette open this database `mode=ro` only, also where it would open it to write.

    1.0 opens a file for writing only to look at a statement; closed last, such a connection would move the
    log into the ledger, which is the runner's business alone.
    """
    connect = database.connect

    def reading(*, write: bool = False) -> Any:
        del write
        return connect()

    database.connect = reading
