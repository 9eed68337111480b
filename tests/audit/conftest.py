"""A ledger in which everything has happened, made by the real verbs, and a way to break a copy of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
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
from ledger.policy import Policy
from ledger.states import State, StopReason
from ledger.store import inbox
from ledger.store.audit import Audit, audit
from ledger.store.claims import Claim, ClaimRules
from ledger.store.connect import Connection
from ledger.store.control import Chosen
from ledger.store.engine import sqlite3
from ledger.store.enqueue import Asked
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection
from ledger.testing import FakeClock

ROUTE = "enrich/websearch"
SYNC = "enrich/phone"
PERSON = "enrich/person"
PROFILE = Profile.load()
CEILING = 1_500_000
OPENING = 1_000_000_000
WIDE = Caps(400_000_000, 400_000_000, 90_000_000, 900_000_000)


def build(route: str, lead: Any) -> Asked:
    return Asked(json.dumps(dict(lead)), f"{route}:{lead['company']}")


class World:
    """One open ledger, and the verbs with the arguments that nobody here cares about filled in."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, FakeClock()
        self.caps = WIDE
        self.loop = asyncio.Runner()
        self.numbers = count(1)
        self.open()

    def open(self) -> None:
        self.ledger = Ledger(
            self.path,
            "test",
            clock=self.clock,
            migrations=migrations,
            policy=Policy(),
            read_delivery=partial(read_delivery, PROFILE),
        )
        self.ledger.books.connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here

    def die(self) -> None:
        self.ledger.close()
        self.open()

    def close(self) -> None:
        self.ledger.close()
        self.loop.close()

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.ledger.books.connection.execute(query, parameters).fetchall()

    def take(self, *companies: str | None) -> None:
        """Import a file; None is a row that is rejected, and a name in capitals one that opted out."""
        rows = []
        for number, name in enumerate(companies, 2):
            fields = tuple(name if field in {"company", "email"} else None for field in LEAD_FIELDS)
            keys = Keys(None, None if name is None else name.lower(), None, None)
            raw = json.dumps({"Company": name})
            rows.append(
                SourceRow(number, raw, fields, keys, rejection=("Company", "empty"))
                if name is None
                else SourceRow(number, raw, fields, keys, suppressed=name.isupper())
            )
        sha256 = f"sha-{next(self.numbers)}"
        self.ledger.import_rows(FileFacts("leads.csv", sha256, "file", {}, (), "utf-8", ","), rows)

    def begin(self, caps: Caps = WIDE, **rest: Any) -> None:
        self.caps = caps
        self.ledger.recover()
        self.ledger.begin_run(origin="http://127.0.0.1:9", settings={"limit": None}, caps=caps, **rest)

    def note_opening(self) -> None:
        self.ledger.note_balance("opening", ev.Balance(OPENING, 1))

    def expected(self) -> int:
        return self.ledger.balance_gap(ev.Balance(0, 1)).expected_microusd or 0

    def enqueue(self, selection: Selection | None = None, route: str = ROUTE) -> None:
        self.ledger.enqueue(route, "async", selection or Selection(), build)

    def claim(self, limit: int = 1, route: str = ROUTE, ceiling: int = CEILING) -> Claim:
        return self.loop.run(self.ledger.claim(ClaimRules(route, "async", ceiling, self.caps), limit))

    def record(self, job_id: int, *events: ev.Event) -> None:
        for event in events:
            self.clock.advance(1)
            fence = self.sql("SELECT attempt FROM jobs WHERE id = ?", job_id)[0][0]
            self.loop.run(self.ledger.record(job_id, fence, event))

    def deliver(self, **said: Any) -> None:
        raw = json.dumps({"event_type": "enrich.job_completed", "id": next(self.numbers), **said}).encode()
        body = inbox.delivery(raw, received_at=self.clock.now(), delivery_id=None)
        inbox.drop(self.path, "delivery", body, now=self.clock.now())
        self.ledger.take_inbox()

    def wish(self, kind: str, **named: Any) -> None:
        self.clock.advance(1)
        body = Chosen(**{"as_of": to_text(self.clock.now()), **named}).to_json()
        inbox.drop(self.path, kind, body, now=self.clock.now())
        self.ledger.take_inbox()

    def key(self, job_id: int) -> str:
        return str(self.sql("SELECT idempotency_key FROM attempts WHERE job_id = ?", job_id)[0][0])

    def accepted(self) -> ev.Accepted:
        number = next(self.numbers)
        answer = ev.Answer("accepted", 202, '{"poll_bearer": "[cut]"}')
        return ev.Accepted(f"remote-{number}", ev.Secret(f"pb-{number:032}"), "virtual_balance", answer)

    def finished(self, cost: int | None = 420_000, state: State = State.MATCHED) -> ev.Finished:
        return ev.Finished(_verdict(cost, state), ev.Answer("poll", 200, '{"status": "completed"}'))

    def answered(self, cost: int | None = 400_000, state: State = State.MATCHED) -> ev.Answered:
        return ev.Answered(_verdict(cost, state), ev.Answer("answered", 200, '{"ok": true}'))

    def forget(self, lead_id: int) -> None:
        """What a `forget` leaves: done by hand, through the guards."""
        empty = ", ".join(f"{name} = NULL" for name in (*LEAD_FIELDS, "extra"))
        keys = ", ".join(f"{kind}_key = NULL" for kind in ("contact", "email", "place", "phone"))
        of_jobs = "(SELECT id FROM jobs WHERE lead_id = ?)"
        self.sql(f"UPDATE leads SET {empty}, {keys}, forgotten_at = created_at WHERE id = ?", lead_id)
        self.sql("UPDATE source_rows SET raw = NULL WHERE lead_id = ?", lead_id)
        self.sql("UPDATE jobs SET request = NULL WHERE lead_id = ?", lead_id)
        self.sql(f"UPDATE results SET body = NULL WHERE job_id IN {of_jobs}", lead_id)
        attempts = f"(SELECT id FROM attempts WHERE job_id IN {of_jobs})"
        self.sql(f"UPDATE answers SET body = NULL WHERE attempt_id IN {attempts}", lead_id)


