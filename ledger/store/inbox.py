"""`LEDGER.inbox/`: how a wish or a webhook delivery reaches a ledger that another process holds.

One file is one item, written in full, synced and renamed into place, so that a reader sees all of it or
nothing. Only the holder of the lock takes files out, oldest first, and removes each once its effect is
committed. No SQLite in here: the web process imports this module and nothing else of the store.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import re
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ledger.clock import SystemClock, from_text, to_text
from ledger.errors import DiskTrouble, UsageProblem
from ledger.store.place import beside

KINDS: Final = ("delivery", "retry", "cancel", "pause", "resume", "resolve", "suppress")
BODY_BYTES_MAX: Final = 64 * 1024
"""The longest delivery that is taken in; a receiver reads no further."""
FILE_BYTES_MAX: Final = 6 * BODY_BYTES_MAX + 4096
"""JSON writes one byte as six at worst; the rest of an item is small."""
AT_ONCE_MAX: Final = 200
"""Files taken in one go: bounds how long the holder is away from its own work."""
_STALE_S: Final = 3600.0
"""A half-written file this old has no writer any more."""
_NO_ITEM: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EACCES})
"""What opening says of a file that is gone, a link, a socket or closed to us: it will never be one. Any other
error (too many open files, a bad block) may pass, and the file may be somebody's paid result."""
_NOT_OURS: Final = "it belongs to another user, or others may write to it"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the inbox. No repr of `body`: it may hold a bearer or a person's data."""

    path: Path
    id: str
    """Unique; what has been applied under it is never applied again."""
    kind: str
    body: dict[str, Any]
    dropped_at: str
    """Ledger time text."""

    def __repr__(self) -> str:
        return f"Item({self.kind}, {self.id}, dropped_at={self.dropped_at})"


@dataclass(frozen=True, slots=True)
class Junk:
    """A file that is no item: moved aside, so that it is met only once."""

    moved_to: Path
    why: str

    @property
    def note(self) -> str:
        """A sentence for the log."""
        return (
            f"An unreadable file in the inbox was put aside as {self.moved_to} ({self.why}): "
            "it changed nothing."
        )


def inbox_path(ledger: Path) -> Path:
    """`LEDGER.inbox`, beside the real file."""
    return beside(ledger, ".inbox")


def delivery(raw: bytes, *, received_at: datetime, delivery_id: str | None) -> dict[str, Any]:
    """The body of a `delivery` item. Only a receiver that has checked the signature over `raw` makes one.

    Bytes that are no UTF-8 are kept as surrogates, so that `raw` can be had back exactly.
    """
    return {
        "verified": True,
        "received_at": to_text(received_at),
        "delivery_id": delivery_id,
        "raw": raw.decode("utf-8", "surrogateescape"),
    }


def drop(
    ledger: Path,
    kind: str,
    body: Mapping[str, Any],
    *,
    item_id: str | None = None,
    now: datetime | None = None,
) -> Path:
    """Put one item into the inbox; it is on disk, name and all, when this returns.

    Args:
        ledger: The ledger it is for; the file itself is not touched.
        kind: One of `KINDS`.
        body: What JSON can say. May hold a bearer (the file is 0600), never a key or a signing secret.
        item_id: Under which it is applied at most once; a random UUID unless given.
        now: The time of the drop; the machine's unless given.

    Raises:
        UsageProblem: An unknown kind, an id that cannot be part of a file name, or too large.
        DiskTrouble: It could not be written; nothing of it will be seen.
    """
    at = to_text(SystemClock().now() if now is None else now)
    item_id = item_id or str(uuid.uuid4())
    if kind not in KINDS or not _ID.fullmatch(item_id):
        raise UsageProblem(f"The inbox takes no {kind!r} with the id {item_id!r}.")
    data = json.dumps({"id": item_id, "kind": kind, "dropped_at": at, "body": dict(body)}).encode()
    if len(data) > FILE_BYTES_MAX:
        raise UsageProblem(
            f"A {kind} of {len(data):,} bytes is too large for the inbox ({FILE_BYTES_MAX:,})."
        )
    folder = inbox_path(ledger)
    # The name sorts by time; colons are left out because they mean something to shells and to other systems.
    final = folder / f"{at.replace(':', '')}.{kind}.{item_id}.json"
    try:
        _make(folder)
        _write(folder / f".{uuid.uuid4()}.tmp", final, data)
    except OSError as error:
        raise _trouble(folder, error) from error
    return final


