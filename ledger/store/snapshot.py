"""A clean copy of a ledger to share: no bearer, on wish nobody's personal data, and no way to pay with it.

Taken beside a running writer in one read (`VACUUM INTO`). The copy carries another application id than a
ledger: what is queued in it is queued in the ledger too, and a run on both would pay twice.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from ledger.errors import Bug, DiskTrouble, UsageProblem
from ledger.store.connect import SNAPSHOT_ID, Connection, connect_readonly
from ledger.store.engine import sqlite3
from ledger.store.place import real_path

_LEDGERS_OWN: Final = ("", "-wal", "-shm", "-journal", ".lock", ".inbox", ".reserve", ".backup")
_TEMPORARY: Final = ".leadledger-snapshot-"
_SEARCHED_BYTES: Final = 4 * 10**9
"""How much is read in search of secrets, all of them together: a few seconds."""
_SEARCHED_MAX: Final = 1000
_SEARCHED_MIN: Final = 8
_BEARERS: Final = "SELECT bearer FROM poll_bearers ORDER BY attempt_id DESC LIMIT ?"
_PERSONAL: Final = (
    *(
        "SELECT DISTINCT " + column + " FROM leads WHERE LENGTH(" + column + ") >= 8 LIMIT ?"
        for column in ("email", "number1", "number2")
    ),
    # A single word may be one of ours ("websearch"), and so may be the name that stands for a masked one.
    *(
        "SELECT DISTINCT " + column + " FROM leads WHERE LENGTH(" + column + ") >= 8 "
        "AND " + column + " LIKE '%_ _%' AND " + column + " NOT LIKE 'lead %' LIMIT ?"
        for column in ("dm_name", "street", "company")
    ),
)
_TRIGGERS: Final = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"


def _code(column: str, otherwise: str = "'masked'") -> str:
    """What is written as a code stays (`read_timeout`, `resent: http_502`); a sentence may name somebody."""
    word = "REPLACE(" + column + ", 'resent: ', '')"
    short = f"LENGTH({column}) <= 64 AND {word} GLOB '[A-Za-z]*' AND {word} NOT GLOB '*[^A-Za-z0-9_.-]*'"
    return f"CASE WHEN {short} THEN {column} WHEN {column} IS NOT NULL THEN {otherwise} END"


_EVIDENCE: Final = _code(
    "evidence", "CASE WHEN evidence LIKE 'person:%' THEN 'person: masked' ELSE 'masked' END"
)
_MASK: Final[dict[str, dict[str, str]]] = {
    "leads": {
        "company": "'Lead ' || id",
        "state": "CASE WHEN state GLOB '[A-Za-z][A-Za-z]' THEN state END",
        **dict.fromkeys(("contact_id", "street", "city", "zip", "number1", "number2", "dm_name"), "NULL"),
        **dict.fromkeys(("email", "domain", "extra"), "NULL"),
        **dict.fromkeys(("contact_key", "email_key", "place_key", "phone_key"), "NULL"),
    },
    "source_rows": {"raw": "NULL", "problem": "CASE WHEN problem IS NOT NULL THEN 'masked' END"},
    "imports": {
        "file_name": "'import ' || id",
        # People name columns after people. The id keeps apart what was the same file read in two ways.
        "mapping": "json_set(CASE WHEN json_valid(mapping) THEN "
        "json_remove(mapping, '$.fields', '$.unmapped', '$.headers') ELSE '{}' END, '$.masked', id)",
    },
    "jobs": {"request": "NULL", "request_key": "'masked ' || id"},
    "results": {"body": "NULL"},
    "answers": {"body": "NULL"},
    "attempts": {"error": _code("error"), "evidence": _EVIDENCE},
    "costs": {"evidence": _EVIDENCE},
    "deliveries": {
        **dict.fromkeys(("body", "delivery_id", "correlation"), "NULL"),
        "event_type": _code("event_type"),
    },
    "runs": {"settings": "json_remove(settings, '$.leads', '$.where')", "host": "'masked'"},
    "intents": {"body": "'{}'"},
}
"""What may say who somebody is. The state of the address stays if it is one, and all that is money."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was written."""

    file: Path
    size_bytes: int
    bearers_dropped: int
    masked: bool
    searched: int
    """Secrets (and, masked, addresses and phones) looked for in the bytes of the file, and not found."""


