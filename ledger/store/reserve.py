"""`LEDGER.reserve`: room on a full disk for what a paid call brought back.

4 MiB, written and synced when a run starts (no reserve, no paid POST). When the ledger itself will not take
a paid answer any more, the answer goes here, into blocks that are already ours; the next start reads it
before it does anything else. It may hold poll bearers: mode 0600, and wiped once taken over.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ledger import crashpoints
from ledger import events as ev
from ledger.states import State
from ledger.store.connect import disk_trouble
from ledger.store.place import beside

SIZE: Final = 4 * 1024 * 1024
_BLOCK: Final = b"\0" * 65536

Entry = tuple[int, int, ev.PostEvent]
"""(job id, fence, what came)."""


def reserve_path(ledger: Path) -> Path:
    """`LEDGER.reserve`, beside the real file."""
    return beside(ledger, ".reserve")


class Reserve:
    """The emergency file of one run.

    Raises:
        DiskTrouble: There is no room for it, so there must be no paid call either.
    """

    def __init__(self, ledger: Path) -> None:
        self.path = reserve_path(ledger)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_trouble(error) from error
        self._end = 0
        try:
            _wipe(self._descriptor, SIZE)
        except OSError as error:
            os.close(self._descriptor)
            with suppress(OSError):
                self.path.unlink()  # a part of it would only fill the disk
            raise disk_trouble(error) from error

    def keep(self, job_id: int, fence: int, event: ev.PostEvent) -> bool:
        """Write down what a paid call brought back, synced; False when it did not fit or did not go."""
        entry = _to_json(job_id, fence, event)
        if entry is None:
            return False
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        if self._end + len(line) >= SIZE:
            return False
        crashpoints.reach("reserve_before_write")
        try:
            os.pwrite(self._descriptor, line, self._end)
            os.fsync(self._descriptor)
        except OSError:
            return False
        crashpoints.reach("reserve_after_write")
        self._end += len(line)
        return True

    def close(self) -> None:
        """Let go of the file; remove it when nothing had to be kept."""
        os.close(self._descriptor)
        if self._end == 0:
            self.path.unlink(missing_ok=True)


def read(ledger: Path) -> list[Entry]:
    """What an earlier run had to keep here; a line that a crash cut short is left out."""
    try:
        text = reserve_path(ledger).read_bytes().split(b"\0", 1)[0]
    except FileNotFoundError:
        return []
    entries = []
    for line in text.split(b"\n"):
        try:
            entries.append(_from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue
    return entries


def clear(ledger: Path) -> None:
    """Wipe and remove it, once the ledger has taken over what was in it."""
    path = reserve_path(ledger)
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _wipe(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    crashpoints.reach("reserve_wiped")
    path.unlink()


def _wipe(descriptor: int, size: int) -> None:
    for offset in range(0, size, len(_BLOCK)):
        os.pwrite(descriptor, _BLOCK[: size - offset], offset)
    os.fsync(descriptor)


def _to_json(job_id: int, fence: int, event: ev.PostEvent) -> dict[str, Any] | None:
    """Only what was paid for is worth the reserve; anything else is a doubt at the next start anyway."""
    base: dict[str, Any] = {"job_id": job_id, "fence": fence}
    match event:
        case ev.Accepted(remote_job_id, bearer, billing_mode, answer):
            secret = None if bearer is None else bearer.reveal()
            fields = {"remote_job_id": remote_job_id, "bearer": secret, "billing_mode": billing_mode}
            return {**base, "kind": "accepted", **fields, "answer": asdict(answer)}
        case ev.Answered(verdict, answer):
            return {**base, "kind": "answered", "verdict": asdict(verdict), "answer": asdict(answer)}
    return None


def _from_json(entry: dict[str, Any]) -> Entry:
    answer = ev.Answer(**entry["answer"])
    event: ev.PostEvent
    if entry["kind"] == "accepted":
        bearer = None if entry["bearer"] is None else ev.Secret(entry["bearer"])
        event = ev.Accepted(entry["remote_job_id"], bearer, entry["billing_mode"], answer)
    else:
        verdict = entry["verdict"]
        event = ev.Answered(ev.Verdict(**{**verdict, "state": State(verdict["state"])}), answer)
    return entry["job_id"], entry["fence"], event
