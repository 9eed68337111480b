"""`leadledger run`: the night's work."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import control, options, output, summary, wiring
from ledger.clock import SystemClock
from ledger.errors import Bug, DiskTrouble, LeadledgerError, Unreachable, UsageProblem
from ledger.money import usd
from ledger.states import State, StopReason

if TYPE_CHECKING:
    from ledger.api.profile import Profile
    from ledger.cli.settings import Globals
    from ledger.events import BalanceUnknown, Secret
    from ledger.policy import Policy
    from ledger.runner import Runner
    from ledger.store.ledger import Ledger

EXIT_CODES = {
    StopReason.FINISHED: 0,
    StopReason.LIMIT: 0,
    StopReason.UNTIL: 0,
    StopReason.BUDGET: 4,
    StopReason.NO_FUNDS: 4,
    StopReason.NOT_ALLOWED: 2,
    StopReason.REFUSED: 2,
    StopReason.UNREACHABLE: 75,
    StopReason.DISK: 1,
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks of this run."""

    route: str
    mode: str | None
    ceiling: int | None
    import_name: str | None
    leads: tuple[str, ...]
    where: tuple[str, ...]
    limit: int | None
    budget: int
    budget_day: int | None
    budget_lead: int | None
    budget_total: int | None
    new_budget: bool
    change_provider: bool
    concurrency: int
    in_flight: int
    until: str | None
    freeze: float | None
    no_audit: bool


@click.command(epilog="Example: leadledger run --route lead-session --budget 50 --until 06:00")
@options.selection
@options.budgets(required=True)
@options.pace
@click.option("--dry-run", is_flag=True, help="Only say what would be done, like `plan`.")
@options.provider
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    base_url: str | None,
    profile: Path | None,
    api_key_file: Path | None,
    api_key_command: str | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **wishes: Any,
) -> None:
    """Enqueue what was never asked on the route, submit, poll and settle, until done or stopped.

    Killed at any moment, the same command goes on where it was: accepted jobs are polled, a POST whose
    outcome nobody knows is held in doubt and never sent again without evidence. Ctrl+C waits for the
    POSTs in the air; a second one leaves at once, which is also safe.
    """
    del yes
    if dry_run:
        from ledger.cli.plan import show_plan

        show_plan(ctx.obj, profile, wishes, None, as_json=as_json)
        return
    from ledger.api.profile import Profile

    loaded = Profile.load(profile)
    key = wiring.api_key(api_key_file, api_key_command)
    night = Night(ctx.obj, loaded, base_url or loaded.base_url, key, Wishes(**wishes), as_json=as_json)
    ctx.exit(asyncio.run(night.work()))