def take(ledger: Path, file: Path, *, mask: bool) -> Snapshot:
    """Write a copy of `ledger` to `file`, replacing what is there; whole and checked, or not at all.

    Raises:
        LedgerFileProblem: `ledger` is none.
        UsageProblem: `file` cannot be where it shall be, or is the ledger itself.
        DiskTrouble: It could not be read or written; `file` is as it was.
    """
    ledger, file = real_path(ledger), real_path(file)
    if file in {ledger.with_name(ledger.name + suffix) for suffix in _LEDGERS_OWN}:
        raise UsageProblem(
            f"{file} belongs to the ledger itself.", next_step="Name another file for the snapshot."
        )
    with _temporary(file) as temporary:
        try:
            dropped, needles = _copy(ledger, temporary, mask=mask)
            _clean(temporary, mask=mask)
            _check(temporary)
        except sqlite3.Error as error:
            raise DiskTrouble(
                f"The snapshot could not be written: {error}.",
                money="The ledger is untouched.",
                next_step="Free space, or name a file on another disk.",
            ) from error
        searched = _search(temporary, needles)
        size = temporary.stat().st_size
        _sync(temporary)
        temporary.replace(file)
        _sync(file.parent)
    return Snapshot(file, size, dropped, mask, searched)


@contextmanager
def _temporary(file: Path) -> Iterator[Path]:
    """An empty file (mode 0600) beside `file`; gone afterwards unless it was renamed.

    It is locked, so that the next snapshot in this folder can tell what a kill has left: a copy with bearers.
    """
    try:
        _sweep(file.parent)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=_TEMPORARY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise UsageProblem(f"{file} cannot be written: {error.strerror}.") from error
    try:
        yield Path(name)
    finally:
        os.close(descriptor)
        for left in (name, name + "-journal"):
            with suppress(OSError):
                Path(left).unlink()


def _sweep(folder: Path) -> None:
    """Remove the unfinished copies that no process holds any more, with their journals."""
    for left in folder.glob(_TEMPORARY + "*"):
        if left.name.endswith("-journal"):
            continue
        with suppress(OSError), left.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.with_name(left.name + "-journal").unlink(missing_ok=True)
            left.unlink()


def _copy(ledger: Path, temporary: Path, *, mask: bool) -> tuple[int, list[bytes]]:
    """One read of the ledger; returns how many bearers it holds, and what must not be in the copy."""
    source = connect_readonly(ledger)
    try:
        dropped = int(source.execute("SELECT COUNT(*) FROM poll_bearers").fetchone()[0])
        queries = (_BEARERS, *_PERSONAL) if mask else (_BEARERS,)
        found = [source.execute(query, (_SEARCHED_MAX,)).fetchall() for query in queries]
        source.execute("PRAGMA query_only = OFF")  # it would refuse the copy as well
        source.execute("VACUUM INTO ?", (str(temporary),))
    finally:
        source.close()
    in_turn = (row for rows in zip_longest(*found) for row in rows if row is not None)
    return dropped, [str(text).encode() for (text,) in in_turn]


def _clean(temporary: Path, *, mask: bool) -> None:
    """Take out what is not to be shared, and write the file anew so that no byte of it is left."""
    copy = sqlite3.connect(temporary, isolation_level=None)
    try:
        copy.execute("PRAGMA secure_delete = ON")
        copy.execute("BEGIN IMMEDIATE")
        copy.execute("DELETE FROM poll_bearers")
        if mask:
            _mask(copy)
        copy.execute("PRAGMA application_id = " + str(SNAPSHOT_ID))
        copy.execute("COMMIT")
        copy.execute("VACUUM")
    finally:
        copy.close()


def _mask(copy: Connection) -> None:
    """Blank what is personal. The append-only guards are lifted for it and put back."""
    guards = copy.execute(_TRIGGERS).fetchall()
    for name, _ in guards:
        copy.execute('DROP TRIGGER "' + name + '"')
    for table, columns in _MASK.items():
        there = {row[1] for row in copy.execute("PRAGMA table_info(" + table + ")")}
        changes = ", ".join(f"{name} = {value}" for name, value in columns.items() if name in there)
        if changes:  # a ledger of an older schema has fewer
            copy.execute("UPDATE " + table + " SET " + changes)
    for _, sql in guards:
        copy.execute(sql)


def _check(temporary: Path) -> None:
    copy = sqlite3.connect(f"{temporary.as_uri()}?mode=ro", uri=True)
    try:
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        broken = copy.execute("PRAGMA foreign_key_check").fetchall()
        left = copy.execute("SELECT COUNT(*) FROM poll_bearers").fetchone()[0]
    finally:
        copy.close()
    if found != "ok" or broken or left:
        raise DiskTrouble(
            f"The copy does not pass its check: {found}; {len(broken)} rows point nowhere; {left} bearers.",
            money="The ledger is untouched.",
            next_step="`leadledger audit` looks at the ledger itself.",
        )


def _search(temporary: Path, needles: list[bytes]) -> int:
    """Look for secrets in the bytes of the file; returns for how many.

    Raises:
        Bug: One is there.
    """
    size = temporary.stat().st_size
    wanted = needles[: max(_SEARCHED_MIN, min(_SEARCHED_MAX, _SEARCHED_BYTES // size))]
    with temporary.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
        for needle in wanted:
            if bytes_.find(needle) >= 0:
                raise Bug("The copy still holds what was to be taken out; it was deleted again.")
    return len(wanted)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
