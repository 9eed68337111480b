"""The order on disk and wire, read off the system calls: the intent is synced before its POST leaves.

The attempt's idempotency key is random, so it names one intent: it stands in the bytes written to the log and
in the bytes sent to the provider.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LEADS = 12
CALLS = "pwrite64,fdatasync,fsync,sendto"
LOOSE = """\
import ledger.store.ledger as module
from ledger.store.connect import connect
def loose(path):
    connection = connect(path)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
module.connect = loose
from ledger.cli.main import main
main()
"""
"""The control: a ledger that leaves the sync to the next checkpoint."""
_KEY = re.compile(r"[Ii]dempotency-[Kk]ey: ([0-9a-f-]{36})")
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += \d+$")
_LOG = re.compile(r"\d+<[^>]*\.db-wal>")

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (Debian: apt-get install strace)"
)


def sent_before_synced(calls: Path) -> tuple[int, list[str]]:
    """How many paid POSTs left, and the keys of those whose intent was not on disk by then."""
    written: list[str] = []
    posts, synced = 0, ""
    early = []
    for line in calls.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        name, arguments = found[1], found[2]
        if name == "sendto" and (key := _KEY.search(arguments)):
            posts += 1
            if key[1] not in synced:
                early.append(key[1])
        elif _LOG.match(arguments):
            written.append(arguments)
            if name != "pwrite64":
                synced += "".join(written)
                written.clear()
    return posts, early


def traced(stage: Callable[..., Any], start: list[str]) -> tuple[int, list[str]]:
    night = stage()
    night.leads(LEADS)
    log = night.folder / "calls.txt"
    run = ["run", "--route", "lead-session", "--budget", "100", "--json"]
    strace = ["strace", "-f", "-y", "-qq", "-s", "70000", "-o", str(log), "-e", f"trace={CALLS}"]
    done = night.ended(night.start([*strace, *start, *run]))
    assert (done.code, done.json["submitted"]) == (0, LEADS), done
    return sent_before_synced(log)


def test_no_paid_post_leaves_before_its_intent_is_synced(stage: Callable[..., Any]) -> None:
    assert traced(stage, [sys.executable, "-m", "ledger.cli"]) == (LEADS, [])


def test_the_control_without_full_sync_is_caught(stage: Callable[..., Any]) -> None:
    posts, early = traced(stage, [sys.executable, "-c", LOOSE])
    assert (posts, len(early)) == (LEADS, LEADS)