class Night:
    """One run, from opening the ledger to the summary."""

    def __init__(
        self,
        globals_: Globals,
        profile: Profile,
        base_url: str,
        key: Secret,
        wishes: Wishes,
        *,
        as_json: bool,
    ) -> None:
        from ledger.api.origin import checked_base_url, origin

        self.globals, self.profile, self.key, self.wishes = globals_, profile, key, wishes
        self.as_json = as_json
        self.base_url = checked_base_url(base_url)
        self.origin = origin(base_url)
        self.clock = SystemClock()
        self.mode = profile.mode_for(wishes.route, wishes.mode)
        self.ceiling = profile.ceiling_for(wishes.route, self.mode, wishes.ceiling)
        self.policy: Policy = profile.policy(**({} if wishes.freeze is None else {"freeze_s": wishes.freeze}))
        self.until = _next_time(wishes.until)
        self.signal: int | None = None
        self._signalled = asyncio.Event()
        self.skipped: dict[str, int] = {}
        """Leads that this run found it need not ask, by reason."""
        self._runner: Runner | None = None
        self.run_id: int | None = None
        self.ended: StopReason | None = None
        """Why the run ended, where an error ended it."""
        self.started = time.monotonic()
        if wishes.budget < self.ceiling:
            raise UsageProblem(
                f"A budget of {usd(wishes.budget)} does not carry one job: each sets "
                f"{usd(self.ceiling)} aside.",
                next_step="Raise --budget, or lower --ceiling.",
            )

    async def work(self) -> int:
        """Open, run, close; returns the exit code."""
        self._watch_signals()
        try:
            return await self._open()
        except LeadledgerError as problem:
            if self.ended is None or not self.as_json:
                raise
            output.error(problem.what, problem.money, problem.next_step, as_json=False)
            self._summary(self._runner, self.ended, problem)
            return problem.exit_code

    async def _open(self) -> int:
        db, profile = self.globals.db, self.profile
        with wiring.open_ledger(db, "run", self.clock, self.policy, profile=profile) as ledger:
            recovered = ledger.recover()
            if recovered.new_doubts:
                output.tell(
                    f"The last run was killed with {recovered.new_doubts} paid calls in the air: they are in "
                    "doubt, their money stays set aside, and they are not sent again without evidence."
                )
            control.take(ledger)
            code = await self._run(ledger)
            control.take(ledger)  # what came too late for the run, before the lock is let go
            return code

    async def _run(self, ledger: Ledger) -> int:
        from ledger.api.client import Client
        from ledger.store.exposure import Caps
        from ledger.store.read import Reader

        wishes = self.wishes
        with Reader(self.globals.db) as reader:
            selection = wiring.chosen(reader, wishes.import_name, wishes.leads, wishes.where, wishes.limit)
        build = wiring.builder(self.profile)
        if not ledger.anything_to_do(wishes.route, selection):
            return self._summary(None, StopReason.FINISHED)
        caps = Caps(wishes.budget, wishes.budget_day, wishes.budget_lead, wishes.budget_total)
        self.run_id = ledger.begin_run(
            origin=self.origin,
            settings=self._settings(),
            caps=caps,
            new_budget=wishes.new_budget,
            change_provider=wishes.change_provider,
        )
        async with Client(self.base_url, self.key, self.profile, self.clock) as client:
            balance = await self._open_balance(ledger, client)
            stopped = lambda: self.signal is not None  # noqa: E731 - one line
            self.skipped = ledger.enqueue(wishes.route, self.mode, selection, build, stopped).skipped
            if self.signal is not None:
                ledger.end_run(StopReason.INTERRUPTED)
                return self._summary(None, StopReason.INTERRUPTED)
            reason = await self._loop(ledger, client, caps, balance)
        return self._summary(self._runner, reason)

    async def _loop(self, ledger: Ledger, client: Any, caps: Any, balance: int | None) -> StopReason:
        from ledger.api.gate import Gate
        from ledger.cli.progress import show
        from ledger.orders import Options
        from ledger.runner import Runner
        from ledger.store.claims import ClaimRules

        wishes = self.wishes
        self._runner = runner = Runner(
            ledger,
            client,
            Gate(self.clock, wishes.concurrency),
            clock=self.clock,
            policy=self.policy,
            options=Options(
                rules=ClaimRules(wishes.route, self.mode, self.ceiling, caps),
                in_flight=wishes.in_flight,
                until=self.until,
                limit=wishes.limit,
                balance_microusd=balance,
                same_key_rounds=3 if self.profile.honours_idempotency_key else 0,
                audit=not wishes.no_audit and self.profile.balance_exclusive,
                alone=self.profile.balance_exclusive,
                smallest_price_microusd=self.profile.ceiling.min_microusd,
                post_deadline_s=self.profile.deadline_s(self.mode),
            ),
        )
        shown = asyncio.create_task(show(runner, ledger, self.globals.log_format, self.wishes.budget))
        try:
            reason = await runner.run()
        except DiskTrouble:
            self.ended = StopReason.DISK
            _end(ledger, StopReason.DISK)
            raise
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)
        ledger.end_run(reason)
        return reason

    async def _open_balance(self, ledger: Ledger, client: Any) -> int | None:
        """Note the balance (micro-dollars; None if it cannot be read tonight).

        It re-bases the opening when nothing is open or on its way back; else the old one stands.

        Raises:
            ProviderProblem: Key or address will not do; the run has ended for that reason.
        """
        from ledger.events import Balance
        from ledger.waiting import unless

        # Asked before the reading: what is settled while it is read may not be refunded in it.
        kind = "opening" if ledger.may_rebase() else "reading"
        reading = await unless(client.balance(), lambda: self._signalled if self.signal is None else None)
        if reading is None:
            return None
        if not isinstance(reading, Balance):
            found = _unusable(reading, self.base_url)
            if found is not None:
                reason, problem = found
                ledger.end_run(reason)
                self.ended = reason
                raise problem
            output.tell(f"The balance could not be read ({reading.error}); doubts cannot be audited tonight.")
            return None
        gap = ledger.note_balance(kind, reading)
        if kind == "opening" and gap.gap_microusd:
            output.tell(
                f"The balance is {usd(reading.amount_microusd)}; the books expected "
                f"{usd(gap.expected_microusd or 0)}. The difference is noted, not booked."
            )
        return reading.amount_microusd

    def _watch_signals(self) -> None:
        """The first signal drains, the second leaves at once; both are safe.

        Python's own handlers, not the loop's: they also run while leads are being enqueued.
        """
        loop = asyncio.get_running_loop()

        def caught(number: int, _frame: object) -> None:
            again, self.signal = self.signal is not None, number
            loop.call_soon_threadsafe(self._stop, again)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, caught)

    def _stop(self, again: bool) -> None:
        self._signalled.set()
        if self._runner is None:
            return  # nothing is in the air yet
        if again:
            self._runner.abandon()
            return
        self._runner.stop()
        if in_air := self._runner.in_air:
            bound = self.profile.deadline_s(self.mode)
            output.tell(f"Stopping: waiting for the {in_air} POSTs in the air ({bound:.0f} s at most).")

    def _settings(self) -> dict[str, Any]:
        """What the run was asked to do, for `runs.settings`; no secret is among it."""
        wishes = {name: getattr(self.wishes, name) for name in Wishes.__slots__}
        return {**wishes, "mode": self.mode, "ceiling": self.ceiling, "base_url": self.base_url}

    def _summary(
        self, runner: Runner | None, reason: StopReason, problem: LeadledgerError | None = None
    ) -> int:
        from ledger.store.read import Reader

        with Reader(self.globals.db) as reader:
            counts, money = reader.counts(), reader.money()
        progress = runner.progress if runner is not None else None
        final = Counter(progress.final if progress is not None else {})
        if self.skipped:
            final[State.SKIPPED] += sum(self.skipped.values())
        code = self._exit_code(reason, final, counts)
        result: dict[str, Any] = {
            "schema": 1,
            "run_id": self.run_id,
            "stop_reason": reason.value,
            "submitted": progress.submitted if progress is not None else 0,
            "final": dict(final),
            "in_doubt": counts["in_doubt"],
            "charged_microusd": progress.charged_microusd if progress is not None else 0,
            "held_microusd": money.held_microusd,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        if problem is not None:
            result["error"] = {
                "what": problem.what,
                "money": problem.money,
                "next_step": problem.next_step,
            }
        if self.as_json:
            output.emit_json(result)
        else:
            summary.tell(result, counts, progress, self.skipped)
        return code

    def _exit_code(self, reason: StopReason, final: dict[str, int], counts: dict[str, int]) -> int:
        if reason is StopReason.INTERRUPTED:
            return 128 + (self.signal or signal.SIGTERM)
        code = EXIT_CODES.get(reason, 1)
        troubled = final.get("failed") or final.get("lost") or counts["in_doubt"]
        return 3 if code == 0 and troubled else code


def _unusable(reading: BalanceUnknown, base_url: str) -> tuple[StopReason, LeadledgerError] | None:
    """Why a balance that cannot be read ends the run before it sends anything; None when it need not."""
    if reading.not_allowed:
        return StopReason.NOT_ALLOWED, UsageProblem(
            f"The provider refuses this key ({reading.error}).",
            next_step="Check LEADLEDGER_API_KEY; `leadledger doctor` looks at it.",
        )
    if reading.error == "http_404":
        return StopReason.REFUSED, UsageProblem(
            f"{base_url} answers, but has no balance (404): it is not the provider.",
            next_step="Check --base-url; nothing was sent.",
        )
    if reading.error in {"connect_error", "connect_timeout"}:
        return StopReason.UNREACHABLE, Unreachable(
            f"{base_url} cannot be reached ({reading.error}).",
            next_step="Check the address and the network, then start the same command again.",
        )
    return None


def _end(ledger: Ledger, reason: StopReason) -> None:
    """Say why the run ended, if the disk still takes it; else the next start marks it `died`."""
    try:
        ledger.end_run(reason)
    except (DiskTrouble, Bug) as trouble:
        output.tell(f"The end of the run could not be written: {trouble.what}")


def _next_time(text: str | None) -> datetime | None:
    """The next time the wall clock shows HH:MM."""
    if text is None:
        return None
    now = SystemClock().now().astimezone()
    try:
        hour, minute = (int(part) for part in text.split(":"))
        at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        raise UsageProblem(f"--until {text!r} is not a time like 06:00.") from None
    return at if at > now else at + timedelta(days=1)
