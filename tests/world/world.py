"""A small world from one seed: a sandbox, a network, a runner that is killed and stopped, and an operator.

Everything real is real (Ledger on disk, Runner, Client, wire reading, sandbox); only time and the network are
not. A kill takes the files as they are at that instant, bytes for bytes, and the next life opens the copy.

In trusty worlds the provider shows its true balance: there the books must agree, however hasty people are. In
the others it may show a wrong one: what the ledger says of itself must still hold.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import shutil
import uuid
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from random import Random
from unittest.mock import patch

import httpx
import verdicts
from air import DEADLINE_S, Air, Flight, Weather
from virtual import Killed, VirtualLoop, VirtualTime

from ledger import events as ev
from ledger.api.client import Client
from ledger.api.delivery import read_delivery
from ledger.api.gate import Gate
from ledger.api.profile import Profile
from ledger.cli.wiring import builder
from ledger.errors import UsageProblem
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.orders import Options
from ledger.policy import Policy
from ledger.runner import Runner
from ledger.sandbox.app import create_app
from ledger.sandbox.faults import FAULTS
from ledger.sandbox.settings import Latency, Settings
from ledger.sandbox.testing import KEY
from ledger.states import StopReason
from ledger.store import inbox, reserve
from ledger.store.audit import INVARIANTS
from ledger.store.balance import Doubt
from ledger.store.claims import ClaimRules
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

BASE = "http://127.0.0.1:9"
ROUTES = (("enrich/websearch", "async"), ("enrich/lead-session", "async"), ("enrich/phone", "sync"))
PLENTY = 1_000_000_000_000
RESERVE = 65_536
"""A small world needs no 4 MiB, and writing them takes longer than the rest of a life."""
LIVES_MAX = 12
"""Storms end after at most three lives; a calm world that is not done after nine more never will be."""
START = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
"""A minute before midnight: the budget of the day begins anew within the first lives."""

logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it reports what a kill left unfinished


@cache
def profile(*, correlation: bool = False) -> Profile:
    """The real profile with less patience: time is virtual, but every second of it costs loop turns."""
    real = Profile.load()
    limits = replace(real.limits, submit_total_s=DEADLINE_S, sync_total_s=20.0, poll_connections=3)
    return replace(real, limits=limits, correlation=correlation)


@dataclass
class Told:
    """What came of one seed."""

    seed: int
    wrong: list[str]
    trusty: bool
    misled: bool
    exact: bool
    happened: Counter[str] = field(default_factory=Counter)


class World:
    """One seed's world. `template` is an empty, migrated, closed ledger."""

    def __init__(self, seed: int, folder: Path, template: Path) -> None:
        self.seed, self.folder = seed, folder
        self.chance = chance = Random(seed)
        self.trusty = chance.random() < 0.85
        self.route, self.mode = chance.choices(ROUTES, (6, 2, 2))[0]
        self.profile = profile(correlation=chance.random() < 0.4)
        self.received = 0
        self.leads = 5 + int(26 * chance.random() ** 3)
        self.ceiling = profile().ceiling_for(self.route, self.mode)
        self.storms = chance.choice((1, 1, 2, 3))
        self.happened: Counter[str] = Counter()
        self.flights: list[Flight] = []
        self.time = VirtualTime(START)
        self.path = folder / f"{seed}-0.db"
        shutil.copyfile(template, self.path)
        late_s = chance.uniform(0, 6)
        settle_s = chance.uniform(3, 8)
        self.policy = Policy(
            freeze_s=late_s + chance.uniform(DEADLINE_S, 2 * DEADLINE_S),
            refund_settle_s=settle_s,
            job_deadline_s=600.0,
            poll_min_s=1.0,
            gone_spread_s=chance.uniform(5, 30),
            doubt_poll_s=chance.uniform(2, 20),
            unreachable_after_s=60.0,
            latency_s={self.route: (1.0, 8.0)},
        )
        self.app = create_app(
            self._settings(late_s, min(settle_s, self.policy.freeze_s) * chance.uniform(0, 0.9)),
            real=self.time.monotonic,
            wall=lambda: self.time.now().timestamp(),
            dropped=chance.choice((httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)),
        )
        self.provider = self.app.provider

    def _settings(self, late_accept_s: float, refund_late_s: float) -> Settings:
        chance = self.chance
        rates = {name: chance.choice((0.0, 0.0, 0.0, 0.0, 0.02, 0.1, 0.3)) for name in FAULTS}
        if self.trusty:
            rates["balance_wrong"] = 0.0
        shape = chance.choice(
            (
                Latency("fixed", 2),
                Latency("uniform", 1, 8),
                Latency("exponential", 3),
                Latency("lognormal", 3, 0.8),
                Latency("bimodal", 1, 25, 0.2),
            )
        )
        # Strangers' jobs on the account: then it is not ours alone, and nothing may be matched by guessing.
        self.alone = rates["delivery_other_job"] == 0.0
        opening = self.leads * self.ceiling * chance.choice((0.2, 0.6, 1.5, 20))
        return Settings(
            seed=self.seed,
            opening_usd=f"{opening / 1e6:.6f}",
            faults=rates,
            latency_s={self.route: shape},
            match_rate=chance.choice((0.0, 0.5, 0.72, 1.0)),
            account_key_polls=chance.random() < 0.8,
            late_accept_s=late_accept_s,
            refund_late_s=refund_late_s,
            slow_byte_ms=chance.uniform(0, 40),
            max_open_jobs=chance.choice((0, 0, 3, 10)),
            rate_per_s=chance.choice((0.0, 0.0, 5.0)),
            retry_after=chance.choice(("seconds", "absent", "date", "nonsense")),
            deliveries=chance.random() < 0.6,
            delivery_shape=chance.choice(("flat", "data", "bare")),
            delivery_late_s=chance.uniform(0, 60),
        )

    # --- the story ---

    def play(self) -> Told:
        """Storms, then calm until everything is final or in doubt; then judge."""
        for life in range(LIVES_MAX):
            calm = life >= self.storms
            if calm:
                self._clear_up()
            reason = self._life(calm=calm)
            self._between(reason, calm=calm)
            if calm and self._all_done():
                break
        self._let_settle()
        if not self._all_done():  # a delivery that came after the last run has found a doubt's job
            self._life(calm=True)
            self._let_settle()
        return self._judge()

    def _clear_up(self) -> None:
        """The provider mends its ways and somebody pays in; what it has accepted goes on as it was."""
        self.provider.configure(replace(self.provider.settings, faults={}, rate_per_s=0.0, max_open_jobs=0))

    def _life(self, *, calm: bool) -> StopReason | None:
        chance = self.chance
        weather = Weather() if calm else _weather(chance)
        kill_at = None if calm or chance.random() < 0.3 else int(10 ** chance.uniform(1, 3.7))
        loop = VirtualLoop(self.time, kill_at)
        ledger = self._open()
        air = Air(self.app, chance, weather, self.flights, self.receive)
        try:
            reason: StopReason | None = loop.run_until_complete(self._run(ledger, air, calm=calm))
        except Killed:
            self.happened["killed"] += 1
            self._copy_what_is_on_disk()
            reason = None
        finally:
            air.cut = True
            loop.bury()
            ledger.close()
        if reason is None:
            return None
        self.happened[f"run {reason}"] += 1
        return reason

    def _open(self) -> Ledger:
        ledger = Ledger(
            self.path,
            "world",
            clock=self.time,
            migrations=migrations,
            policy=self.policy,
            read_delivery=partial(read_delivery, self.profile),
        )
        # A killed process leaves what it wrote, synced or not; only a power cut would tell the difference.
        ledger.books.connection.execute("PRAGMA synchronous = OFF")
        ledger.books.new_key = lambda: str(uuid.UUID(int=self.chance.getrandbits(128)))
        return ledger

    def _copy_what_is_on_disk(self) -> None:
        """What is on disk at the instant of a kill is all that the next life gets."""
        dead = self.path
        number = int(dead.stem.partition("-")[2]) + 1
        self.path = self.folder / f"{self.seed}-{number}.db"
        for suffix in ("", "-wal", ".reserve"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{dead}{suffix}", f"{self.path}{suffix}")
        with suppress(FileNotFoundError):
            shutil.copytree(inbox.inbox_path(dead), inbox.inbox_path(self.path))
        self.flights[:] = [flight for flight in self.flights if self.chance.random() < 0.5]

    def receive(self) -> None:
        """The receiver, a process of its own: checks the signature and drops what is genuine."""
        pushed = self.provider.hooks.pushed
        secret = self.provider.settings.signing_secret.encode()
        for one in pushed[self.received :]:
            body = one.body.encode()
            if one.signature != "sha256=" + hmac.new(secret, body, "sha256").hexdigest():
                self.happened["forgery refused"] += 1
                continue
            item = inbox.delivery(body, received_at=self.time.now(), delivery_id=None)
            name = f"{self.seed}-{self.happened['delivered']:05}"
            inbox.drop(self.path, "delivery", item, item_id=name, now=self.time.now())
            self.happened["delivered"] += 1
        self.received = len(pushed)

    async def _run(self, ledger: Ledger, air: Air, *, calm: bool) -> StopReason:
        """One run, as `leadledger run` does it."""
        chance, loop = self.chance, asyncio.get_running_loop()
        for flight in self.flights:
            air.launch(flight)
        if self.happened["imported"] == 0 or chance.random() < 0.3:
            self._import(ledger)
        self.happened["doubts at start"] += ledger.recover().new_doubts
        ledger.take_inbox()
        everything = Selection()
        if not ledger.anything_to_do(self.route, everything):
            return StopReason.FINISHED
        caps = Caps() if calm else self._caps()
        ledger.begin_run(origin=BASE, settings={}, caps=caps, new_budget=chance.random() < 0.2)
        async with Client(BASE, ev.Secret(KEY), self.profile, self.time, network=lambda _: air) as client:
            reading = await client.balance()
            if isinstance(reading, ev.Balance):
                ledger.note_balance("opening" if ledger.may_rebase() else "reading", reading)
            ledger.enqueue(self.route, self.mode, everything, builder(self.profile))
            shown = (
                reading.amount_microusd if isinstance(reading, ev.Balance) and chance.random() < 0.7 else None
            )
            runner = self._runner(ledger, client, caps, shown, calm=calm)
            if not calm and chance.random() < 0.3:
                loop.call_later(chance.uniform(0, 60), runner.stop)
                if chance.random() < 0.5:
                    loop.call_later(chance.uniform(0, 60), runner.abandon)
            reason = await runner.run()
        ledger.end_run(reason)
        return reason

    def _runner(
        self, ledger: Ledger, client: Client, caps: Caps, balance: int | None, *, calm: bool
    ) -> Runner:
        chance = self.chance
        return Runner(
            ledger,
            client,
            Gate(self.time, chance.randint(1, 8), chance=chance.random),
            clock=self.time,
            policy=self.policy,
            options=Options(
                rules=ClaimRules(self.route, self.mode, self.ceiling, caps),
                in_flight=chance.choice((2, 8, 10_000)),
                balance_microusd=balance,
                audit=calm or chance.random() < 0.8,
                alone=self.alone,
                post_deadline_s=profile().deadline_s(self.mode),
            ),
            chance=chance.random,
        )

    def _caps(self) -> Caps:
        most = self.leads * self.ceiling
        return Caps(*(self.chance.choice((None, None, self.chance.randint(0, most))) for _ in range(4)))

    def _import(self, ledger: Ledger) -> None:
        self.happened["imported"] += 1
        rows = []
        for number in range(self.leads):
            said = {"company": f"Company {self.seed} {number}", "number1": f"+1520555{number:04d}"}
            fields = tuple(said.get(name) for name in LEAD_FIELDS)
            rows.append(
                SourceRow(number + 2, json.dumps(said), fields, Keys(None, None, said["company"], None))
            )
        facts = FileFacts("leads.csv", f"sha-{self.seed}", "file", {}, (), "utf-8", ",")
        ledger.import_rows(facts, rows)

    # --- between two lives ---

    def _between(self, reason: StopReason | None, *, calm: bool) -> None:
        chance = self.chance
        decides = chance.random() < (0.5 if calm else 0.1)
        if chance.random() < 0.5:
            self.time.passed_s += chance.uniform(0, 30)
        pays_in = reason is StopReason.NO_FUNDS
        if not (decides or pays_in):
            return
        with closing(self._open()) as ledger:
            ledger.recover()
            if decides:
                self._operate(ledger)
            if pays_in:
                self._top_up(ledger, PLENTY if calm else chance.randint(1, self.leads) * self.ceiling)

    def _operate(self, ledger: Ledger) -> None:
        """A person decides some doubts, in one of the ways that `resolve` offers."""
        chance, doubts = self.chance, ledger.doubts()
        if not doubts:
            return
        match chance.choice(("all", "one", "resend all", "resend one", "accept")):
            case "accept":
                self._accept(ledger, chance.choice(doubts))
            case choice:
                found = doubts if choice.endswith("all") else [chance.choice(doubts)]
                ledger.write_off(found, resend=choice.startswith("resend"))
                self.happened["resent" if choice.startswith("resend") else "written off"] += len(found)

    def _accept(self, ledger: Ledger, doubt: Doubt) -> None:
        """The provider's support has told the job id that belongs to the attempt's key."""
        query = "SELECT idempotency_key FROM attempts WHERE job_id = ? AND number = ?"
        key = ledger.books.connection.execute(query, (doubt.job_id, doubt.fence)).fetchone()[0]
        for one in self.provider.books.submissions:
            if one.idempotency_key == key and one.mode == "async":
                with suppress(UsageProblem):  # a repeated id: it is already another attempt's
                    ledger.accept(doubt, one.remote_job_id, ev.Secret(one.poll_bearer))
                    self.happened["accepted by a person"] += 1

    def _top_up(self, ledger: Ledger, amount: int) -> None:
        self.happened["topped up"] += 1
        self.provider.books.top_up(amount, self.provider.clock.now())
        ledger.top_up(amount)

    def _let_settle(self) -> None:
        """Until nothing is in the air and the provider has nothing left to do."""
        loop = VirtualLoop(self.time)
        air = Air(self.app, self.chance, Weather(), self.flights, self.receive)

        async def land() -> None:
            await asyncio.gather(*(air.launch(flight) for flight in self.flights), return_exceptions=True)

        loop.run_until_complete(land())
        loop.bury()
        agenda = self.provider._agenda
        while agenda:  # bounded: an entry adds at most one, and that one adds none
            seconds = max(0.0, max(agenda)[0] - self.provider.clock.now())
            self.time.passed_s += seconds + 0.001
            self.provider.catch_up()
        self.receive()
        with closing(self._open()) as ledger:  # what came after the last run
            while ledger.take_inbox():
                continue

    def _all_done(self) -> bool:
        with closing(sqlite3.connect(self.path)) as connection:
            return not verdicts.settled(connection)

    # --- the verdict ---

    def _judge(self) -> Told:
        with closing(sqlite3.connect(self.path)) as connection:
            self._count(connection)
            wrong = verdicts.settled(connection) + verdicts.caps_kept(connection)
            wrong += verdicts.history_replays(connection)
            wrong += verdicts.money_adds_up(verdicts.attempts(connection))
            for invariant in INVARIANTS:
                broken = connection.execute(invariant.sql).fetchmany(3)
                wrong += [f"{invariant.name}: {broken}"] if broken else []
            found = verdicts.compare(connection, self.provider.books)
        if self.trusty:
            wrong += found.wrong
        return Told(self.seed, wrong, self.trusty, found.misled, found.exact, +self.happened)

    def _count(self, connection: sqlite3.Connection) -> None:
        reasons = "SELECT reason, COUNT(*) FROM transitions GROUP BY reason"
        self.happened.update({str(reason): times for reason, times in connection.execute(reasons)})
        fitted = "SELECT COUNT(*) FROM attempts WHERE evidence LIKE 'delivery %the one unknown job%'"
        self.happened["fitted"] += connection.execute(fitted).fetchone()[0]
        self.happened.update({f"fault {name}": times for name, times in self.provider.faults.fired.items()})


def _weather(chance: Random) -> Weather:
    return Weather(
        no_connection=chance.choice((0.0, 0.0, 0.1)),
        get_lost=chance.choice((0.0, 0.0, 0.2)),
        quick_s=chance.choice((0.01, 0.3)),
        slow=chance.choice((0.0, 0.1, 0.5)),
    )


def memory_folder() -> str | None:
    """Where files cost no disk: nothing here cuts the power, so nothing here needs a sync that holds."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def make_template(folder: Path) -> Path:
    """An empty ledger: copied, it opens in a tenth of the time that a new one takes."""
    path = folder / "template.db"
    Ledger(path, "world", clock=VirtualTime(START), migrations=migrations).close()
    return path


def play(seed: int, folder: Path, template: Path) -> Told:
    """One seed's world from beginning to end; an exception on the way counts as wrong."""
    world = World(seed, folder, template)
    try:
        with patch.object(reserve, "SIZE", RESERVE):
            return world.play()
    except Exception as error:  # noqa: BLE001 - whatever it is, the campaign goes on and names the seed
        return Told(seed, [f"{type(error).__name__}: {error}"], world.trusty, misled=False, exact=False)
    finally:
        for left in folder.glob(f"{seed}-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
