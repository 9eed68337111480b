"""Thousands of webhook deliveries, signed and forged, against a real `leadledger browse`.

    python tests/campaigns/webhooks.py [--cases 2000] [--seed 1]

Schemathesis makes the requests from a schema; a hook signs the bytes that really leave, most of them rightly.
A rightly signed delivery of at most 64 KiB is acknowledged and on disk, everything else gets the one refusal,
and nothing is a server's error. In the end the ledger takes everything in. Control: with a receiver that has
no secret, nothing may be acknowledged.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
import totals

from ledger.api.profile import Profile
from ledger.cli.wiring import open_ledger
from ledger.clock import SystemClock
from ledger.store import inbox

SECRETS = ("ech_campaign_new_1", "ech_campaign_old_2")
CONTROL = 20
"""Deliveries that a receiver without a secret must refuse."""
PATH = "/-/ledger/webhooks/411data"
TEXT = {"type": "string"}
MONEY = {"anyOf": [{"type": "number"}, TEXT, {"type": "null"}]}
RESULT = {"type": "object", "properties": {"matched": {"type": "boolean"}, "summary_markdown": TEXT}}
EVENT = {
    "type": "object",
    "properties": {
        "id": TEXT,
        "event_type": {
            "enum": ["enrich.job_completed", "enrich.no_match", "lead.session_completed", "new.one"]
        },
        "job_id": {"anyOf": [{"enum": ["job_1", "job_2"]}, TEXT]},
        "status": {"anyOf": [{"enum": ["completed", "failed", "running"]}, TEXT]},
        "charged_usd": MONEY,
        "result": RESULT,
        "data": {"type": "object"},
    },
}
SCHEMA = {
    "openapi": "3.1.0",
    "info": {"title": "webhooks", "version": "1"},
    "paths": {
        PATH: {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"anyOf": [EVENT, {}]}},
                        "text/plain": {"schema": TEXT},
                    },
                },
                "responses": {"204": {"description": "on disk"}, "401": {"description": "refused"}},
            }
        }
    },
}


@contextmanager
def receiver(db: Path, *secrets: str) -> Iterator[str]:
    """A `leadledger browse` of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEADLEDGER_")}
    command = [sys.executable, "-m", "ledger.cli", "--db", str(db), "browse", "--port", "0", "--json"]
    environment = {**ours, "LEADLEDGER_WEBHOOK_SECRET": " ".join(secrets)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"].removesuffix("/-/ledger")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


class Sender:
    """Signs and sends, and keeps count."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url, self.chance, self.session = url, chance, requests.Session()
        self.counts: Counter[str] = Counter()
        self.bad: list[dict[str, Any]] = []
        self.kept: set[bytes] = set()

    def sign(self, body: bytes, how: str) -> str | None:
        """The header of a delivery: right, or wrong in one of the usual ways."""
        secret = {"new": SECRETS[0], "old": SECRETS[1]}.get(how, "ech_somebody_else")
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return {
            "none": None,
            "cut": f"sha256={digest[:-1]}",
            "upper": f"sha256={digest.upper()}",
            "other text": f"sha256={hmac.new(SECRETS[0].encode(), body + b' ', hashlib.sha256).hexdigest()}",
        }.get(how, f"sha256={digest}")

    def send(self, case: schemathesis.Case) -> None:
        """One case: the hook signs the bytes as they leave."""
        request = self.session.prepare_request(requests.Request(**case.as_transport_kwargs(self.url)))
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        how = self.chance.choices(
            ["new", "old", "forged", "none", "cut", "upper", "other text", "long"], [50, 20, 8, 6, 4, 4, 4, 4]
        )[0]
        if how == "long":
            body += b" " * inbox.BODY_BYTES_MAX + b"x"
            request.body, request.headers["Content-Length"] = body, str(len(body))
        signature = self.sign(body, "new" if how == "long" else how)
        if signature is not None:
            request.headers["X-411data-Signature"] = signature
        right = how in {"new", "old"} and len(body) <= inbox.BODY_BYTES_MAX
        again = 2 if right and self.chance.random() < 0.1 else 1  # a replay
        for _ in range(again):
            self.judge(request, how, right)
        if right:
            self.kept.add(body)

    def judge(self, request: requests.PreparedRequest, how: str, right: bool) -> None:
        try:
            answer = self.session.send(request, timeout=10)
            got = (answer.status_code, answer.text)
        except requests.ConnectionError:
            got = (
                (401, "no\n") if how == "long" else (0, "the connection broke")
            )  # it need not read all of it
        self.counts["cases"] += 1
        self.counts["accepted" if got[0] == 204 else "refused"] += 1
        self.counts["server_errors"] += got[0] >= 500 or got[0] == 0
        if got != ((204, "") if right else (401, "no\n")):
            self.bad.append({"how": how, "got": got, "body": repr(request.body)[:200]})


def campaign(cases: int, seed: int) -> dict[str, Any]:
    """Send, then let the ledger take everything in."""
    operation = schemathesis.openapi.from_dict(SCHEMA)[PATH]["POST"]
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "leads.db"
        with open_ledger(db, "test", SystemClock(), create=True):
            pass
        with receiver(db, *SECRETS) as url:
            sender = Sender(url, random.Random(seed))

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=cases,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy())
            def deliver(case: schemathesis.Case) -> None:
                sender.send(case)

            deliver()
        items = [inbox.read(path) for path in inbox.waiting_in(inbox.inbox_path(db), 10 * cases)]
        on_disk = {
            item.body["raw"].encode("utf-8", "surrogateescape")
            for item in items
            if isinstance(item, inbox.Item)
        }
        if on_disk != sender.kept or len(items) != len(on_disk):
            sender.bad.append(
                {"on_disk": len(on_disk), "acknowledged": len(sender.kept), "files": len(items)}
            )
        taken = take_in(db)
        control = silent(db, sender.kept)
    return {
        "campaign": "webhooks",
        "seed": seed,
        **sender.counts,
        "different": len(sender.kept),
        "taken_in": taken,
        "control_refused": control,
        "bad": sender.bad,
    }


def take_in(db: Path) -> int:
    """How many deliveries the ledger keeps, having read every one of them."""
    with open_ledger(db, "test", SystemClock(), profile=Profile.load()) as ledger:
        while ledger.take_inbox():
            continue
        return int(ledger.books.connection.execute("SELECT COUNT(*) FROM deliveries").fetchone()[0])


def silent(db: Path, bodies: set[bytes]) -> int:
    """How many of some deliveries a receiver without a secret refuses: all of them."""
    refused = 0
    with receiver(db) as url:
        for body in list(bodies)[:CONTROL]:
            digest = hmac.new(SECRETS[0].encode(), body, hashlib.sha256).hexdigest()
            headers = {"X-411data-Signature": f"sha256={digest}"}
            refused += not requests.post(url + PATH, body, headers=headers, timeout=10).ok
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, jobs=False)
    parser.add_argument("--cases", type=int, default=2000)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    result = campaign(wanted.cases, wanted.seed)
    bad = result.pop("bad")
    enough = result["cases"] >= wanted.cases and result["accepted"] * 2 >= result["cases"]
    failed = "" if enough else "too few cases, or most of them refused"
    if result["taken_in"] != result["different"] or result["server_errors"]:
        failed = "a delivery was not taken in, or the receiver failed"
    if result["control_refused"] != CONTROL:
        failed = "a receiver without a secret acknowledged a delivery"
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
