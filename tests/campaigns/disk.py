"""A disk as a power cut may leave it, rebuilt from the system calls that strace saw.

Synced is what was written before the file's own fsync, and a name once its file or its folder was synced.
Of everything younger a cut may leave nothing, all, any half, or single 512-byte sectors; an unlink that no
sync of the folder followed may be undone. `-shm` is never there: its pages live in memory.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

TRACED: Final = (
    "openat,close,pwrite64,ftruncate,fdatasync,fsync,unlink,sendto,write,"
    "rename,renameat,renameat2,unlinkat,pwritev,writev,fallocate,truncate,sync_file_range,msync,dup,dup2,dup3"
)
"""The first line is what the model knows; a call of the second that touches the folder stops it."""
STRACE: Final = ("-xx", "-s", "2000000", "-e", f"trace={TRACED}")
SECTOR: Final = 512
MODES: Final = ("none", "all", "half", "torn")
_CALL: Final = re.compile(r"(?:\d+\s+)?(\w+)\((.*)\)\s+= (-?\d+)")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Op:
    """One thing that happened: to a file of the folder, or beside it.

    `create` `write` `truncate` `sync` `unlink` `sync_folder`; `sent` (bytes to a socket, by descriptor in
    `at`) and `said` (bytes to standard output).
    """

    kind: str
    name: str = ""
    at: int = 0
    data: bytes = b""


def recorded(log: Path, folder: Path) -> list[Op]:
    """What a log of strace (with `STRACE` as its options) says of a folder."""
    reader = _Reader(folder)
    ops: list[Op] = []
    with log.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = _CALL.match(line)
            if found is not None and int(found[3]) >= 0:
                ops += reader.read(found[1], found[2], int(found[3]))
            elif "unfinished" in line:
                raise AssertionError(f"a second thread, which the model does not know: {line[:80]}")
    return ops


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.open: dict[int, str] = {}
        """Descriptor -> name in the folder; "" is the folder itself."""

    def read(self, call: str, said: str, result: int) -> Iterator[Op]:
        if call == "openat":
            yield from self._open(said, result)
            return
        if call == "unlink":
            name = self._name(_bytes(said))
            if name:
                yield Op("unlink", name)
            return
        number = re.match(r"\d+", said)
        descriptor = int(number[0]) if number else -1
        if call == "sendto":
            yield Op("sent", at=descriptor, data=_bytes(said)[:result])
        elif call == "write" and descriptor == 1:
            yield Op("said", data=_bytes(said))
        elif call == "close":
            self.open.pop(descriptor, None)
        elif descriptor in self.open:
            yield self._touch(call, self.open[descriptor], said, result)
        else:
            assert self.folder not in _TEXT.sub(lambda found: _unhex(found[1]).decode(errors="replace"), said)

    def _open(self, said: str, descriptor: int) -> Iterator[Op]:
        name = self._name(_bytes(said))
        self.open.pop(descriptor, None)
        if name is None:
            return
        self.open[descriptor] = name
        if "O_CREAT" in said:
            yield Op("create", name)
        if "O_TRUNC" in said:
            yield Op("truncate", name, 0)

    def _touch(self, call: str, name: str, said: str, result: int) -> Op:
        if call in {"fsync", "fdatasync"}:
            return Op("sync", name) if name else Op("sync_folder")
        if call == "pwrite64":
            data = _bytes(said)
            assert len(data) == result, f"a short write to {name}"
            return Op("write", name, int(said.rsplit(",", 1)[1]), data)
        if call == "ftruncate":
            return Op("truncate", name, int(said.rsplit(",", 1)[1], 0))
        raise AssertionError(f"{call} of {name}, which the model does not know")

    def _name(self, path: bytes) -> str | None:
        """The name in the folder ("" for itself), or None for a file elsewhere or one that never matters."""
        text = path.decode(errors="replace")
        if text == self.folder:
            return ""
        folder, _, name = text.rpartition("/")
        return None if folder != self.folder or name.endswith("-shm") else name


def _bytes(said: str) -> bytes:
    found = _TEXT.search(said)
    return _unhex(found[1]) if found else b""


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _File:
    synced: bytes = b""
    pending: list[Op] = field(default_factory=list)


class Disk:
    """The state after some ops: what is synced, and what is still on its way."""

    def __init__(self) -> None:
        self.files: list[_File] = []
        self.names: dict[str, int] = {}
        """As the process sees them: name -> number of a file."""
        self.synced_names: dict[str, int] = {}
        self.pending_names: list[tuple[str, int | None]] = []
        """(name, file or None: unlinked), oldest first."""

    def do(self, op: Op) -> None:
        """Let one op happen."""
        match op.kind:
            case "create" if op.name not in self.names:
                self.files.append(_File())
                self.names[op.name] = len(self.files) - 1
                self.pending_names.append((op.name, self.names[op.name]))
            case "write" | "truncate":
                self.files[self.names[op.name]].pending.append(op)
            case "sync":
                self._sync(op.name)
            case "unlink":
                del self.names[op.name]
                self.pending_names.append((op.name, None))
            case "sync_folder":
                for name, number in self.pending_names:
                    self._keep(self.synced_names, name, number)
                self.pending_names.clear()

    def _sync(self, name: str) -> None:
        number = self.names[name]
        file = self.files[number]
        file.synced = _after(file.synced, file.pending)
        file.pending = []
        if (name, number) not in self.pending_names:
            return
        # With the file its own name becomes durable, and what happened to that name before.
        until = self.pending_names.index((name, number)) + 1
        for other, then in [one for one in self.pending_names[:until] if one[0] == name]:
            self._keep(self.synced_names, other, then)
            self.pending_names.remove((other, then))

    @staticmethod
    def _keep(names: dict[str, int], name: str, number: int | None) -> None:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number

    @property
    def settled(self) -> bool:
        """True when a cut can leave only one image."""
        return not (self.pending_names or any(file.pending for file in self.files))

    def image(self, mode: str, chance: Random) -> dict[str, bytes]:
        """The folder as a cut may leave it."""
        names = dict(self.synced_names)
        for name, number in self.pending_names:
            if mode == "all" or (mode != "none" and chance.random() < 0.5):
                self._keep(names, name, number)
        return {name: self._contents(self.files[number], mode, chance) for name, number in names.items()}

    @staticmethod
    def _contents(file: _File, mode: str, chance: Random) -> bytes:
        match mode:
            case "none":
                return file.synced
            case "all":
                return _after(file.synced, file.pending)
            case "half":
                return _after(file.synced, [op for op in file.pending if chance.random() < 0.5])
        return _after(file.synced, _torn(file.pending, chance))


def _torn(ops: Iterable[Op], chance: Random) -> Iterator[Op]:
    for op in ops:
        if op.kind == "truncate":
            if chance.random() < 0.5:
                yield op
            continue
        for start in range(-(op.at % SECTOR), len(op.data), SECTOR):
            begin = max(start, 0)
            if chance.random() < 0.5:
                yield Op("write", op.name, op.at + begin, op.data[begin : start + SECTOR])


def _after(contents: bytes, ops: Iterable[Op]) -> bytes:
    there = bytearray(contents)
    for op in ops:
        if op.kind == "truncate":
            there = there[: op.at].ljust(op.at, b"\0")
            continue
        if len(there) < op.at:
            there.extend(bytes(op.at - len(there)))
        there[op.at : op.at + len(op.data)] = op.data
    return bytes(there)


def states(ops: list[Op], cuts: set[int] | None = None) -> Iterator[tuple[int, Disk]]:
    """The disk after the first `cut` ops, for every cut, or those of `cuts`.

    The wiping of the reserve is one cut, not sixty-four.
    """
    disk = Disk()
    for cut, op in enumerate(ops, 1):
        disk.do(op)
        if (cuts is None and not _wipes(ops, cut)) or (cuts is not None and cut in cuts):
            yield cut, disk


def _wipes(ops: list[Op], cut: int) -> bool:
    """True inside a row of writes of zeros."""
    return all(op.kind == "write" and not any(op.data) for op in ops[cut - 1 : cut + 1])


def disk_at(ops: list[Op], cut: int) -> Disk:
    """The disk after the first `cut` ops."""
    disk = Disk()
    for op in ops[:cut]:
        disk.do(op)
    return disk


def save(ops: list[Op], path: Path) -> None:
    """Keep a recording beside a campaign's log: its cuts are numbers into it."""
    path.write_bytes(pickle.dumps(ops))


def load(path: Path) -> list[Op]:
    """What `save` kept; our own file, in a folder of our own."""
    ops: list[Op] = pickle.loads(path.read_bytes())
    return ops
