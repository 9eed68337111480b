"""A ledger with something of everything in it, planted needles, and Datasette serving it."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ledger import events as ev
from ledger.browse import compat, outside
from ledger.browse.outside import Outside
from ledger.clock import SystemClock
from ledger.events import Secret
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.states import State, StopReason
from ledger.store.claims import ClaimRules
from ledger.store.enqueue import Asked, Lacks
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.read import Reader
from ledger.store.selection import Selection
from ledger.testing import FakeClock

ROUTE = "enrich/websearch"
CEILING = 1_500_000
CAPS = Caps(chain_microusd=100_000_000)
BEARER = "pb-needle-4f1c9"
SIGNING_SECRET = "ech_needle_77aa"
NASTY = "<script>alert(1)</script>"
TURNED = "Ev\u202eil \u200bLtd"


class Story:
    """Writes a ledger's life, verb by verb."""

    def __init__(self, path: Path, clock: FakeClock, purpose: str = "test") -> None:
        self.path, self.clock = path, clock
        self.ledger = Ledger(path, purpose, clock=clock, migrations=migrations)
        self._loop = asyncio.Runner()

    def close(self) -> None:
        self.ledger.close()
        self._loop.close()

    def leads(self, names: list[str], file_name: str = "leads.csv", **said: Any) -> None:
        rows = []
        for number, name in enumerate(names, start=2):
            given = {"company": name, "city": "Reno", **said}
            values = tuple(given.get(one) for one in LEAD_FIELDS)
            keys = Keys(None, None, name.lower(), None)
            rows.append(SourceRow(number, json.dumps({"Company": name}), values, keys))
        facts = FileFacts(file_name, f"sha-{file_name}", "file", {"company": ["Company"]}, (), "utf-8", ",")
        self.ledger.import_rows(facts, rows)

    def begin(self, caps: Caps = CAPS, **rest: Any) -> int:
        self.ledger.recover()
        return self.ledger.begin_run(
            origin="http://127.0.0.1:9", settings={"ceiling": CEILING}, caps=caps, **rest
        )

    def enqueue(self) -> None:
        def build(route: str, lead: Any) -> Asked | Lacks:
            if "company" not in lead:
                return Lacks(("company",))
            return Asked(json.dumps({"company": lead["company"]}), f"{route}:{lead['company']}")

        self.ledger.enqueue(ROUTE, "async", Selection(), build)

    def claim(self, number: int, caps: Caps = CAPS) -> list[int]:
        claimed = self._loop.run(self.ledger.claim(ClaimRules(ROUTE, "async", CEILING, caps), number))
        return [call.job_id for call in claimed.calls]

    def record(self, job_id: int, event: ev.Event, polls: int = 0) -> None:
        fence = self.sql("SELECT attempt FROM jobs WHERE id = ?", job_id)[0][0]
        self._loop.run(self.ledger.record(job_id, fence, event, polls=polls))

    def accepted(self, job_id: int, bearer: str = BEARER) -> None:
        answer = ev.Answer("accepted", 202, json.dumps({"job_id": f"remote-{job_id}"}))
        self.record(job_id, ev.Accepted(f"remote-{job_id}", Secret(bearer), "virtual_balance", answer))

    def finished(
        self, job_id: int, cost: int | None = 420_000, state: State = State.MATCHED, body: str = "{}"
    ) -> None:
        failed = state is State.FAILED
        error = "VENDOR_TIMEOUT" if failed else None
        verdict = ev.Verdict(state, state is State.MATCHED, not failed, None, cost, error, body)
        self.record(job_id, ev.Finished(verdict, ev.Answer("poll", 200, body)), polls=2)

    def doubt(self, job_id: int, error: str = "read_timeout") -> None:
        self.record(job_id, ev.Unknown(error, None, None))

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.ledger.books.connection.execute(query, parameters).fetchall()


def tell(story: Story) -> None:
    """Lead 1 matched, 2 waiting with a bearer, 3 in doubt, 4 failed, 5 no match, 6 lost, 7 to 9 queued."""
    names = [
        "Laser Bella",
        "Two Waiting",
        "Three Doubt",
        "Four Failed",
        "Five None",
        "Six Lost",
        "Seven",
        NASTY,
    ]
    story.leads([*names, TURNED], dm_name="Ann O'Neil")
    story.begin()
    story.enqueue()
    story.claim(6)
    for job_id in (1, 2, 4, 5):
        story.accepted(job_id)
    story.clock.advance(30)
    story.finished(
        1,
        body=json.dumps(
            {"matched": True, "summary_markdown": f"Found {NASTY}", "url": "javascript:alert(2)"}
        ),
    )
    story.finished(4, 0, State.FAILED)
    story.finished(5, 30_000, State.NO_MATCH)
    story.doubt(3)
    story.doubt(6)
    story.ledger.write_off(story.ledger.doubts(6), resend=False)
    story.clock.advance(15)


def live(story: Story) -> None:
    """A night in full swing: eighty leads, forty-six minutes, everything that happens."""
    chance = random.Random(4)
    places = ("Laser", "Desert", "Saguaro", "Cactus", "Sonoran", "Catalina", "Rincon", "Mesa")
    trades = (
        "Bella",
        "Plumbing",
        "Roofing",
        "Dental",
        "Bakery",
        "Motors",
        "Books",
        "Design",
        "Florist",
        "Gym",
    )
    names = [f"{place} {trade}" for place in places for trade in trades]
    who = {"dm_name": "Ann O'Neil", "email": "ann@example.com", "number1": "+15205550123"}
    story.leads(names, "tucson.csv", **who, street="12 Main St", zip="85701")
    story.begin()
    story.enqueue()
    waiting: list[int] = []
    for _ in range(46):
        for job_id in story.claim(chance.choice([1, 2, 2])):
            if chance.random() < 0.025:
                story.doubt(job_id, chance.choice(["read_timeout", "remote_protocol_error", "http_502"]))
            else:
                story.accepted(job_id)
                waiting.append(job_id)
        story.clock.advance(60)
        while waiting and chance.random() < 0.7:
            _answer(story, waiting.pop(0), chance.random())
    story.ledger.write_off(story.ledger.doubts()[:1], resend=False)


