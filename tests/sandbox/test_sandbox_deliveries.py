"""Webhook deliveries of the sandbox: signed, readable, pushed to a callback, and wrong as asked for."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from ledger.sandbox.app import Sandbox, create_app
from ledger.sandbox.faults import DELIVERY
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import call, running, tell

ROUTE = "enrich/websearch"
QUICK = {ROUTE: Latency("fixed", 10)}


def genuine(one: dict[str, Any], secret: str = "ech_sandbox") -> bool:
    wanted = hmac.new(secret.encode(), one["body"].encode(), hashlib.sha256).hexdigest()
    return bool(one["headers"]["X-411data-Signature"] == "sha256=" + wanted)


async def pushed(app: Sandbox, *, after_s: float = 10.0) -> list[dict[str, Any]]:
    """Submit one job, let time pass, and read what was pushed."""
    body = {"route": ROUTE, "payload": {"business_name": "Acme", "source_ref": "our-key"}}
    assert (await call(app, "POST", "/api/v1/enrich/jobs", body)).status == 202
    await call(app, "POST", "/sandbox/advance", {"seconds": after_s})
    told: list[dict[str, Any]] = (await call(app, "GET", "/sandbox/deliveries")).json()["deliveries"]
    return told


def story(after_s: float = 10.0, **settings: Any) -> list[dict[str, Any]]:
    settings = {"latency_s": QUICK, "deliveries": True, "match_rate": 1.0, **settings}
    return asyncio.run(pushed(create_app(Settings(**settings), real=lambda: 0.0), after_s=after_s))


@pytest.mark.parametrize("shape", ["flat", "data", "bare"])
def test_a_finished_job_is_pushed_once_signed_over_its_raw_body(shape: str) -> None:
    (one,) = story(delivery_shape=shape)
    assert genuine(one)
    assert not genuine({**one, "body": one["body"] + " "})
    document = json.loads(one["body"])
    job = document["data"] if shape == "data" else document
    assert document["event_type"] == "enrich.job_completed"
    assert (job["job_id"], job["source_ref"], job["route"]) == (one["remote_job_id"], "our-key", ROUTE)
    assert ("result" in job) == ("status" in job) == (shape != "bare")


def test_nothing_is_pushed_before_the_job_is_done_nor_where_it_is_off() -> None:
    assert story(after_s=9.0) == []
    assert story(deliveries=False) == []


@pytest.mark.parametrize("fault", DELIVERY)
def test_each_fault_does_what_its_sentence_says(fault: str) -> None:
    told = story(faults={fault: 1.0}, delivery_late_s=5.0)
    later = story(after_s=15.0, faults={fault: 1.0}, delivery_late_s=5.0)
    match fault:
        case "delivery_lost":
            assert told == later == []
        case "delivery_twice":
            first, second = told
            assert first["body"] == second["body"]
        case "delivery_late":
            assert told == []
            assert [one["fault"] for one in later] == [fault]
        case "delivery_forged":
            assert [genuine(one) for one in told] == [False, True]
        case "delivery_other_job":
            stranger, ours = told
            assert genuine(stranger)
            assert stranger["remote_job_id"] != ours["remote_job_id"]
            assert "our-key" not in stranger["body"]


@pytest.mark.parametrize("url", ["http://example.com:80/", "https://127.0.0.1:1/", "http://127.0.0.1/", "x"])
def test_only_a_loopback_url_is_called_back(url: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Settings(callback_url=url)


def test_a_callback_gets_the_very_bytes_that_were_signed() -> None:
    async def over_sockets() -> tuple[bytes, list[dict[str, Any]]]:
        came = asyncio.get_running_loop().create_future()

        async def receiver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            came.set_result(head + await reader.readexactly(length))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(receiver, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(
            latency_s={ROUTE: Latency("fixed", 0.2)},
            deliveries=True,
            callback_url=f"http://127.0.0.1:{port}/hooks?x=1",
        )
        with running(settings) as url:
            body = {"route": ROUTE, "payload": {"business_name": "Acme"}}
            answer = await asyncio.to_thread(submit, url, body)
            assert answer == 202
            got = await asyncio.wait_for(came, 20)
            for _ in range(400):
                told = (await asyncio.to_thread(tell, url, "/sandbox/deliveries"))["deliveries"]
                if told and told[0]["status"] is not None:
                    break
        server.close()
        return got, told

    got, told = asyncio.run(over_sockets())
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hooks?x=1 HTTP/1.1\r\n")
    assert told[0]["body"].encode() == body
    assert told[0]["headers"]["X-411data-Signature"].encode() in head
    assert told[0]["status"] == 204


def submit(url: str, body: Any) -> int:
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        headers = {"Authorization": "Bearer 411_sandbox_test_key"}
        connection.request("POST", "/api/v1/enrich/jobs", json.dumps(body), headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_receiver_that_is_not_there_is_noted_and_harms_nothing() -> None:
    settings = Settings(
        latency_s={ROUTE: Latency("fixed", 0.1)}, deliveries=True, callback_url="http://127.0.0.1:9/hooks"
    )
    with running(settings) as url:
        assert submit(url, {"route": ROUTE, "payload": {"business_name": "Acme"}}) == 202
        for _ in range(2000):
            told = tell(url, "/sandbox/deliveries")["deliveries"]
            if told and told[0]["status"] is not None:
                break
        assert told[0]["status"] == 0
        assert tell(url, "/sandbox/books")["balanced"]
