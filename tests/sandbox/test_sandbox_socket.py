"""Over a real socket: what an HTTP client sees when the connection fails, and stopping the server."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.sandbox.serve import listen, serve
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import KEY, running, running_process, tell

JOB = {"route": "enrich/websearch", "payload": {"business_name": "Acme"}}
QUICK = {"enrich/websearch": Latency("fixed", 0)}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(match_rate=1, latency_s=QUICK, slow_byte_ms=1)) as base_url:
        yield base_url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10) as one:
        yield one


def _with_fault(url: str, **faults: float) -> dict[str, Any]:
    tell(url, "/sandbox/settings", {"faults": faults})
    before: dict[str, Any] = tell(url, "/sandbox/books")
    return before


def _accepted_since(url: str, before: dict[str, Any]) -> tuple[int, int]:
    """Submissions and lost answers since `before`."""
    after = tell(url, "/sandbox/books")
    assert after["balanced"]
    return (
        after["counts"]["accepted"] - before["counts"]["accepted"],
        len(after["answers_lost"]) - len(before["answers_lost"]),
    )


def test_a_job_from_submission_to_result(client: httpx.Client, url: str) -> None:
    _with_fault(url)
    told = client.post("/api/v1/enrich/jobs", json=JOB).json()
    bearer = {"Authorization": f"Bearer {told['poll_bearer']}"}
    final = client.get(f"/api/v1/enrich/jobs/{told['job_id']}", headers=bearer)
    assert final.json()["result"]["matched"] is True


@pytest.mark.parametrize(("fault", "accepted"), [("lose_answer", 1), ("refuse_before", 0)])
def test_a_dropped_connection_has_no_byte(
    client: httpx.Client, url: str, caplog: pytest.LogCaptureFixture, fault: str, accepted: int
) -> None:
    before = _with_fault(url, **{fault: 1})
    with (
        caplog.at_level(logging.WARNING, logger="uvicorn.error"),
        pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
    ):
        client.post("/api/v1/enrich/jobs", json=JOB)
    assert _accepted_since(url, before) == (accepted, accepted)
    assert caplog.records == []


def test_a_cut_body_stops_half_way(client: httpx.Client, url: str, caplog: pytest.LogCaptureFixture) -> None:
    before = _with_fault(url, cut_body=1)
    chunks: list[bytes] = []
    with client.stream("POST", "/api/v1/enrich/jobs", json=JOB) as answer:
        assert answer.status_code == 202
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            chunks.extend(answer.iter_raw())
    got = b"".join(chunks)
    assert got.startswith(b'{"job_id"')
    assert not got.endswith(b"}")
    assert len(got) == int(answer.headers["content-length"]) // 2
    assert _accepted_since(url, before) == (1, 1)
    assert caplog.records == []


def test_slow_bytes_come_one_by_one_and_whole(client: httpx.Client, url: str) -> None:
    before = _with_fault(url, slow_bytes=1)
    with client.stream("POST", "/api/v1/enrich/jobs", json=JOB) as answer:
        chunks = list(answer.iter_raw())
    assert len(chunks) > 20
    assert b"".join(chunks).endswith(b"}")
    assert _accepted_since(url, before) == (1, 0)


def test_slow_bytes_that_nobody_waits_for_are_a_lost_answer() -> None:
    with running(Settings(match_rate=1, slow_byte_ms=60_000, faults={"slow_bytes": 1})) as slow:
        headers = {"Authorization": f"Bearer {KEY}"}
        with (
            httpx.Client(base_url=slow, headers=headers, trust_env=False) as hasty,
            pytest.raises(httpx.ReadTimeout),
        ):
            hasty.post("/api/v1/enrich/jobs", json=JOB, timeout=0.2)
        # The server sees the closed connection within a turn of its loop: far sooner than 200 questions take.
        assert any(len(tell(slow, "/sandbox/books")["answers_lost"]) == 1 for _ in range(200))


def test_a_connection_lives_on_after_a_fault_of_another(client: httpx.Client, url: str) -> None:
    _with_fault(url, html_after=1)
    html = client.post("/api/v1/enrich/jobs", json=JOB)
    assert (html.status_code, html.headers["content-type"]) == (202, "text/html; charset=utf-8")
    _with_fault(url)
    assert client.post("/api/v1/enrich/jobs", json=JOB).status_code == 202


def test_a_sandbox_in_its_own_process_answers_and_ends() -> None:
    with running_process(Settings(seed=3, opening_usd="7")) as base_url:
        assert tell(base_url, "/sandbox/books")["money"]["opening_microusd"] == 7_000_000
        assert tell(base_url, "/sandbox/settings")["seed"] == 3
    with pytest.raises(OSError, match="refused"):
        tell(base_url, "/sandbox/books")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "orphaned"])
def test_a_served_sandbox_stops_without_a_trace(how: str) -> None:
    command = [sys.executable, "-m", "ledger.sandbox.testing"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write("{}\n")
        child.stdin.flush()
        base_url = f"http://127.0.0.1:{int(child.stdout.readline())}"
        tell(base_url, "/sandbox/books")
        if how == "orphaned":
            child.stdin.close()
        else:
            os.kill(child.pid, signal.Signals[how])
        assert child.wait(10) == 0
        assert child.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_before_the_server_runs_is_not_lost(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    told: list[int] = []

    def stop_at_once(port: int) -> None:
        told.append(port)
        signal.raise_signal(number)

    serve(Settings(), on_ready=stop_at_once)
    assert len(told) == 1
    assert signal.getsignal(number) == before


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as ear:
        assert ear.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_an_error() -> None:
    with listen("127.0.0.1", 0) as ear, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", ear.getsockname()[1])
