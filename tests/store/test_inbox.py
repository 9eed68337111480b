"""The inbox as files: whole or not there, in order, private, bounded, and never stopped by junk."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ledger.clock import to_text
from ledger.errors import DiskTrouble, UsageProblem
from ledger.store import inbox
from ledger.testing import START


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "leads.db"


def test_what_is_dropped_can_be_read_and_removed(ledger: Path) -> None:
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    assert inbox.waiting(ledger) == [path]
    item = inbox.read(path)
    assert isinstance(item, inbox.Item)
    assert (item.kind, item.body, item.dropped_at) == ("retry", {"job": 7}, to_text(START))
    inbox.done(path)
    inbox.done(path)
    assert inbox.waiting(ledger) == []


def test_the_folder_and_every_file_are_private(ledger: Path) -> None:
    previous = os.umask(0)
    try:
        path = inbox.drop(ledger, "resolve", {"bearer": "pb_secret"})
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o755)
    inbox.drop(ledger, "pause", {})
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "pb_secret" not in repr(inbox.read(path))


def test_two_names_of_one_ledger_share_an_inbox(ledger: Path, tmp_path: Path) -> None:
    ledger.touch()
    link = tmp_path / "other.db"
    link.symlink_to(ledger)
    dropped = inbox.drop(link, "pause", {})
    assert inbox.waiting(ledger) == [dropped] == inbox.waiting(link)


def test_order_is_the_order_of_dropping_and_the_number_is_bounded(ledger: Path) -> None:
    late = [inbox.drop(ledger, "pause", {"n": n}, now=START + timedelta(seconds=n)) for n in (3, 1, 2)]
    assert inbox.waiting(ledger) == [late[1], late[2], late[0]]
    assert inbox.waiting_in(inbox.inbox_path(ledger), 2) == [late[1], late[2]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": "../x", "kind": "pause", "dropped_at": "2026-03-02T09:00:00.000000Z", "body": {}}',
        b'{"id": "x", "kind": "drop table", "dropped_at": "2026-03-02T09:00:00.000000Z", "body": {}}',
        b'{"id": "x", "kind": "pause", "dropped_at": "yesterday", "body": {}}',
        b'{"id": "x", "kind": "pause", "dropped_at": 1, "body": {}}',
        b'{"id": "x", "kind": ["pause"], "dropped_at": "2026-03-02T09:00:00.000000Z", "body": {}}',
        b'{"id": "x", "kind": "pause", "dropped_at": "2026-03-02T09:00:00.000000Z", "body": []}',
        b" " * (inbox.FILE_BYTES_MAX + 1),
    ],
    ids=range(13),
)
def test_junk_is_moved_aside_once_and_named(ledger: Path, data: bytes) -> None:
    good = inbox.drop(ledger, "pause", {}, now=START)
    bad = good.with_name("0-first.json")
    bad.write_bytes(data)
    assert inbox.waiting(ledger) == [bad, good]
    junk = inbox.read(bad)
    assert isinstance(junk, inbox.Junk)
    assert junk.moved_to.read_bytes() == data
    assert junk.moved_to.name in junk.note
    assert inbox.waiting(ledger) == [good]


def test_what_is_no_plain_file_is_moved_aside_too(ledger: Path) -> None:
    good = inbox.drop(ledger, "pause", {}, now=START)
    (good.parent / "0.json").mkdir()
    (good.parent / "1.json").symlink_to(good)
    os.mkfifo(good.parent / "2.json")
    for path in inbox.waiting(ledger)[:3]:
        assert isinstance(inbox.read(path), inbox.Junk)
    assert inbox.waiting(ledger) == [good]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "read"])
def test_trouble_that_may_pass_throws_nothing_away(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    struck = []

    def fails(*_: object, **__: object) -> None:
        struck.append(1)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(DiskTrouble, match=re.escape(os.strerror(number))):
            inbox.read(path)
    assert struck
    assert inbox.waiting(ledger) == [path]
    item = inbox.read(path)
    assert isinstance(item, inbox.Item)
    assert item.body == {"job": 7}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o622])
def test_a_file_that_others_may_write_is_not_obeyed(ledger: Path, mode: int) -> None:
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    path.chmod(mode)
    junk = inbox.read(path)
    assert isinstance(junk, inbox.Junk)
    assert "others may write" in junk.note
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    path.chmod(0o644)
    assert isinstance(inbox.read(path), inbox.Item), "to be read by others is another matter"


def test_a_file_or_folder_of_another_user_is_not_obeyed(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    assert isinstance(inbox.read(path), inbox.Item)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(DiskTrouble, match="another user"):
        inbox.waiting(ledger)
    with pytest.raises(DiskTrouble, match="another user"):
        inbox.drop(ledger, "retry", {"job": 8}, now=START)
    junk = inbox.read(path)
    assert isinstance(junk, inbox.Junk)
    assert "another user" in junk.note


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_not_read(ledger: Path, mode: int) -> None:
    path = inbox.drop(ledger, "retry", {"job": 7}, now=START)
    path.parent.chmod(mode)
    with pytest.raises(DiskTrouble, match="others may write"):
        inbox.waiting(ledger)
    path.parent.chmod(0o755)
    assert inbox.waiting(ledger) == [path]


def test_a_socket_is_moved_aside(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = inbox.drop(ledger, "pause", {}).with_name("0.json")
    monkeypatch.chdir(path.parent)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(path.name)
        assert isinstance(inbox.read(path), inbox.Junk)
    assert len(inbox.waiting(ledger)) == 1


def test_a_file_that_went_away_meanwhile_is_no_trouble(ledger: Path) -> None:
    path = inbox.drop(ledger, "pause", {})
    inbox.done(path)
    assert isinstance(inbox.read(path), inbox.Junk)


def test_half_written_files_are_not_seen_and_swept_when_old(ledger: Path) -> None:
    folder = inbox.drop(ledger, "pause", {}).parent
    old, new = folder / ".old.tmp", folder / ".new.tmp"
    for path, age_s in ((old, 7200.0), (new, 60.0)):
        path.write_text("{")
        at = START.timestamp() - age_s
        os.utime(path, (at, at))
    assert len(inbox.waiting(ledger)) == 1
    inbox.sweep(ledger, START)
    assert (old.exists(), new.exists()) == (False, True)
    inbox.sweep(ledger.with_name("none.db"), START)


def test_the_largest_delivery_fits_byte_for_byte(ledger: Path) -> None:
    raw = b"\x00\xff" * (inbox.BODY_BYTES_MAX // 2)
    path = inbox.drop(ledger, "delivery", inbox.delivery(raw, received_at=START, delivery_id=None))
    item = inbox.read(path)
    assert isinstance(item, inbox.Item)
    assert item.body["raw"].encode("utf-8", "surrogateescape") == raw


def test_what_no_reader_would_take_is_refused_at_the_drop(ledger: Path) -> None:
    for kind, body, item_id in (
        ("delivery", {"raw": "x" * (inbox.FILE_BYTES_MAX + 1)}, None),
        ("nonsense", {}, None),
        ("pause", {}, "../../etc"),
    ):
        with pytest.raises(UsageProblem):
            inbox.drop(ledger, kind, body, item_id=item_id)
    assert inbox.waiting(ledger) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_drop_that_fails_leaves_nothing_to_be_seen(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = inbox.drop(ledger, "pause", {}, now=START).parent
    failed = []

    def fail(*_: object) -> None:
        failed.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), fail)
    with pytest.raises(DiskTrouble, match="No space left"):
        inbox.drop(ledger, "retry", {}, now=START)
    assert failed
    assert len(list(folder.iterdir())) == 1


def test_a_file_in_the_place_of_the_folder_is_said(ledger: Path) -> None:
    inbox.inbox_path(ledger).write_text("")
    with pytest.raises(DiskTrouble, match="inbox"):
        inbox.drop(ledger, "pause", {})
    with pytest.raises(DiskTrouble, match="inbox"):
        inbox.waiting(ledger)


def test_the_web_process_may_import_it_without_sqlite() -> None:
    code = (
        "import sys, json, ledger.store.inbox; "
        "print(json.dumps([m for m in ('sqlite3', 'sqlite_utils', 'httpx') if m in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == []
