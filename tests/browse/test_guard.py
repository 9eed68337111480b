"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from datasette.app import Datasette

from ledger.browse.guard import guarded, host_name, refusal
from ledger.store.engine import sqlite3

NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
EVIL = "evil.example"
ODD = ("localhost:80:80", "me@localhost", "localhost/x", "localhost#x", "local\thost", "localhost:123456")


@pytest.mark.parametrize(
    "path", ["/", "/-/ledger", "/leads/jobs.json", "/leads.csv?sql=select+1", "/-/static/app.css"]
)
@pytest.mark.parametrize("host", [EVIL, "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", *ODD])
def test_another_name_is_refused_everywhere(reading: Any, path: str, host: str) -> None:
    answer = reading.get(path, headers={"host": host})
    assert answer.status_code == 403
    assert "answers as" in answer.text
    assert "Laser Bella" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8001", "LOCALHOST:80", "[::1]:9", "localhost."])
def test_our_names_are_not(reading: Any, host: str) -> None:
    assert reading.get("/-/ledger", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": f"https://{EVIL}"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"origin": f"https://{EVIL}", "sec-fetch-site": "same-origin"},
    ],
)
@pytest.mark.parametrize("path", ["/-/ledger/do/retry", "/-/messages", "/leads/jobs"])
def test_a_post_from_another_site_is_refused(reading: Any, path: str, headers: dict[str, str]) -> None:
    answer = reading.post(path, headers=headers, data={"ticket": "x"})
    assert answer.status_code == 403
    assert answer.text == "That came from another site. Nothing was changed.\n"
    assert reading.waiting() == []


LINKED = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "document"},
    ],
)
@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_another_site_cannot_have_us_read(reading: Any, site: str, rest: dict[str, str], method: str) -> None:
    answer = reading.request(method, "/leads.json?sql=select+1", headers={"sec-fetch-site": site, **rest})
    assert answer.status_code == 403
    if method != "head":
        assert answer.text == "A page of another site asked for that. Nothing was read.\n"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site", **LINKED},
        {"sec-fetch-site": "same-site", **LINKED},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "none", **LINKED},
    ],
)
def test_a_link_and_our_own_pages_are_answered(reading: Any, headers: dict[str, str]) -> None:
    assert reading.get("/-/ledger", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/leads.db", "/leads%2edb", "/leads.db%0a", "/other/leads.db"])
def test_the_file_is_not_handed_out(told: Path, tmp_path: Path, path: str) -> None:
    """`datasette -i leads.db` would."""
    shutil.copyfile(told, tmp_path / "leads.db")
    datasette = Datasette(immutables=[str(tmp_path / "leads.db")])

    async def look() -> Any:
        await datasette.invoke_startup()
        return await datasette.client.get(path, headers={"host": "localhost"})

    answer = asyncio.run(look())
    datasette.databases["leads"].close()
    assert answer.status_code == 403
    assert "is not handed out" in answer.text


def test_control_datasette_hands_out_another_file(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    datasette = Datasette(immutables=[str(tmp_path / "other.db")])

    async def look() -> Any:
        await datasette.invoke_startup()
        return await datasette.client.get("/other.db")

    answer = asyncio.run(look())
    datasette.databases["other"].close()
    assert answer.content.startswith(b"SQLite format 3")


def test_a_websocket_is_closed(reading: Any) -> None:
    """Another plugin may speak it; it would pass without a look at the host."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "reached"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    gate = guarded(app, reading.datasette)
    for kind in ("websocket", "lifespan"):
        reading.loop.run(gate({"type": kind, "path": "/"}, None, send))
    assert [one["type"] for one in sent] == ["websocket.close", "reached"]


def test_a_post_from_our_own_page_reaches_the_form(reading: Any) -> None:
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    answer = reading.post("/-/ledger/do/retry", headers=headers, data={"ticket": "x"})
    assert answer.status_code == 400
    assert "not one of this server" in answer.text


def asked(reading: Any, path: str) -> tuple[int, str]:
    """Status and Location of a path exactly as a server hands it over; clients tidy such paths up first."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    reading.loop.run(reading.datasette.app()(scope, receive, send))
    headers = {bytes(name).lower(): bytes(value).decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers.get(b"location", "")


@pytest.mark.parametrize(
    "path",
    [
        "/\\evil.example/",
        "//evil.example/",
        "/%5cevil.example/",
        "/%2fevil.example/",
        "/leads/%5c%5cevil.example/",
    ],
)
def test_no_path_leads_to_another_host(reading: Any, path: str) -> None:
    status, location = asked(reading, path)
    assert not location.startswith(("//", "/\\", "http"))
    assert status == 403 or location == ""


def test_control_such_a_path_is_what_the_gate_stops(reading: Any) -> None:
    assert asked(reading, "/leads/jobs/")[0] in {200, 301, 302}


@pytest.mark.parametrize(
    "path", ["/", "/-/ledger", "/leads/jobs", "/leads/jobs.json", "/leads/costs.csv", "/nowhere"]
)
def test_every_answer_carries_the_policy(reading: Any, path: str) -> None:
    headers = reading.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    script = re.search(r"script-src ([^;]*)", policy)
    assert script is not None
    assert "unsafe" not in script.group(1)


def test_scripts_of_templates_run_and_no_others(reading: Any) -> None:
    seen = set()
    for path in ("/", "/leads", "/leads/jobs", "/leads/leads", "/leads/spend-by-day", "/-/ledger"):
        answer = reading.get(path)
        nonce = re.search(r"'nonce-([^']+)'", answer.headers["content-security-policy"])
        assert nonce is not None
        seen.add(nonce.group(1))
        scripts = re.findall(r"<script\b[^>]*>", answer.text)
        assert scripts, path
        assert all(f'nonce="{nonce.group(1)}"' in tag for tag in scripts), (path, scripts)
    assert len(seen) == 6, "a nonce is used once"


def test_parts() -> None:
    assert host_name("LocalHost.:80") == "localhost"
    assert host_name("[::1]:8001") == "::1"
    assert host_name("[") == ""
    scope = {"method": "GET", "path": "/", "headers": []}
    assert refusal(scope, NAMES) is not None
    scope["headers"] = [(b"Host", b"localhost")]
    assert refusal(scope, NAMES) is None
