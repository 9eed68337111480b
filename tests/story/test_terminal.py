"""What a person sees of a run: one line that is written over, nothing glued to it, nothing wrapped."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

CLEAR = "\r\x1b[2K"
COLUMNS = 40
RUN = ("run", "--route", "lead-session", "--budget", "50")


def watched(night: Any, seen: str, *, term: str) -> tuple[int, str]:
    """A run on a terminal of 40 columns, interrupted once `seen` is on it: exit code, and all it wrote."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    with (night.folder / "out").open("w") as out:
        process = subprocess.Popen(
            night.command(*RUN),
            cwd=night.folder,
            env={**night.environment, "TERM": term},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=slave,
        )
    os.close(slave)
    text, stopped = b"", False
    ends = time.monotonic() + 100
    os.set_blocking(master, False)
    with process:
        while time.monotonic() < ends:
            try:
                piece = os.read(master, 65536)
            except BlockingIOError:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
                continue
            except OSError:  # the other side is closed
                break
            text += piece
            if not stopped and seen.encode() in text:
                process.send_signal(signal.SIGINT)
                stopped = True
        else:
            process.kill()
        code = process.wait()
    os.close(master)
    assert stopped, text
    return code, text.decode()


@pytest.fixture
def night(stage: Callable[..., Any]) -> Any:
    made = stage(answer_ms_of={"submit": 1000}, latency_s={"enrich/lead-session": ["fixed", 60]})
    made.leads(10)
    return made


def test_the_progress_line_fits_and_messages_stand_alone(night: Any) -> None:
    code, text = watched(night, "5 in flight", term="xterm")
    assert code == 130
    *lines, rest = text.split("\r\n")
    drawn = [piece for line in [*lines, rest] for piece in line.split(CLEAR)[:-1] if piece]
    assert len(drawn) >= 2, "the line was never drawn"
    assert max(map(len, drawn)) == COLUMNS - 1, "as wide as it may be, and no wider"
    said = [line.split(CLEAR)[-1] for line in lines]
    assert any(line.startswith("Stopping: waiting for the ") for line in said), said


def test_a_dumb_terminal_gets_plain_lines(night: Any) -> None:
    code, text = watched(night, "0 done", term="dumb")
    assert code == 130
    assert "\x1b" not in text
    first = text.split("\r\n")[0]
    assert first.startswith("0 done")
    assert len(first) > COLUMNS
