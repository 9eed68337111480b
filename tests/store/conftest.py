"""A desk to work a ledger at: the verbs with the arguments that a test does not care about filled in."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ledger import events as ev
from ledger.api.delivery import read_delivery
from ledger.api.profile import Profile
from ledger.clock import to_text
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.states import State, StopReason
from ledger.store import inbox
from ledger.store.audit import audit
from ledger.store.claims import Claim, ClaimRules
from ledger.store.control import Chosen
from ledger.store.engine import sqlite3
from ledger.store.enqueue import Asked, Enqueued, Lacks
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import FakeClock

ROUTE = "enrich/websearch"
CEILING = 1_500_000
ORIGIN = "http://127.0.0.1:9"
PROFILE = Profile.load()


class Desk:
    """One open ledger and its clock."""

    route, ceiling, origin = ROUTE, CEILING, ORIGIN

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.path, self.clock = path, clock
        self.caps = Caps()
        self._loop = asyncio.Runner()
        self._remote = count(1)
        self._files = count(1)
        self.open()

    def open(self) -> None:
        read = partial(read_delivery, PROFILE)
        self.ledger = Ledger(self.path, "test", clock=self.clock, migrations=migrations, read_delivery=read)

    def close(self) -> None:
        self.ledger.close()
        self._loop.close()

    def run(self, work: Any) -> Any:
        return self._loop.run(work)

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.ledger.books.connection.execute(query, parameters).fetchall()

    def one(self, query: str, *parameters: object) -> Any:
        return self.sql(query, *parameters)[0][0]

    def elsewhere(self, query: str) -> list[tuple[Any, ...]]:
        """What another connection sees: only what is committed."""
        other = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        try:
            return other.execute(query).fetchall()
        finally:
            other.close()

    def row(self, number: int, *, contact: str | None = None, **said: Any) -> SourceRow:
        """A source row; `said` may hold lead fields, `extra`, `suppressed`, `problem` and `rejection`."""
        fields = {name: said.pop(name) for name in LEAD_FIELDS if name in said}
        if contact is not None:
            fields["contact_id"] = contact.partition(":")[2]
        keys = Keys(contact, fields.get("email"), fields.get("company"), fields.get("number1"))
        values = tuple(fields.get(name) for name in LEAD_FIELDS)
        return SourceRow(number, json.dumps(fields), values, keys, **said)

    def facts(self, sha256: str | None = None, **rest: Any) -> FileFacts:
        digest = f"sha-{next(self._files)}" if sha256 is None else sha256
        known = {"name": "leads.csv", "source": "file", "mapping": {"company": ["Company"]}, "unmapped": ()}
        known |= {"encoding": "utf-8", "delimiter": ",", "headers": ("Company", "E-Mail")}
        return FileFacts(sha256=digest, **(known | rest))

    def take(self, *rows: SourceRow, sha256: str | None = None) -> Any:
        return self.ledger.import_rows(self.facts(sha256), rows)

    def leads(self, number: int) -> None:
        """Import `number` new leads, called `company 1` and so on by their own number."""
        first = self.one("SELECT COUNT(*) FROM leads") + 1
        self.take(*(self.row(n, company=f"company {n}") for n in range(first, first + number)))

    def build(self, route: str, lead: Any) -> Asked | Lacks:
        if "company" not in lead:
            return Lacks(("company",))
        return Asked(json.dumps({"company": lead["company"]}), f"{route}:{lead['company']}")

    def begin(self, caps: Caps | None = None, **rest: Any) -> int:
        self.caps = caps or Caps()
        self.ledger.recover()
        return self.ledger.begin_run(origin=ORIGIN, settings={}, caps=self.caps, **rest)

    def enqueue(self, selection: Selection | None = None, route: str = ROUTE) -> Enqueued:
        return self.ledger.enqueue(route, "async", selection or Selection(), self.build)

    def ready(self, number: int, caps: Caps | None = None) -> None:
        """A run with `number` queued jobs of as many new leads."""
        self.leads(number)
        self.begin(caps)
        self.enqueue()

    def claim(self, limit: int = 1, ceiling: int = CEILING, route: str = ROUTE, mode: str = "async") -> Claim:
        return self.run(self.ledger.claim(ClaimRules(route, mode, ceiling, self.caps), limit))

    def record(self, job_id: int, event: ev.Event, *, fence: int | None = None, polls: int = 0) -> Any:
        at = self.one("SELECT attempt FROM jobs WHERE id = ?", job_id) if fence is None else fence
        return self.run(self.ledger.record(job_id, at, event, polls=polls))

    def die(self) -> None:
        """The process is gone and the next one opens the ledger: memory is lost, the file is not."""
        self.ledger.close()
        self.open()

    def state(self, job_id: int) -> str:
        return self.one("SELECT state FROM jobs WHERE id = ?", job_id)

    def costs(self, job_id: int) -> list[tuple[str, int]]:
        return self.sql(
            "SELECT c.kind, c.amount_microusd FROM costs c JOIN attempts a ON a.id = c.attempt_id "
            "WHERE a.job_id = ? ORDER BY c.id",
            job_id,
        )

    def steps(self, job_id: int) -> list[tuple[str, str, str]]:
        return self.sql(
            "SELECT from_state, to_state, reason FROM transitions WHERE job_id = ? ORDER BY id", job_id
        )

    def now(self) -> str:
        return to_text(self.clock.now())

    # --- the inbox ---

    def deliver(self, document: Any = None, *, item_id: str | None = None, **said: Any) -> Any:
        """Drop a delivery as the receiver does, and carry out what lies in the inbox."""
        document = {"event_type": "enrich.job_completed", **said} if document is None else document
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        body = inbox.delivery(raw, received_at=self.clock.now(), delivery_id=f"evt-{next(self._remote)}")
        inbox.drop(self.path, "delivery", body, item_id=item_id, now=self.clock.now())
        return self.ledger.take_inbox()

    def wish(self, kind: str, *, item_id: str | None = None, **named: Any) -> Any:
        """Drop a wish as the command line does, and carry out what lies in the inbox."""
        chosen = Chosen(**{"as_of": self.now(), **named})
        inbox.drop(self.path, kind, chosen.to_json(), item_id=item_id, now=self.clock.now())
        return self.ledger.take_inbox()

    def healthy(self) -> None:
        """Every invariant holds, asked as `audit` asks."""
        failed = audit(self.ledger.books.connection, migrations).failed
        assert not failed, failed

    # --- events ---

    def accepted(self, remote: str | None = None, bearer: str | None = "pb-secret") -> ev.Accepted:
        name = f"remote-{next(self._remote)}" if remote is None else remote
        secret = None if bearer is None else ev.Secret(bearer)
        return ev.Accepted(name, secret, "virtual_balance", ev.Answer("accepted", 202, '{"job_id": "x"}'))

    def verdict(self, cost: int | None = 420_000, state: State = State.MATCHED) -> ev.Verdict:
        failed = state is State.FAILED
        error = "PROVIDER_FAILED" if failed else None
        return ev.Verdict(state, state is State.MATCHED, not failed, None, cost, error, '{"found": 1}')

    def finished(self, cost: int | None = 420_000, state: State = State.MATCHED) -> ev.Finished:
        return ev.Finished(self.verdict(cost, state), ev.Answer("poll", 200, '{"status": "done"}'))

    def unknown(self) -> ev.Unknown:
        return ev.Unknown("read_timeout", None, None)

    def refused(self) -> ev.Refused:
        return ev.Refused(422, "BAD_INPUT", "no", ev.Answer("refused", 422, '{"error": "BAD_INPUT"}'))

    def throttled(self, retry_after_s: float | None = 30.0) -> ev.Throttled:
        return ev.Throttled(retry_after_s, ev.Answer("odd", 429, ""))

    def doubt(self, job_id: int) -> None:
        self.record(job_id, self.unknown())


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, closed ledger: copied, it opens in a tenth of the time that a new one takes."""
    path = tmp_path_factory.mktemp("template") / "leads.db"
    Ledger(path, "test", clock=FakeClock(), migrations=migrations).close()
    return path