def _make(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        _sync(folder.parent)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, _NOT_OURS)
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def _write(temporary: Path, final: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(final.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def waiting(ledger: Path) -> list[Path]:
    """The files that wait in a ledger's inbox, oldest first, at most `AT_ONCE_MAX` of them.

    Raises:
        DiskTrouble: The folder is there and cannot be read, or others may write to it.
    """
    return waiting_in(inbox_path(ledger))


def waiting_in(folder: Path, limit: int = AT_ONCE_MAX, *, leave: str = "") -> list[Path]:
    """The files that wait in an inbox folder, oldest first, at most `limit`; those of kind `leave` are left.

    Raises:
        DiskTrouble: The folder is there and cannot be read, or others may write to it.
    """
    try:
        if not _only_ours(folder.stat()):
            raise PermissionError(errno.EPERM, _NOT_OURS)
        with os.scandir(folder) as entries:
            names = heapq.nsmallest(limit, (entry.name for entry in entries if _is_item(entry.name, leave)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _trouble(folder, error) from error
    return [folder / name for name in names]


def _is_item(name: str, leave: str) -> bool:
    return name.endswith(".json") and not name.startswith(".") and not (leave and f".{leave}." in name)


def read(path: Path) -> Item | Junk:
    """One item. A file that is none, or not ours alone, is moved aside to `*.bad` and comes back as `Junk`.

    Raises:
        DiskTrouble: It cannot be read now, and is still there; or it cannot be moved aside.
    """
    try:
        return _item(path, _data(path))
    except OSError as error:
        if error.errno not in _NO_ITEM:
            raise _trouble(path.parent, error) from error
        return _put_aside(path, error.strerror or str(error))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _put_aside(path, str(error) or type(error).__name__)


def _only_ours(status: os.stat_result) -> bool:
    """True when nobody else can have written it: whoever can, decides how money is spent."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _data(path: Path) -> bytes:
    # The file that is looked at is the file that is read; a pipe put in its place does not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")
        if not _only_ours(status):
            raise ValueError(_NOT_OURS)
        data = _read(descriptor)
    finally:
        os.close(descriptor)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"more than {FILE_BYTES_MAX:,} bytes")
    return data


def _read(descriptor: int) -> bytes:
    """All of a file, or the first `FILE_BYTES_MAX + 1` bytes."""
    data = b""
    while len(data) <= FILE_BYTES_MAX and (more := os.read(descriptor, FILE_BYTES_MAX + 1 - len(data))):
        data += more
    return data


def _item(path: Path, data: bytes) -> Item:
    facts = json.loads(data)
    if not isinstance(facts, dict):
        raise TypeError("not a JSON object")
    item_id, kind, body, at = (facts[name] for name in ("id", "kind", "body", "dropped_at"))
    if not (isinstance(item_id, str) and _ID.fullmatch(item_id)):
        raise ValueError("no usable id")
    if kind not in KINDS:
        raise ValueError("an unknown kind")
    if not isinstance(body, dict):
        raise TypeError("the body is not a JSON object")
    from_text(at)
    return Item(path, item_id, kind, body, at)


def _put_aside(path: Path, why: str) -> Junk:
    aside = path.with_name(path.name + ".bad")
    try:
        with suppress(FileNotFoundError):
            path.rename(aside)
    except OSError as error:
        raise _trouble(path.parent, error) from error
    return Junk(aside, why)


def done(path: Path) -> None:
    """Remove a file whose effect is committed. Lost in a crash, it is met again and found applied."""
    with suppress(OSError):
        path.unlink()


def sweep(ledger: Path, now: datetime) -> None:
    """Remove what senders that died half way have left (it may hold a bearer)."""
    before = (now - timedelta(seconds=_STALE_S)).timestamp()
    with suppress(OSError):
        for path in inbox_path(ledger).glob(".*.tmp"):
            if path.stat().st_mtime < before:
                path.unlink()


def _trouble(folder: Path, error: OSError) -> DiskTrouble:
    return DiskTrouble(
        f"The inbox {folder} cannot be used: {error.strerror}.",
        money="Nothing was sent and nothing was charged.",
        next_step="Free space, or mend its owner and mode (0700), then try again.",
    )
