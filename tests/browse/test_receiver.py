"""The webhook receiver: what is taken in, what is refused, and that both say nothing more."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from ledger.browse import receiver
from ledger.browse.asgi import read_body
from ledger.events import Secret
from ledger.store.inbox import BODY_BYTES_MAX

PATH = receiver.PATH
SECRET, OLDER = "ech_needle_77aa", "ech_older_needle"
BODY = json.dumps({"id": "evt_1", "event_type": "enrich.job_completed", "job_id": "remote-2"}).encode()


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def send(site: Any, body: bytes, signature: str | None, **headers: str) -> Any:
    given = {} if signature is None else {"x-411data-signature": signature}
    return site.post(PATH, content=body, headers={**given, **headers})


def test_a_signed_delivery_is_on_disk_before_it_is_acknowledged(site: Any) -> None:
    answer = send(site, BODY, sign(BODY))
    assert (answer.status_code, answer.text) == (204, "")
    (item,) = site.waiting()
    assert item["kind"] == "delivery"
    assert item["body"]["raw"] == BODY.decode()
    assert item["body"]["verified"] is True
    assert item["body"]["delivery_id"] == "evt_1"
    folder = site.path.with_name("leads.db.inbox")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())] == [0o700, 0o600]


def test_either_secret_is_good_while_one_replaces_the_other(site: Any) -> None:
    other = BODY.replace(b"evt_1", b"evt_2")
    assert send(site, BODY, sign(BODY, OLDER)).status_code == 204
    assert send(site, other, f"{sign(other, 'ech_unknown')}, {sign(other)}").status_code == 204
    assert len(site.waiting()) == 2


def test_it_comes_from_anywhere_and_under_any_name(site: Any) -> None:
    """A delivery comes through a tunnel: its Host is another, and no browser sent it."""
    answer = send(site, BODY, sign(BODY), host="hooks.example.com", **{"sec-fetch-site": "cross-site"})
    assert answer.status_code == 204


def test_duplicates_and_replays_are_one_item(site: Any) -> None:
    for _ in range(5):
        assert send(site, BODY, sign(BODY)).status_code == 204
    assert len(site.waiting()) == 1


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        sign(BODY, "ech_wrong"),
        sign(BODY).upper(),
        sign(BODY).removeprefix("sha256="),
        sign(BODY)[:-1],
        "sha1=" + "0" * 40,
        sign(BODY + b" "),
        "sha256=é",
        ", ".join([*["sha256=" + "0" * 64] * 20, sign(BODY)]),
    ],
)
def test_every_refusal_is_the_same(site: Any, signature: str | None) -> None:
    given = {} if signature is None else {"x-411data-signature": signature.encode("latin-1")}
    answer = site.post(PATH, content=BODY, headers=given)
    assert (answer.status_code, answer.text) == (401, "no\n")
    assert dict(answer.headers) == dict(site.get(PATH).headers)
    assert site.waiting() == []


def test_too_long_is_refused_and_not_read_on(site: Any) -> None:
    exact = b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"'
    assert send(site, exact, sign(exact)).status_code == 204
    longer = exact + b" "
    assert send(site, longer, sign(longer)).status_code == 401
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 16_384, "more_body": True}

    assert site.loop.run(read_body(receive, BODY_BYTES_MAX)) is None
    assert read == 5


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options", "patch"])
def test_only_post_is_received(site: Any, method: str) -> None:
    assert site.request(method, PATH).status_code == 401
    assert site.waiting() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"id": "\\ud800"}',
    ],
)
def test_odd_bodies_are_kept_as_they_came(site: Any, body: bytes) -> None:
    assert send(site, body, sign(body)).status_code == 204
    (item,) = site.waiting()
    assert item["body"]["raw"].encode("utf-8", "surrogateescape") == body


def test_a_long_delivery_id_does_not_push_the_item_over_its_bound(site: Any) -> None:
    body = json.dumps({"id": "\u2028" * 10_000}, ensure_ascii=False).encode()
    assert send(site, body, sign(body)).status_code == 204
    assert len(site.waiting()[0]["body"]["delivery_id"]) == 200


def test_what_cannot_be_stored_is_not_acknowledged(site: Any) -> None:
    site.path.with_name("leads.db.inbox").write_text("in the way")
    answer = send(site, BODY, sign(BODY))
    assert (answer.status_code, answer.text) == (503, "later\n")


def test_without_a_secret_nothing_is_signed() -> None:
    assert not receiver.signed(BODY, [(receiver.SIGNATURE_HEADER, sign(BODY, "").encode())], ())
    assert receiver.signed(BODY, [(b"X-411data-Signature", sign(BODY).encode())], (Secret(SECRET),))


def test_the_same_delivery_is_kept_once_more_after_it_was_taken_in(site: Any) -> None:
    """What was applied is recognised by its id, not by the file: here only the waiting file counts."""
    send(site, BODY, sign(BODY))
    for path in Path(site.path.with_name("leads.db.inbox")).iterdir():
        path.unlink()
    send(site, BODY, sign(BODY))
    assert len(site.waiting()) == 1
