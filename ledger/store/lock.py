"""One writer a ledger: a kernel lock on `LEDGER.lock`, held for life, never a lease by the clock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from ledger.clock import Clock, to_text
from ledger.errors import LedgerBusy, LedgerFileProblem
from ledger.store.connect import disk_trouble
from ledger.store.place import beside


class Lock:
    """The right to write one ledger. The kernel frees it when the process ends, however it ends.

    Args:
        path: The ledger.
        purpose: What the holder does, shown to whoever comes second (`run`, `import`, …).
        clock: Writes the time it was taken.

    Raises:
        LedgerBusy: Another process holds it; the error names it.
        LedgerFileProblem: The lock file cannot be made or opened.
        DiskTrouble: There is no room for it.
    """

    def __init__(self, path: Path, purpose: str, clock: Clock) -> None:
        self.path = lock_path(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise disk_trouble(error) from error
            raise LedgerFileProblem(
                f"{self.path} cannot be opened: {error.strerror}.",
                next_step="Make its folder writable, or name another place with --db.",
            ) from error
        if not self._take():
            holder = describe(read_holder(path))
            os.close(self._descriptor)
            raise LedgerBusy(
                f"{path} is in use by {holder}.",
                next_step="Wait until it is done, or stop it (Ctrl+C is safe), then try again.",
            )
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": purpose,
            "since": to_text(clock.now()),
        }
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(facts).encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise disk_trouble(error) from error

    def _take(self) -> bool:
        """A few tries: `is_held` looks by taking a shared lock for a moment."""
        for pause_s in (0.0, 0.01, 0.02, 0.05, 0.1):
            time.sleep(pause_s)
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_path(path: Path) -> Path:
    """`LEDGER.lock`, beside the real file."""
    return beside(path, ".lock")


def read_holder(path: Path) -> dict[str, object]:
    """What the holder wrote into the lock file; empty when nothing readable is there."""
    try:
        facts = json.loads(lock_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def describe(holder: dict[str, object]) -> str:
    """`process 4711 (run, since 2026-…) on host`."""
    if not holder:
        return "another process"
    return (
        f"process {holder.get('pid')} ({holder.get('command')}, since {holder.get('since')}) "
        f"on {holder.get('host')}"
    )


def is_held(path: Path) -> bool:
    """True while some process holds the ledger. Takes nothing and creates nothing."""
    try:
        descriptor = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