@pytest.fixture(scope="session")
def new_desk(empty_ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Desk]:
    """Makes desks on ledgers of their own, also many in one test (hypothesis)."""
    folder = tmp_path_factory.mktemp("desks")
    number = count(1)

    def make() -> Desk:
        path = folder / f"leads-{next(number)}.db"
        shutil.copyfile(empty_ledger, path)
        path.chmod(0o600)
        return Desk(path, FakeClock())

    return make


@pytest.fixture
def desk(new_desk: Callable[[], Desk]) -> Iterator[Desk]:
    with ExitStack() as stack:
        made = new_desk()
        stack.callback(made.close)
        yield made


@pytest.fixture(scope="session")
def story_ledger(new_desk: Callable[[], Desk]) -> Path:
    """A closed ledger after an interrupted run: a job in every state it can leave.

    Job 1 matched, 2 waiting, 3 in doubt, 4 failed, 5 queued again, 6 lost, 7 skipped; 8 no_match.
    Row 9 of the file was rejected and row 10 is lead 1 again.
    """
    desk = new_desk()
    rows = [desk.row(n + 1, company=f"company {n}", suppressed=n == 7, city="Reno") for n in range(1, 9)]
    rows.append(desk.row(10, company="company 1"))
    rows.append(desk.row(11, rejection=("Company", "empty")))
    desk.take(*rows)
    desk.begin(Caps(chain_microusd=100_000_000))
    desk.enqueue()
    desk.claim(10)
    for job_id in (1, 2, 8):
        desk.record(job_id, desk.accepted())
    desk.clock.advance(20)
    desk.record(1, desk.finished(), polls=2)
    desk.record(8, desk.finished(0, State.NO_MATCH), polls=1)
    desk.doubt(3)
    desk.doubt(6)
    desk.record(4, desk.refused())
    desk.record(5, desk.throttled())
    desk.ledger.write_off(desk.ledger.doubts(6), resend=False)
    desk.ledger.end_run(StopReason.INTERRUPTED)
    desk.close()
    return desk.path


@pytest.fixture
def story(story_ledger: Path, tmp_path: Path) -> Path:
    """A copy of the story, to read or to break."""
    path = tmp_path / "story.db"
    shutil.copyfile(story_ledger, path)
    path.chmod(0o600)
    return path
