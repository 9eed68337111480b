"""What no query may see or do, whoever wrote it: held by SQLite's authorizer, below every page and format.

Hiding a table in the configuration is cosmetic, and refusing its page leaves `?sql=` open. The authorizer is
asked while a statement is compiled, so it holds for tables, rows, facets, CSV, JSON and custom SQL alike.

It is not asked for a column that `USING` or `NATURAL` merges with another: those are refused by their text
(`Guarded`), before they are compiled.
"""

from __future__ import annotations

from typing import Any, Final

from datasette import database
from datasette.utils.sqlite import sqlite3

from ledger.browse.outside import has_ledger_id

_OK: Final[int] = sqlite3.SQLITE_OK
_DENY: Final[int] = sqlite3.SQLITE_DENY
_AS_NULL: Final[int] = sqlite3.SQLITE_IGNORE
_SECRET: Final = ("poll_bearers", "bearer")
_MERGES: Final = ("natural", "using")
"""The words that merge columns."""
_LENGTH_MAX: Final = 16 * 2**20
"""Bytes of one value or row, far above any answer that is kept: `zeroblob(2000000000)` takes no memory."""
_BAD_FUNCTIONS: Final = frozenset({"fts3_tokenizer"})
"""Takes and gives addresses of this process' memory."""
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


def refuse_merged(sql: str) -> None:
    """Refuse a statement that may read a bearer past the authorizer.

    Plain looking for letters is enough: SQL has no way to write an identifier or a keyword without them,
    and no view of ours reads the table. Of the words, more are refused than merge anything.

    Raises:
        OperationalError: It names the bearers' table beside a word that merges columns.
    """
    text = sql.lower()
    if _SECRET[0] in text and any(word in text for word in _MERGES):
        raise sqlite3.OperationalError(
            "poll_bearers cannot be read together with the word USING or NATURAL: write the join with ON. "
            "Nothing was read."
        )


def _looked_at(name: str) -> Any:
    method = getattr(sqlite3.Cursor, name)

    def call(self: Any, sql: str, *parameters: Any) -> Any:
        refuse_merged(sql)
        return method(self, sql, *parameters)

    return call


def _by_cursor(name: str) -> Any:
    def call(self: Any, sql: str, *parameters: Any) -> Any:
        return getattr(self.cursor(), name)(sql, *parameters)

    return call


class _Cursor(sqlite3.Cursor):  # type: ignore[misc]  # Datasette is not typed
    """Looks at the text of every statement first."""

    execute: Any = _looked_at("execute")
    executemany: Any = _looked_at("executemany")
    executescript: Any = _looked_at("executescript")


class Guarded(sqlite3.Connection):  # type: ignore[misc]  # the same
    """A connection on which no statement may merge the bearers' column with another.

    Its shortcuts would make cursors of SQLite's own kind, so they are what they stand for.
    """

    execute: Any = _by_cursor("execute")
    executemany: Any = _by_cursor("executemany")
    executescript: Any = _by_cursor("executescript")

    def cursor(self, factory: Any = _Cursor) -> Any:  # noqa: D102 - sqlite3's own
        return super().cursor(factory)


class _Engine:
    """`sqlite3` as Datasette's own module of databases sees it: whatever it opens is `Guarded`.

    Datasette lets no plugin say how to open a file, and its first connections are older than any hook.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    @staticmethod
    def connect(*args: Any, **rest: Any) -> Any:
        """A `Guarded` connection."""
        return sqlite3.connect(*args, **{"factory": Guarded, **rest})


def guard_connections() -> None:
    """Have Datasette open `Guarded` connections only. `mask` shows nothing of a ledger on any other."""
    database.sqlite3 = _Engine()


def mask(connection: Any) -> None:
    """Set the authorizer of one connection of Datasette's.

    The bearer column reads as NULL everywhere, also in a file attached later; raw pages are refused. On a
    ledger nothing but reading is allowed, whatever the connection was opened for, and on a connection that is
    not `Guarded` not even that.
    """
    reads_only = has_ledger_id(connection)
    unguarded = reads_only and not isinstance(connection, Guarded)
    if reads_only:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_MAX)

    def decide(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            name = (first or "").lower()
            if name in _RAW_PAGES:
                return _DENY
            return _AS_NULL if (name, (second or "").lower()) == _SECRET else _OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _BAD_FUNCTIONS:
            return _DENY
        if not reads_only or (action in _READING and not unguarded):
            return _OK
        if action == sqlite3.SQLITE_PRAGMA and first is not None and first.lower() in _ASKING_PRAGMAS:
            asks = second is None or first.lower() in _TAKES_A_NAME
            return _OK if asks else _DENY
        stricter = action == sqlite3.SQLITE_PRAGMA and (first, second) in _STRICTER
        return _OK if stricter else _DENY

    connection.set_authorizer(decide)


def never_write(served: Any) -> None:
    """Let Datasette open this database `mode=ro` only, also where it would open it to write.

    1.0 opens a file for writing only to look at a statement; closed last, such a connection would move the
    log into the ledger, which is the runner's business alone.
    """
    connect = served.connect

    def reading(*, write: bool = False) -> Any:
        del write
        return connect()

    served.connect = reading


def log_no_queries(served: Any) -> None:
    """Datasette prints a query that fails, with its values, to stderr: people's names among them."""
    execute = served.execute

    def quietly(*args: Any, **rest: Any) -> Any:
        return execute(*args, **{**rest, "log_sql_errors": False})

    served.execute = quietly
