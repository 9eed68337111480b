"""Signed webhook deliveries: what the provider pushes when a job is done, and all that can go wrong with it.

What was pushed stays in a list that tests read (`GET /sandbox/deliveries`); with a callback URL it is also
POSTed there, once, to a loopback address only.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import json
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.sandbox import speech
from ledger.sandbox.books import Submission
from ledger.sandbox.faults import Faults
from ledger.sandbox.settings import Settings

HEADER: Final = "X-411data-Signature"
POST_S: Final = 10.0
"""A receiver that has not answered by then is counted as not reached."""


@dataclass(slots=True)
class Pushed:
    """One delivery as it left."""

    number: int
    remote_job_id: str
    at_s: float
    body: str
    signature: str
    fault: str | None = None
    status: int | None = None
    """What the callback URL answered; None while it has not, or where there is none."""

    def shown(self) -> dict[str, Any]:
        """For `/sandbox/deliveries`: the body as text, as it was signed."""
        return {
            "number": self.number,
            "remote_job_id": self.remote_job_id,
            "at_s": self.at_s,
            "headers": {HEADER: self.signature, "Content-Type": "application/json"},
            "body": self.body,
            "fault": self.fault,
            "status": self.status,
        }


@dataclass
class Hooks:
    """Decides what is pushed, and when. Times are virtual seconds."""

    faults: Faults
    pushed: list[Pushed] = field(default_factory=list)
    _due: list[tuple[float, int, Pushed]] = field(default_factory=list)
    _number: int = 0

    def completed(self, settings: Settings, submission: Submission, at_s: float) -> None:
        """An async job is final: push its event, unless deliveries are off."""
        if not settings.deliveries or submission.mode != "async":
            return
        key = submission.key
        if self.faults.fires("delivery_lost", key):
            return
        if self.faults.fires("delivery_other_job", key):
            self._push(self._made(settings, submission, at_s, stranger=True), at_s)
        one = self._made(settings, submission, at_s)
        if self.faults.fires("delivery_forged", key):
            forged = _signature("not the secret", one.body)
            self._push(replace(one, signature=forged, fault="delivery_forged"), at_s)
            one = self._made(settings, submission, at_s)
        if self.faults.fires("delivery_late", key):
            at_s += settings.delivery_late_s
            one.fault = "delivery_late"
        self._push(one, at_s)
        if self.faults.fires("delivery_twice", key):
            self._push(replace(one, fault="delivery_twice"), at_s)

    def _made(
        self, settings: Settings, submission: Submission, at_s: float, *, stranger: bool = False
    ) -> Pushed:
        self._number += 1
        polled = speech.polled(settings.speech, submission)
        if settings.delivery_shape == "bare":
            polled = {"job_id": submission.remote_job_id}
        if submission.correlation is not None and not stranger:
            polled["source_ref"] = submission.correlation
        if stranger:
            polled["job_id"] = f"job_stranger_{self._number}"
        job = {"route": submission.route, **polled}
        body = {"id": f"evt_{self._number}", "event_type": "enrich.job_completed"}
        text = json.dumps({**body, "data": job} if settings.delivery_shape == "data" else {**body, **job})
        fault = "delivery_other_job" if stranger else None
        signature = _signature(settings.signing_secret, text)
        return Pushed(self._number, polled["job_id"], at_s, text, signature, fault)

    def _push(self, one: Pushed, at_s: float) -> None:
        one.at_s = at_s
        heapq.heappush(self._due, (at_s, len(self.pushed) + len(self._due), one))

    def catch_up(self, now_s: float) -> None:
        """Push what is due by now, in the order of its times."""
        while self._due and self._due[0][0] <= now_s:
            self.pushed.append(heapq.heappop(self._due)[2])


def _signature(secret: str, body: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


async def post(url: str, one: Pushed) -> None:
    """POST a delivery to a loopback URL, once; its `status` says what came back (0: nothing)."""
    try:
        one.status = await asyncio.wait_for(_post(url, one), POST_S)
    except (OSError, ValueError, TimeoutError):
        one.status = 0


async def _post(url: str, one: Pushed) -> int:
    where = urlsplit(url)
    body = one.body.encode()
    head = (
        f"POST {where.path or '/'}{'?' + where.query if where.query else ''} HTTP/1.1\r\n"
        f"Host: {where.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{HEADER}: {one.signature}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    try:
        writer.write(head.encode("latin-1") + body)
        await writer.drain()
        return int(HTTPStatus(int((await reader.readline()).split()[1])))
    except IndexError:
        return 0
    finally:
        writer.close()
