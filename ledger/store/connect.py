"""Opening a ledger file: checks before anything is written, pragmas, and the one way to a transaction."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from sqlite_utils import Database

from ledger.errors import DiskTrouble, LedgerFileProblem
from ledger.store.engine import sqlite3

SCHEMA_VERSION: Final = 5
"""What `PRAGMA user_version` says of a ledger this program fully understands."""
APPLICATION_ID: Final = 0x4C454447
SNAPSHOT_ID: Final = 0x4C454453
"""`LEDS`: a copy to look at. Nothing is ever sent from one, else its queue would be paid for twice."""
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "davfs"),
        *("ceph", "lustre", "glusterfs", "fuse.glusterfs", "beegfs", "gpfs"),  # clusters
        *("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),  # remote stores behind a FUSE process
        # Folders that a virtual machine's host shares with it: the host writes to the same files, and neither
        # its locks nor its memory are the guest's.
        *("9p", "virtiofs", "vboxsf"),
    }
)
"""As /proc/mounts names them. SQLite's log needs memory that all its users share; no two machines do."""
_BUSY_MS: Final = 5000
"""How long a writer waits for a checkpointing reader; other writers are kept out by the lock file."""

Connection = sqlite3.Connection
Row = tuple[Any, ...]


class Migrations(Protocol):
    """What the store needs of sqlite-utils' `Migrations`; the CLI hands it in (habit: one wiring place)."""

    def pending(self, db: Database) -> list[Any]:
        """Migrations not yet applied."""

    def apply(self, db: Database) -> None:
        """Apply them."""


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """The type of file system that holds `path` (`ext4`, `nfs4`, …); empty where the kernel does not tell.

    Args:
        path: A file or folder that exists.
        mounts: The text of /proc/mounts, for tests.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        inside = point == "/" or path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, parts[2]
    return kind


def check_place(path: Path, mounts: str | None = None) -> None:
    """Refuse a place where a ledger cannot be kept safely, before anything is created there.

    Raises:
        LedgerFileProblem: No such folder, not writable, or a network file system.
    """
    folder = path.parent
    if not folder.is_dir():
        raise LedgerFileProblem(
            f"There is no folder {folder} to keep the ledger in.",
            next_step="Create it, or name another place with --db.",
        )
    kind = file_system_of(folder, mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LedgerFileProblem(
            f"{path} is on a network file system ({kind}), where SQLite's locks and its write-ahead log "
            "do not work.",
            next_step="Keep the ledger on a local disk, and share what `leadledger export` writes.",
        )
    if not _takes_files(folder):
        raise LedgerFileProblem(
            f"The folder {folder} cannot be written to; SQLite keeps its log beside the ledger.",
            next_step="Make it writable, or name another place with --db.",
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise LedgerFileProblem(
            f"{path} cannot be written to.", next_step="Check its owner and mode (0600 is right)."
        )


def _takes_files(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and not _read_only(folder)


def _read_only(folder: Path) -> bool:
    """True when the file system is mounted read-only (root passes every access check)."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def check_file(path: Path, *, only_read: bool = False) -> None:
    """Refuse a file that is not a ledger this version understands. A missing or empty file is fine.

    Args:
        path: The file.
        only_read: A snapshot will do too.

    Raises:
        LedgerFileProblem: Not SQLite, not a ledger, unreadable, or made by a newer version.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    if not path.is_file():
        raise LedgerFileProblem(f"{path} is not a file.", next_step="Name a ledger with --db.")
    application_id, version = _identity(path)
    if application_id == SNAPSHOT_ID and not only_read:
        raise LedgerFileProblem(
            f"{path} is a snapshot, to look at only: what it says is queued is queued in the ledger too.",
            next_step="Name the ledger itself with --db.",
        )
    if application_id not in {APPLICATION_ID, SNAPSHOT_ID}:
        raise LedgerFileProblem(
            f"{path} is not a ledger.",
            next_step="Name another file with --db; `leadledger import` makes one where there is none.",
        )
    if version > SCHEMA_VERSION:
        raise LedgerFileProblem(
            f"{path} was made by a newer version of leadledger (schema {version}, this one knows "
            f"{SCHEMA_VERSION}).",
            next_step="Install the newer version; this one would not understand what it finds.",
        )


def _identity(path: Path) -> tuple[int | None, int]:
    """(application id, schema version) of an SQLite file; (None, 0) for one that is none.

    SQLite is asked, for two reasons. After a kill, what the first bytes of the file should say may still be
    in the write-ahead log. And to close a file that SQLite has open in this process drops its locks on it.
    A file without any table, as a kill before the first migration leaves it, counts as a ledger of version 0.
    A rollback journal beside it means a kill inside the very first switch to WAL: only a connection that may
    write can roll that back.
    """
    connection = _open(path, "mode=rw" if beside(path, "-journal").exists() else _reading(path))
    try:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise _unreadable(path, error) from error
    except sqlite3.DatabaseError:
        return None, 0
    finally:
        connection.close()
    if application_id == 0 and tables == 0:
        return APPLICATION_ID, 0
    return application_id, version


def _open(path: Path, how: str) -> Connection:
    """A connection to a file that exists.

    Raises:
        LedgerFileProblem: It cannot be opened.
    """
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, isolation_level=None)
        connection.execute("PRAGMA busy_timeout = " + str(_BUSY_MS))
    except sqlite3.OperationalError as error:
        raise _unreadable(path, error) from error
    return connection


def _reading(path: Path) -> str:
    """How to open a ledger only to read it.

    SQLite reads a WAL file with the help of `-shm` beside it, and makes one where there is none. In a folder
    that takes no files it cannot; but where nothing waits in a log either, nobody has the ledger open and the
    file alone is all of it.
    """
    log, shared, journal = (beside(path, suffix) for suffix in ("-wal", "-shm", "-journal"))
    if _takes_files(path.parent) or shared.exists() or journal.exists():
        return "mode=ro"
    return "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"


def beside(path: Path, suffix: str) -> Path:
    """What lies beside the ledger under its name and a suffix."""
    return path.with_name(path.name + suffix)


def _unreadable(path: Path, error: Exception) -> LedgerFileProblem:
    if _takes_files(path.parent) or not beside(path, "-wal").exists():
        return LedgerFileProblem(f"{path} cannot be read: {error}.", next_step="Check its owner and mode.")
    return LedgerFileProblem(
        f"{path} cannot be read: its last process left a log beside it, and SQLite reads that only in a "
        f"folder it may write to ({error}).",
        next_step=f"Make {path.parent} writable, or copy the ledger and its -wal to a folder that is.",
    )


def connect(path: Path) -> Connection:
    """The writer's connection: WAL, `synchronous=FULL`, every guard pragma on, file mode 0600.

    The caller holds the lock file. Transactions are explicit (`transaction`): sqlite-utils' own and
    Python's implicit ones are deferred, and a deferred read-then-write fails at once when it loses a race.

    Raises:
        DiskTrouble: There is no room for it, or the disk fails.
        LedgerFileProblem: It cannot be opened for another reason.
    """
    umask = os.umask(0o077)
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    finally:
        os.umask(umask)
    try:
        for pragma in (
            f"busy_timeout = {_BUSY_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "recursive_triggers = ON",
            "secure_delete = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            "cache_size = -32768",
        ):
            connection.execute("PRAGMA " + pragma)
    except sqlite3.Error as error:
        connection.close()
        if "disk" in str(error):  # "disk I/O error", "database or disk is full"
            raise disk_trouble(error) from error
        raise LedgerFileProblem(
            f"{path} cannot be opened: {error}.", next_step="`leadledger doctor` looks at it more closely."
        ) from error
    _private(path)
    return connection


def connect_readonly(path: Path) -> Connection:
    """A reader's connection: it can neither write nor checkpoint beside the writer (`_reading`).

    Raises:
        LedgerFileProblem: There is no ledger, or it is not one.
    """
    if not path.exists():
        raise LedgerFileProblem(
            f"There is no ledger at {path}.", next_step="`leadledger import FILE` makes one; --db names it."
        )
    check_file(path, only_read=True)
    connection = _open(path, _reading(path))
    connection.execute("PRAGMA query_only = ON")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        connection.close()
        raise _unreadable(path, error) from error
    if version == 0:
        connection.close()
        raise LedgerFileProblem(
            f"{path} is empty: there is no ledger in it yet.", next_step="`leadledger import FILE` fills it."
        )
    return connection


def _private(path: Path) -> None:
    """0600 for the ledger and what SQLite keeps beside it (a ledger holds personal data and bearers)."""
    for name in (path, beside(path, "-wal"), beside(path, "-shm")):
        with suppress(OSError):
            if stat.S_IMODE(name.stat().st_mode) & 0o077:
                name.chmod(0o600)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """`BEGIN IMMEDIATE` … `COMMIT`; rolled back on any exception, also a cancelled task's.

    Nothing inside may await: another task's write would join the transaction and share its fate.

    Raises:
        DiskTrouble: SQLite could not begin, write or commit. Nothing of the transaction is on disk and
            paying must stop. A refused row (`IntegrityError`) is the caller's own business and passes.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise disk_trouble(error) from error
    try:
        yield
    except BaseException as error:
        _roll_back(connection)
        if is_disk_trouble(error):
            raise disk_trouble(error) from error
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        raise disk_trouble(error) from error


def _roll_back(connection: Connection) -> None:
    """After some errors (disk full, I/O) SQLite has already rolled back by itself."""
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_disk_trouble(error: BaseException) -> bool:
    """True for SQLite's own errors, unless it only refused a row."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError)


def disk_trouble(error: BaseException) -> DiskTrouble:
    """The error for a ledger that will not take a write."""
    return DiskTrouble(
        f"The ledger cannot be written: {error}.",
        next_step="Free space or mend the disk, then start the same command again; it recovers by itself.",
    )


def checkpoint(connection: Connection) -> bool:
    """Move the write-ahead log into the file and cut it to nothing, so that deleted bearers' bytes are gone.

    Returns:
        False when a reader stood in the way (the next run tries again).
    """
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def rows(connection: Connection, sql: str, parameters: tuple[object, ...] = ()) -> Iterator[dict[str, Any]]:
    """Each row of a query as a dictionary."""
    cursor = connection.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))
