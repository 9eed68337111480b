"""Every check of a ledger in one snapshot: its invariants, its guards, and the file itself.

Nothing is written, and a writer beside it goes on. The guards are compared with those of a new ledger made by
the same migrations, so that no list of them has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from sqlite_utils import Database

from ledger.store.connect import Connection, Migrations, rows
from ledger.store.engine import sqlite3
from ledger.store.invariants import ANSWERS, ATTEMPTS, HISTORY, ROWS, Invariant
from ledger.store.invariants_inbox import INBOX
from ledger.store.invariants_money import BOOKS, CAPS, RUNS

INVARIANTS: Final = (*HISTORY, *ATTEMPTS, *BOOKS, *CAPS, *ANSWERS, *INBOX, *ROWS, *RUNS)
"""All of them, in the order in which a reader of the report wants to meet them."""

FILE_CHECKS: Final[dict[str, str]] = {
    "schema_is_current": "The ledger has the schema that this program knows.",
    "guards_in_place": "Every table, index, trigger and allowed step is the one that the migrations make.",
    "tables_are_strict": "Every table refuses values of another type (STRICT).",
    "integrity_check": "SQLite finds the file intact (PRAGMA integrity_check).",
    "foreign_key_check": "Every reference points at a row (PRAGMA foreign_key_check).",
}
"""What is checked besides the invariants, each with its sentence."""

ROWS_MAX: Final = 100
"""Rows of one broken check that are kept; all are counted."""
_CACHE_KIB: Final = 65_536
"""Page cache of an audit: it walks the same tables many times over."""

_OBJECTS: Final = """
    SELECT type, name, sql FROM sqlite_master
    WHERE sql IS NOT NULL AND type IN ('table', 'index', 'trigger') AND tbl_name <> '_sqlite_migrations'
"""
_STEPS: Final = "SELECT from_state, to_state, reason FROM allowed_transitions"
_LOOSE: Final = """
    SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0
        AND name NOT GLOB '*sqlite_*'
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """One check that does not hold, with the rows that show it (at most `ROWS_MAX` of `count`)."""

    name: str
    sentence: str
    rows: tuple[dict[str, Any], ...]
    count: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found: `failed` is empty for a ledger that is as it should be."""

    checked: int
    failed: tuple[Failure, ...]
    jobs: int
    transitions: int
    current: bool
    """False for a ledger of another schema version: its invariants could not be asked."""


def audit(connection: Connection, migrations: Migrations) -> Audit:
    """Check everything, in one read transaction; an error of SQLite counts as a failed check.

    Args:
        connection: The ledger; a read-only connection will do.
        migrations: The schema's history, from which the guards that should be there are made.
    """
    connection.execute("PRAGMA cache_size = -" + str(_CACHE_KIB))
    connection.execute("BEGIN")
    try:
        with closing(_new_ledger(migrations)) as fresh:
            current = _version(connection) == _version(fresh)
            checks = [_tried(name, connection, fresh) for name in FILE_CHECKS]
        checks += [_checked(connection, invariant) for invariant in INVARIANTS] if current else []
        jobs, transitions = (_count(connection, table) for table in ("jobs", "transitions"))
    finally:
        connection.execute("ROLLBACK")
    failed = tuple(failure for failure in checks if failure is not None)
    return Audit(len(checks), failed, jobs, transitions, current)


def _new_ledger(migrations: Migrations) -> Connection:
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    migrations.apply(Database(fresh))
    return fresh


def _version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _count(connection: Connection, table: str) -> int:
    try:
        return int(connection.execute("SELECT COUNT(*) FROM " + table).fetchone()[0])
    except sqlite3.Error:
        return 0


def _checked(connection: Connection, invariant: Invariant) -> Failure | None:
    try:
        return _failure(invariant.name, invariant.sentence, rows(connection, invariant.sql))
    except sqlite3.Error as error:
        return Failure(invariant.name, invariant.sentence, ({"error": str(error)},), 1)


def _tried(name: str, connection: Connection, fresh: Connection) -> Failure | None:
    try:
        return _failure(name, FILE_CHECKS[name], _of_the_file(name, connection, fresh))
    except sqlite3.Error as error:
        return Failure(name, FILE_CHECKS[name], ({"error": str(error)},), 1)


def _failure(name: str, sentence: str, found: Iterator[dict[str, Any]]) -> Failure | None:
    kept: list[dict[str, Any]] = []
    count = 0
    for row in found:
        count += 1
        if count <= ROWS_MAX:
            kept.append(row)
    return Failure(name, sentence, tuple(kept), count) if count else None


def _of_the_file(name: str, connection: Connection, fresh: Connection) -> Iterator[dict[str, Any]]:
    match name:
        case "schema_is_current":
            has, knows = _version(connection), _version(fresh)
            if has != knows:
                yield {"schema": has, "known": knows, "next_step": "any command that writes migrates it"}
        case "guards_in_place":
            if _version(connection) == _version(fresh):
                yield from _guards(connection, fresh)
        case "tables_are_strict":
            yield from rows(connection, _LOOSE)
        case "integrity_check":
            for row in rows(connection, "PRAGMA integrity_check"):
                if row["integrity_check"] != "ok":
                    yield row
        case "foreign_key_check":
            yield from rows(connection, "PRAGMA foreign_key_check")


def _guards(connection: Connection, fresh: Connection) -> Iterator[dict[str, Any]]:
    """What is missing or altered; a trigger or an allowed step too many is as bad as one too few.

    Tables and indexes that somebody added beside ours are their own business.
    """
    has, wanted = _objects(connection), _objects(fresh)
    for key, sql in sorted(wanted.items()):
        if has.get(key) != sql:
            yield {"type": key[0], "name": key[1], "is": "altered" if key in has else "missing"}
    for kind, name in sorted(has.keys() - wanted.keys()):
        if kind == "trigger":
            yield {"type": kind, "name": name, "is": "not ours"}
    allowed, meant = (set(one.execute(_STEPS).fetchall()) for one in (connection, fresh))
    for step in sorted(allowed ^ meant):
        said = "missing" if step in meant else "not ours"
        yield {"type": "allowed step", "name": " ".join(step), "is": said}


def _objects(connection: Connection) -> dict[tuple[str, str], str]:
    return {(kind, name): sql for kind, name, sql in connection.execute(_OBJECTS)}