def _verdict(cost: int | None, state: State) -> ev.Verdict:
    failed = state is State.FAILED
    return ev.Verdict(state, state is State.MATCHED, not failed, None, cost, "X" if failed else None, "{}")


def unknown() -> ev.Unknown:
    return ev.Unknown("read_timeout", None, ev.Answer("odd", 504, "gateway"))


def everything_happens(world: World) -> None:
    """Every outcome and every way out of a doubt, over five runs and three budget chains."""
    world.take(*(f"company {n}" for n in range(1, 24)), None, "company 1", "OPTED OUT")
    world.take("company 2", "company 24")
    _first_run(world)
    _second_run(world)
    _later_runs(world)
    world.forget(2)


def _first_run(world: World) -> None:
    world.begin()
    world.note_opening()
    world.enqueue(Selection(limit=22))
    world.claim(19)
    refused = ev.Answer("refused", 422, "{}")
    world.record(1, world.accepted(), world.finished())
    world.record(2, world.accepted(), world.finished(0, State.NO_MATCH))
    world.record(3, world.accepted(), world.finished(0, State.FAILED))
    world.record(4, ev.Refused(422, "BAD_INPUT", "no", refused))
    world.record(5, ev.Throttled(30.0, refused))
    world.record(6, ev.NotSent("connect_error"))
    world.record(7, ev.NoMoney("PAYMENT_REQUIRED", "top up", refused))
    world.record(8, ev.NotAllowed(401, "INVALID_TOKEN", "no", refused))
    world.record(9, world.accepted(), world.finished(CEILING + 100_000))  # above the ceiling: an adjust
    world.record(10, world.accepted(), world.finished(None))  # no cost stated: assumed
    gone = ev.BecameUnreachable("no poll answered")
    running = ev.StillRunning("running", known=True, answer=None)
    world.record(11, world.accepted(), gone, running, world.finished())
    world.record(12, world.accepted(), gone, world.finished())
    world.record(13, world.accepted(), gone)
    world.ledger.write_off(world.ledger.doubts(13), resend=False)
    world.record(13, world.finished())  # a late answer, with an adjust below zero
    world.record(14, unknown(), ev.SameKeyResend(), world.accepted(), world.finished())
    world.record(15, unknown())
    world.ledger.accept(world.ledger.doubts(15)[0], "found-by-person", None)
    world.record(15, world.finished())
    world.record(16, unknown())
    world.ledger.write_off(world.ledger.doubts(16), resend=False)
    world.record(17, unknown())
    world.ledger.write_off(world.ledger.doubts(17), resend=True)
    world.record(20, ev.Cancel())
    world.record(18, world.accepted())
    world.die()  # 18 waits, 19 was in the air


