"""The ledger, as the rest of the program sees it: a dozen verbs and no SQL.

Opening takes the lock, checks the file, brings the schema up to date and recovers. Every verb writes in
transactions of its own; the two that a run calls a thousand times a minute (`claim`, `record`) go through
the group commit and return only when their own write is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ledger import crashpoints
from ledger import events as ev
from ledger.clock import Clock
from ledger.model import FileFacts, OpenJob, PaidCall, SourceRow
from ledger.policy import Policy
from ledger.states import StopReason
from ledger.store import balance, claims, enqueue, imports, inbox, intents, reserve, resolve, runs
from ledger.store.balance import Doubt, Gap
from ledger.store.books import Books, ReadDelivery
from ledger.store.connect import (
    Migrations,
    check_file,
    check_place,
    checkpoint,
    connect,
    disk_trouble,
    is_disk_trouble,
    transaction,
)
from ledger.store.deliveries import fit, record, settle_doubts
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps
from ledger.store.group import GroupCommit
from ledger.store.lock import Lock
from ledger.store.migrating import migrate
from ledger.store.place import real_path
from ledger.store.selection import Selection, check_fields
from ledger.transition import Transition


class Ledger:
    """One open ledger, ours alone to write until `close`.

    Args:
        path: The file; made when there is none.
        purpose: What we do with it, shown to a second process (`run`, `import`, …).
        clock: The one clock.
        migrations: The schema's history.
        policy: Waits and bounds; only a run needs its own.
        read_delivery: How to read webhook deliveries; without it they stay in the inbox.

    Raises:
        LedgerFileProblem: Not a ledger, made by a newer version, read-only, on a network share.
        DiskTrouble: There is no room to make it or to bring it up to date.
        LedgerBusy: Another process holds it.
    """

    def __init__(
        self,
        path: Path,
        purpose: str,
        *,
        clock: Clock,
        migrations: Migrations,
        policy: Policy | None = None,
        read_delivery: ReadDelivery | None = None,
    ) -> None:
        self.path = real_path(path)
        check_place(self.path)
        check_file(self.path)
        self._lock = Lock(self.path, purpose, clock)
        try:
            connection = connect(self.path)
            try:
                migrate(connection, self.path, migrations)
                runs.prepare(connection)
            except BaseException:
                connection.close()
                raise
        except BaseException as error:
            self._lock.release()
            if is_disk_trouble(error) or isinstance(error, OSError):
                raise disk_trouble(error) from error
            raise
        self.books = Books(connection, clock, policy or Policy(), read_delivery=read_delivery)
        self.group = GroupCommit(self.books)
        self._reserve: reserve.Reserve | None = None
        self._inbox = inbox.inbox_path(self.path)

    def close(self) -> None:
        """Truncate the log (deleted bearers' bytes go with it), close the files, let go of the lock."""
        if self._reserve is not None:
            self._reserve.close()
        with suppress(sqlite3.Error):
            checkpoint(self.books.connection)
        self.books.connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- files and what is to be asked ---

    def import_rows(
        self, facts: FileFacts, rows: Iterable[SourceRow], noted_max: int = imports.NOTED_MAX
    ) -> imports.ImportReport:
        """Take in one file in one transaction (`store.imports`)."""
        return imports.import_rows(self.books, facts, rows, noted_max)

    def rehearse_import(
        self,
        files: Iterable[tuple[FileFacts, Iterable[SourceRow]]],
        noted_max: int = imports.NOTED_MAX,
    ) -> list[imports.ImportReport]:
        """What `import_rows` would report of each file; nothing stays written (`store.imports.rehearse`)."""
        return imports.rehearse(self.books, files, noted_max)

    def enqueue(
        self,
        route: str,
        mode: str,
        selection: Selection,
        build: enqueue.Build,
        stopped: Callable[[], bool] = lambda: False,
    ) -> enqueue.Enqueued:
        """Write a job for every selected lead never asked on `route`, and fill the run's selection.

        `stopped` is asked between pages; what is not written then, the next run writes.
        """
        check_fields(self.books.connection, selection)
        done = enqueue.enqueue(self.books, route, mode, selection, build, stopped)
        enqueue.select(self.books, route, selection)
        return done

    def anything_to_do(self, route: str, selection: Selection) -> bool:
        """False when a run would find nothing to send, to poll or to clear up: it then writes nothing."""
        check_fields(self.books.connection, selection)
        return runs.has_open(self.books.connection) or enqueue.any_left(self.books, route, selection)

    def ready_count(self, route: str) -> int:
        """Queued jobs of a route that may go now, counted up to 100,000."""
        return enqueue.ready_count(self.books.connection, route)

    # --- a run ---

    def recover(self) -> runs.Recovered:
        """Take over what the reserve holds; mark dead runs `died`, their POSTs in the air `in_doubt`.

        Then apply what deliveries were kept for any doubt. Harmless when repeated.
        """
        recovered = runs.recover(self.books, reserve.read(self.path))
        crashpoints.reach("recover_after_commit")
        with self.books.transaction():
            settle_doubts(self.books)
        reserve.clear(self.path)
        inbox.sweep(self.path, self.books.now)
        return recovered

    def begin_run(
        self,
        *,
        origin: str,
        settings: dict[str, Any],
        caps: Caps,
        new_budget: bool = False,
        change_provider: bool = False,
    ) -> int:
        """Open a run and return its id (`store.runs.begin`).

        Raises:
            DiskTrouble: There is no room for the reserve: no reserve, no paid POST.
        """
        self._reserve = reserve.Reserve(self.path)
        crashpoints.reach("begin_after_reserve")
        return runs.begin(
            self.books,
            origin=origin,
            settings=settings,
            caps=caps,
            new_budget=new_budget,
            change_provider=change_provider,
        )

    def end_run(self, reason: StopReason) -> None:
        """Close the run, and let the truncating checkpoint wipe what was deleted."""
        runs.end(self.books, reason)
        with suppress(sqlite3.Error):
            checkpoint(self.books.connection)
        crashpoints.reach("end_after_checkpoint")

    async def claim(self, rules: claims.ClaimRules, limit: int) -> claims.Claim:
        """Take up to `limit` jobs to send; their intents and holds are on disk when this returns.

        Raises:
            DiskTrouble: Nothing was claimed and paying must stop.
        """
        claim = await self.group.write(lambda books: claims.claim(books, rules, limit))
        crashpoints.reach("claim_after_commit")
        return claim

    async def resend(self, limit: int) -> tuple[PaidCall, ...]:
        """Take up to `limit` doubts to send once more with their own keys (`store.claims.resend`)."""
        return await self.group.write(lambda books: claims.resend(books, limit))

    async def record(self, job_id: int, fence: int, event: ev.Event, *, polls: int = 0) -> Transition | None:
        """Let `event` happen to a job; all of it is on disk when this returns (`store.steps.record`)."""
        return await self.group.write(lambda books: record(books, job_id, fence, event, polls=polls))

    def keep_in_reserve(self, job_id: int, fence: int, event: ev.PostEvent) -> bool:
        """Last resort when `record` failed: a paid answer into `LEDGER.reserve`. True if it is there."""
        return self._reserve is not None and self._reserve.keep(job_id, fence, event)

    def left_count(self, rules: claims.ClaimRules) -> int:
        """Jobs that this run would still send, now or later, counted up to 100,000."""
        return claims.left_count(self.books, rules)

    def look_at_capped_again(self) -> None:
        """Leads that were at their own cap are looked at anew by the next claim."""
        claims.look_at_capped_again(self.books)

    def next_due(self, route: str) -> str | None:
        """When the earliest job that waits for its time may go (ledger time text), or None."""
        return claims.next_due(self.books, route)

    def open_jobs(self) -> Iterator[OpenJob]:
        """Every job that can be polled."""
        return runs.open_jobs(self.books.connection)

    def open_job(self, job_id: int) -> OpenJob | None:
        """One job, if it can be polled."""
        return runs.open_job(self.books.connection, job_id)

    def latencies(self, route: str) -> list[float]:
        """Seconds from acceptance to answer of the route's recent jobs."""
        return runs.latencies(self.books.connection, route)

    def may_rebase(self) -> bool:
        """True when a balance read now can be an opening: nothing is open and the last refund has come."""
        return not runs.has_open(self.books.connection) and balance.settled(self.books)

    def settled(self) -> bool:
        """True when the last booking is so old that its refund has come."""
        return balance.settled(self.books)

    # --- doubts and the balance ---

    def doubts(self, job_id: int | None = None) -> list[Doubt]:
        """Open doubts: one job's, or all."""
        return resolve.find_doubts(self.books.connection, job_id)

    def freeze_ends(self, wait_s: float) -> float | None:
        """The POSIX time from which no doubtful POST can still land; None without doubts."""
        return balance.freeze_ends(self.books.connection, wait_s)

    def note_balance(self, kind: str, reading: ev.Balance, conclusion: str | None = None) -> Gap:
        """Record one look at the balance and return how it compares with the books."""
        with transaction(self.books.connection):
            return balance.note(self.books, kind, reading, conclusion)

    def balance_gap(self, reading: ev.Balance) -> Gap:
        """How a balance compares with the books; writes nothing."""
        return balance.gap(self.books.connection, reading)

    def why_unprovable(self) -> str | None:
        """Why the balance cannot prove anything now (`store.balance.why_unprovable`); None when it can."""
        return balance.why_unprovable(self.books)

    def last_cost(self) -> int:
        """The newest booking's number."""
        return balance.last_cost(self.books.connection)

    def prove_free(self, reading: ev.Balance, evidence: str) -> list[Transition]:
        """Note the audit and send every doubt back to the queue, in one transaction."""
        with self.books.transaction():
            balance.note(self.books, "audit", reading, evidence)
            return balance.proved_free(self.books, balance.doubts(self.books.connection), evidence)

    def prove_charged(
        self, reading: ev.Balance, doubt: Doubt, charge: int, evidence: str
    ) -> list[Transition]:
        """Note the audit and close the one doubt as lost at what it was charged, in one transaction."""
        with self.books.transaction():
            balance.note(self.books, "audit", reading, evidence)
            event = ev.AuditCharged(charge, evidence)
            step = record(self.books, doubt.job_id, doubt.fence, event)
            return [] if step is None else [step]

    def top_up(self, amount_microusd: int) -> None:
        """Record money that a person added to the balance."""
        with transaction(self.books.connection):
            balance.top_up(self.books, amount_microusd)

    def audited_gap(self) -> int | None:
        """What the newest audit found missing, if nothing was booked since; None otherwise."""
        return balance.audited_gap(self.books.connection)

    def write_off(self, found: list[Doubt], *, resend: bool) -> int:
        """Close doubts as lost, and ask anew with `resend`; returns micro-dollars now counted as spent."""
        with self.books.transaction():
            return resolve.write_off(self.books, found, resend=resend).charged_microusd

    def accept(self, doubt: Doubt, remote_job_id: str, bearer: ev.Secret | None) -> None:
        """Take a person's word for the provider's job id of a doubt."""
        with self.books.transaction():
            resolve.accept(self.books, doubt, remote_job_id, bearer)

    # --- the inbox ---

    def take_inbox(self) -> list[intents.Taken]:
        """Carry out what waits in `LEDGER.inbox/`, and remove each file once that is on disk.

        Oldest first, of those that are taken together deliveries before wishes. One transaction, a savepoint
        an item, at most `inbox.AT_ONCE_MAX` of them. Deliveries are left where nobody can read them.

        Raises:
            DiskTrouble: The ledger or the inbox cannot be written; every file is still there.
        """
        leave = "delivery" if self.books.read_delivery is None else ""
        found = [inbox.read(path) for path in inbox.waiting_in(self._inbox, leave=leave)]
        items = [one for one in found if isinstance(one, inbox.Item)]
        items.sort(key=lambda item: item.kind != "delivery")  # evidence goes before what a person decides
        taken = [intents.Taken(one.note) for one in found if isinstance(one, inbox.Junk)]
        if items:
            with self.books.transaction():
                taken += [intents.apply(self.books, item) for item in items]
        for item in items:
            inbox.done(item.path)
        return taken

    def fit_deliveries(self) -> list[intents.Taken]:
        """Match kept deliveries to doubts where that is certain (`store.deliveries.fit`)."""
        with self.books.transaction():
            came = fit(self.books)
        steps = ((one.note, one.step) for one in came)
        return [intents.Taken(note, () if step is None else (step,)) for note, step in steps]

    def outcome_of(self, intent_id: str) -> intents.Outcome | None:
        """What became of a wish; None while nothing has."""
        return intents.find(self.books.connection, intent_id)
