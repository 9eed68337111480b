"""The webhook receiver: `POST /-/ledger/webhooks/411data`, answered before Datasette sees it.

Anybody may reach it through a tunnel, so it gives nothing away: every refusal is the same answer, whether
the signature is wrong, missing, or there is nothing to receive for. A delivery counts when it is on disk: it
goes into the inbox, synced, before the 2xx; the holder of the ledger applies it, and it never settles more
than a poll would (DESIGN section 3). What the signature covers is assumed (provider notes, section 14):
lower-case hex HMAC-SHA256 over the raw body, keyed with the whole `signing_secret`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from ledger.browse.asgi import Receive, Scope, Send, answer, read_body
from ledger.browse.outside import Outside
from ledger.errors import LeadledgerError
from ledger.events import Secret
from ledger.store.inbox import BODY_BYTES_MAX, delivery, drop, inbox_path

PATH: Final = "/-/ledger/webhooks/411data"
SIGNATURE_HEADER: Final = b"x-411data-signature"
_SIGNATURE: Final = re.compile(rb"sha256=([0-9a-f]{64})")
_SIGNATURES_MAX: Final = 8
"""Signatures looked at in one request: a sender may sign with the old secret and the new one."""
_DELIVERY_ID_MAX: Final = 200


async def receive(scope: Scope, receive: Receive, send: Send, ledger: Path, outside: Outside) -> None:
    """Answer one request: 204 once the delivery is on disk, 401 for every refusal, 503 for a full disk."""
    body = await read_body(receive, BODY_BYTES_MAX) if scope["method"] == "POST" else None
    if body is None or not signed(body, scope["headers"], outside.webhook_secrets):
        await answer(send, 401, "no\n")
        return
    try:
        await asyncio.to_thread(keep, ledger, body, outside.clock.now())
    except LeadledgerError:
        await answer(send, 503, "later\n")
        return
    await answer(send, 204, "")


def keep(ledger: Path, body: bytes, now: datetime) -> None:
    """Put a delivery whose signature is right into the inbox.

    The same bytes again are the same item: applied once, however often it comes, and kept once while it
    waits, so that a replay does not fill the disk.

    Raises:
        DiskTrouble: It is not on disk.
    """
    item_id = "delivery-" + hashlib.sha256(body).hexdigest()[:40]
    if any(inbox_path(ledger).glob(f"*{item_id}.json")):
        return
    item = delivery(body, received_at=now, delivery_id=_delivery_id(body))
    drop(ledger, "delivery", item, item_id=item_id, now=now)


def signed(body: bytes, headers: Iterable[tuple[bytes, bytes]], keys: tuple[Secret, ...]) -> bool:
    """True when one of the signatures is one of the secrets' over these very bytes.

    Every pair is compared, in constant time, so that neither the secret nor its number can be timed.
    """
    given = [value for name, value in headers if name.lower() == SIGNATURE_HEADER]
    found = _SIGNATURE.findall(b" ".join(given))[:_SIGNATURES_MAX]
    right = [hmac.new(key.reveal().encode(), body, hashlib.sha256).hexdigest().encode() for key in keys]
    alike = [hmac.compare_digest(one, other) for one in found for other in right]
    return any(alike)


def _delivery_id(body: bytes) -> str | None:
    """The sender's own id of this delivery, if it has one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    named = (value.get(name) for name in ("id", "event_id", "delivery_id"))
    return next((text for text in named if isinstance(text, str) and text), "")[:_DELIVERY_ID_MAX] or None