def _second_run(world: World) -> None:
    """Goes on in the first one's chain: 19 is the only doubt, and the audit says what it cost."""
    world.clock.advance(100)
    world.begin()
    world.record(18, world.finished())
    reading = ev.Balance(world.expected() - 300_000, 1)
    world.ledger.prove_charged(reading, world.ledger.doubts()[0], 300_000, "audit: 0.30 is gone")
    world.enqueue(Selection(lead_ids=(5, 6, 7)))
    world.claim(3)
    world.record(5, world.accepted(), world.finished())
    world.record(6, unknown())
    world.record(7, unknown())
    world.ledger.prove_free(ev.Balance(world.expected(), 1), "audit: gap 0")
    world.claim(2)
    world.record(6, unknown())
    world.record(7, unknown())
    world.ledger.note_balance("audit", ev.Balance(world.expected() - 500_000, 1), "0.50 is gone")
    world.ledger.write_off(world.ledger.doubts(), resend=False)  # one amount for both: unattributed
    world.ledger.top_up(5_000_000)
    world.enqueue(Selection(lead_ids=(1, 3, 4)), SYNC)
    world.claim(3, SYNC)
    ids = [row[0] for row in world.sql("SELECT id FROM jobs WHERE route = ? ORDER BY id", SYNC)]
    world.record(ids[0], world.answered())
    world.record(ids[1], world.answered(0, State.NO_MATCH))
    world.record(ids[2], world.answered(0, State.FAILED))
    _deliveries_and_wishes(world)
    world.ledger.end_run(StopReason.FINISHED)


def _deliveries_and_wishes(world: World) -> None:
    """A doubt, a waiting job and a lost one settled by deliveries, one that is nobody's; every wish once."""
    world.enqueue(Selection(lead_ids=(8, 9, 10, 11, 12)), PERSON)
    world.claim(4, PERSON)
    doubt, waiting, lost, sync, last = (
        row[0] for row in world.sql("SELECT id FROM jobs WHERE route = ? ORDER BY id", PERSON)
    )
    result = {"status": "completed", "charged_usd": 0.3, "result": {"matched": True}}
    for job_id in (doubt, lost, sync):
        world.record(job_id, unknown())
    world.record(waiting, world.accepted())
    world.ledger.write_off(world.ledger.doubts(lost), resend=False)
    world.deliver(job_id="delivered-1", source_ref=world.key(doubt))
    world.deliver(job_id="delivered-1", **result)
    world.deliver(
        job_id=world.sql("SELECT remote_job_id FROM attempts WHERE job_id = ?", waiting)[0][0], **result
    )
    world.deliver(job_id="delivered-2", source_ref=world.key(lost), **result)
    world.deliver(source_ref=world.key(sync), **result)
    world.deliver(job_id="nobody-knows-it", **result)
    world.wish("pause", job_ids=(last,))
    world.wish("resume", job_ids=(last,))
    world.wish("cancel", job_ids=(last,))
    world.wish("retry", job_ids=(last,))
    world.wish("suppress", lead_ids=(12,))


def _later_runs(world: World) -> None:
    """A chain that leaves holds open, one that begins a new budget beside them, and one still running."""
    day_s = 86_400
    world.clock.advance(day_s)
    world.begin()
    world.enqueue()
    world.claim(3)
    first, second, third = (row[0] for row in world.sql("SELECT id FROM jobs WHERE state = 'submitting'"))
    world.record(first, world.accepted())
    world.record(second, unknown())
    world.record(third, world.accepted(), world.finished())
    world.ledger.end_run(StopReason.INTERRUPTED)
    world.clock.advance(day_s)
    world.begin(Caps(30_000_000), new_budget=True)
    world.enqueue()
    world.claim(1)
    submitting = world.sql("SELECT id FROM jobs WHERE state = 'submitting'")[0][0]
    world.record(submitting, world.accepted(), world.finished())
    world.ledger.end_run(StopReason.INTERRUPTED)
    world.begin()
    world.enqueue()
    world.claim(1)


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, closed ledger to copy."""
    path = tmp_path_factory.mktemp("empty") / "leads.db"
    Ledger(path, "test", clock=FakeClock(), migrations=migrations).close()
    return path


@pytest.fixture(scope="session")
def new_world(empty_ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    folder = tmp_path_factory.mktemp("worlds")
    number = count(1)

    def make() -> World:
        path = folder / f"leads-{next(number)}.db"
        shutil.copyfile(empty_ledger, path)
        path.chmod(0o600)
        return World(path)

    return make


@pytest.fixture
def world(new_world: Callable[[], World]) -> Iterator[World]:
    with closing(new_world()) as made:
        yield made


@pytest.fixture(scope="session")
def healthy(new_world: Callable[[], World]) -> Path:
    """The closed file of a ledger to which everything has happened."""
    world = new_world()
    everything_happens(world)
    world.close()
    return world.path


@pytest.fixture
def copy(healthy: Path) -> Iterator[Connection]:
    """The healthy ledger in memory, to break."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with closing(memory), closing(sqlite3.connect(healthy)) as file:
        file.backup(memory)
        yield memory


@pytest.fixture
def check() -> Callable[[Connection], Audit]:
    return lambda connection: audit(connection, migrations)