def _answer(story: Story, job_id: int, luck: float) -> None:
    if luck > 0.9:
        story.finished(job_id, 0, State.FAILED, body='{"error": {"code": "VENDOR_TIMEOUT"}}')
    elif luck > 0.7:
        story.finished(job_id, 0, State.NO_MATCH, body='{"matched": false, "billed": false}')
    else:
        found = {
            "matched": True,
            "billed": True,
            "cache_hit": False,
            "summary_markdown": "Owner-run since 1998; best reached by phone before ten.",
            "entities": [{"type": "phone", "value": "+15205550199"}],
        }
        cost = (310_000, 420_000, 850_000, 1_200_000)[int(luck * 100) % 4]
        story.finished(job_id, cost, body=json.dumps(found))


@dataclass
class Site:
    """Datasette on one ledger, asked in this process."""

    path: Path
    clock: FakeClock
    applied: list[Path] = field(default_factory=list)
    holder: str = "process 4711 (run)"

    def __post_init__(self) -> None:
        self.loop = asyncio.Runner()
        with Reader(self.path) as reader:
            columns = reader.columns()
        self.datasette = compat.build(self.path, columns)
        outside.attach(
            self.datasette,
            Outside(
                clock=self.clock,
                holder=lambda _path: self.holder,
                apply=self.applied.append,
                webhook_secrets=(Secret(SIGNING_SECRET), Secret("ech_older_needle")),
            ),
        )
        self.loop.run(self.datasette.invoke_startup())

    def close(self) -> None:
        for database in self.datasette.databases.values():
            database.close()
        self.loop.close()

    def request(self, method: str, path: str, **rest: Any) -> Any:
        return self.loop.run(getattr(self.datasette.client, method)(path, **rest))

    def get(self, path: str, **rest: Any) -> Any:
        return self.request("get", path, **rest)

    def post(self, path: str, **rest: Any) -> Any:
        return self.request("post", path, **rest)

    def text(self, path: str) -> str:
        """A page that must be there."""
        answer = self.get(path, follow_redirects=True)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return str(answer.text)

    def waiting(self) -> list[dict[str, Any]]:
        """What lies in the inbox."""
        folder = self.path.with_name(self.path.name + ".inbox")
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story's file, with its run still on and the writer gone without a word."""
    path = tmp_path_factory.mktemp("told") / "leads.db"
    story = Story(path, FakeClock())
    tell(story)
    story.close()
    return path


@pytest.fixture(scope="session")
def ended(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, the run ended."""
    path = tmp_path_factory.mktemp("ended") / "leads.db"
    shutil.copyfile(told, path)
    clock = FakeClock()
    clock.advance(60)
    story = Story(path, clock)
    story.sql(
        "UPDATE runs SET ended_at = '2026-03-02T09:01:00.000000Z', stop_reason = ? WHERE id = 1",
        StopReason.UNTIL,
    )
    story.close()
    return path


@pytest.fixture
def site_on(tmp_path: Path) -> Iterator[Callable[[Path], Site]]:
    """Makes sites on copies of ledgers."""
    made: list[Site] = []

    def make(source: Path) -> Site:
        path = tmp_path / f"{len(made)}" / "leads.db"
        path.parent.mkdir()
        shutil.copyfile(source, path)
        path.chmod(0o600)
        clock = FakeClock()
        clock.advance(60)
        made.append(Site(path, clock))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture(scope="session")
def reading(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for the tests that only look."""
    path = tmp_path_factory.mktemp("reading") / "leads.db"
    shutil.copyfile(told, path)
    clock = FakeClock()
    clock.advance(60)
    site = Site(path, clock)
    yield site
    site.close()


@pytest.fixture
def site(site_on: Callable[[Path], Site], told: Path) -> Site:
    return site_on(told)


@pytest.fixture(scope="session")
def make_story() -> Callable[[Path, FakeClock], None]:
    """Writes a lively ledger, its run ended by the time."""

    def make(path: Path, clock: FakeClock) -> None:
        story = Story(path, clock)
        live(story)
        story.ledger.end_run(StopReason.UNTIL)
        story.close()

    return make


@pytest.fixture
def states() -> Callable[[Path], dict[str, int]]:
    """Jobs by state, as another reader sees them."""

    def look(path: Path) -> dict[str, int]:
        with Reader(path) as reader:
            return reader.counts()

    return look


@pytest.fixture
def go_on() -> Callable[[Path], Any]:
    """A run on a ledger that lasts as long as the block."""

    @contextmanager
    def run(path: Path) -> Iterator[Story]:
        story = Story(path, FakeClock(start=SystemClock().now()), "run")
        story.begin()
        try:
            yield story
        finally:
            story.ledger.end_run(StopReason.INTERRUPTED)
            story.close()

    return run


@pytest.fixture
def waiting() -> Callable[[Path], list[dict[str, Any]]]:
    """What lies in a ledger's inbox."""

    def look(path: Path) -> list[dict[str, Any]]:
        folder = path.with_name(path.name + ".inbox")
        return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]

    return look
