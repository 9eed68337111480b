"""`leadledger browse` as a process: ready in two seconds, on this machine only, and gone with Ctrl+C."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.browse.compat import IS_ONE

READY_S = 2.0
SECRET = "ech_needle_77aa"


@contextmanager
def browse(path: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, Any, float]]:
    """The address, the process, and its CPU seconds until it had answered (waiting is not ours)."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    command = [
        sys.executable,
        "-m",
        "ledger.cli",
        "--db",
        str(path),
        "browse",
        "--port",
        "0",
        "--json",
        *arguments,
    ]
    with (
        (path.parent / "err").open("w") as err,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, env={**ours, **environment}
        ) as process,
    ):
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            with urllib.request.urlopen(told["url"], timeout=10) as answer:
                assert answer.status == 200
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            yield told["url"], process, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture
def ledger_file(told: Path, tmp_path: Path) -> Path:
    path = tmp_path / "leads.db"
    shutil.copyfile(told, path)
    path.chmod(0o600)
    return path


def test_ready_reads_receives_and_goes(ledger_file: Path, waiting: Callable[[Path], list[Any]]) -> None:
    with browse(ledger_file, LEADLEDGER_WEBHOOK_SECRET=f"{SECRET} ech_older_needle") as (
        url,
        process,
        seconds,
    ):
        assert seconds < READY_S
        port = int(url.split(":")[2].split("/")[0])
        body = b'{"event_type": "enrich.job_completed", "job_id": "remote-2"}'
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        address = url.removesuffix("/-/ledger") + "/-/ledger/webhooks/411data"
        request = urllib.request.Request(address, body, {"X-411data-Signature": signature})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 204
        assert [item["kind"] for item in waiting(ledger_file)] == ["delivery"]
        forged = urllib.request.Request(address, body, {"X-411data-Signature": "sha256=" + "0" * 64})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(forged, timeout=10)
        assert refused.value.code == 401
        refused.value.close()
        evil = urllib.request.Request(url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as elsewhere:
            urllib.request.urlopen(evil, timeout=10)
        assert elsewhere.value.code == 403
        assert "server" not in {name.lower() for name in elsewhere.value.headers}
        elsewhere.value.close()
        proc = Path(f"/proc/{process.pid}")
        assert SECRET.encode() not in (proc / "cmdline").read_bytes()
        ears = (proc / "net" / "tcp").read_text() + (proc / "net" / "tcp6").read_text()
        assert f"0100007F:{port:04X}" in ears
        assert f"00000000:{port:04X}" not in ears
    assert process.returncode == 0
    assert (ledger_file.parent / "err").read_text() == ""


def run(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    command = [sys.executable, "-m", "ledger.cli", "--db", str(path), "browse", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**ours, **environment}
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.skipif(IS_ONE, reason="the same on every Datasette")
def test_mistakes_are_sentences(ledger_file: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "no.db")
    assert (done.returncode, "There is no ledger at" in done.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(ledger_file, "--port", str(taken.getsockname()[1]))
    assert (done.returncode, "Nothing can listen on" in done.stderr) == (2, True)
    done = run(ledger_file, LEADLEDGER_WEBHOOK_SECRET="short")
    assert (done.returncode, "no webhook secret" in done.stderr) == (2, True)
    assert "short" not in done.stderr
    done = run(ledger_file, "--webhook-secret-file", str(tmp_path / "nowhere"))
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


@pytest.mark.skipif(IS_ONE, reason="the same on every Datasette")
def test_a_wish_is_carried_out_when_nobody_holds_the_ledger(
    ledger_file: Path, states: Callable[[Path], dict[str, int]]
) -> None:
    with browse(ledger_file) as (url, _, _):
        with urllib.request.urlopen(url + "/do/cancel?job=7", timeout=10) as page:
            ticket = page.read().decode().split('name="ticket" value="')[1].split('"')[0]
        sent = urllib.request.Request(
            url + "/do/cancel?job=7", f"ticket={ticket}".encode(), {"Origin": url[:-9]}
        )
        with urllib.request.urlopen(sent, timeout=60) as done:
            assert "1 queued jobs are cancelled" in done.read().decode()
    assert states(ledger_file)["cancelled"] == 1
    assert "1 queued jobs are cancelled" in (ledger_file.parent / "err").read_text()
