"""What retry, cancel, pause, resume, suppress and resolve share: saying the cost, asking, and the inbox.

A wish goes the same way whether a run holds the ledger or nobody does: a file in `LEDGER.inbox/`, and then
either the run takes it or we take the lock and carry it out ourselves.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock, to_text
from ledger.errors import LedgerBusy, LedgerFileProblem, UsageProblem
from ledger.money import usd
from ledger.states import Reason, State

if TYPE_CHECKING:
    from ledger.api.profile import Profile
    from ledger.cli.settings import Globals
    from ledger.store.control import Chosen, Group
    from ledger.store.intents import Outcome
    from ledger.store.ledger import Ledger
    from ledger.store.read import Reader

WAIT_S: Final = 5.0
"""A run looks into its inbox once a second; after this long it is busy with something else, or gone."""
_LOOK_S: Final = 0.1
F = TypeVar("F", bound=Callable[..., Any])


def which(command: F) -> F:
    """The options that name jobs. All that are given must hold."""
    for decorate in (
        options.profile,
        click.option("--all", "everything", is_flag=True, help="Every job that this can be done to."),
        click.option("--import", "import_name", metavar="ID|last", help="Only leads of this import."),
        click.option("--route", type=options.Route(), help="Only jobs of this route."),
        click.option(
            "--reason",
            type=click.Choice([reason.value for reason in Reason]),
            metavar="REASON",
            help="Only jobs that moved last for this reason.",
        ),
        click.option(
            "--state", type=click.Choice([state.value for state in State]), help="Only jobs in this state."
        ),
        click.option("--lead", "leads", multiple=True, help="Only this lead (number, contact id, email, …)."),
        click.argument("job", type=click.IntRange(1, 2**63 - 1), nargs=-1),
    ):
        command = decorate(command)
    return command


def carry_out(
    obj: Globals,
    verb: str,
    sentence: Callable[[int, str], str],
    *,
    profile: Path | None,
    as_json: bool,
    yes: bool,
    **named: Any,
) -> None:
    """Say how many jobs `verb` means and what they may cost, ask, and see that it is done.

    Args:
        obj: The global options.
        verb: One of `store.control.VERBS`.
        sentence: `(how many, worst case in dollars) -> what will happen`.
        profile: A profile laid over the built-in one.
        as_json: Print one JSON object.
        yes: Do not ask.
        named: The options of `which`.

    Raises:
        UsageProblem: No job is named, one that is named does not exist, or nobody said yes.
    """
    if not any(value and not _is_a_setting(name) for name, value in named.items()):
        raise UsageProblem(
            "Say which jobs: JOB…, --lead, --state, --reason, --route, --import or --all.",
            next_step=f"`leadledger {verb} --help` has an example.",
        )
    from ledger.api.profile import Profile
    from ledger.store.read import Reader

    loaded = Profile.load(profile)
    settle(obj.db, loaded)
    with Reader(obj.db) as reader:
        chosen = _chosen(reader, named)
        number, worst = _count(reader, verb, chosen, loaded)
    result = {"schema": 1, "verb": verb, "jobs": 0, "may_cost_microusd": worst, "applied": True}
    if number == 0:
        output.tell(f"There is nothing to {verb}.")
    else:
        ask(sentence(number, usd(worst)), yes=yes)
        outcome = send(obj.db, verb, chosen.to_json(), loaded)
        result |= {"jobs": 0 if outcome is None else outcome.jobs, "applied": outcome is not None}
        if not as_json:
            output.say(LATER if outcome is None else outcome.outcome)
    if as_json:
        output.emit_json(result)


def _is_a_setting(name: str) -> bool:
    """True for a --route or --import that was configured: meant for runs, it narrows and names nothing."""
    told = click.get_current_context().get_parameter_source(name)
    return name in {"route", "import_name"} and told is not ParameterSource.COMMANDLINE


LATER: Final = (
    "The ledger is busy: this lies in its inbox and will be applied by the run that holds it, or at the next "
    "start."
)


def _chosen(reader: Reader, named: Mapping[str, Any]) -> Chosen:
    from ledger.store.control import Chosen

    import_name = named["import_name"]
    return Chosen(
        job_ids=tuple(named["job"]),
        lead_ids=tuple(reader.find_lead(name) for name in named["leads"]),
        state=named["state"],
        reason=named["reason"],
        route=named["route"],
        import_id=None if import_name is None else reader.import_id(import_name),
        as_of=to_text(SystemClock().now()),
    )


def _count(reader: Reader, verb: str, chosen: Chosen, profile: Profile) -> tuple[int, int]:
    """How many jobs (for suppress: leads), and the most they may cost, in micro-dollars."""
    if verb == "suppress":
        return len(reader.leads_to_suppress(chosen)), 0
    groups = reader.preview(verb, chosen)
    missing = set(chosen.job_ids) - reader.known_jobs(chosen.job_ids)
    if missing:
        raise UsageProblem(
            f"There is no job {min(missing)} in this ledger.", next_step="`leadledger jobs` lists them."
        )
    worst = (
        sum(group.jobs * _ceiling(group, profile) for group in groups) if verb in {"retry", "resume"} else 0
    )
    return sum(group.jobs for group in groups), worst


def _ceiling(group: Group, profile: Profile) -> int:
    """What one attempt sets aside: as the last one did, else what a run sets aside unless told otherwise."""
    if group.ceiling_microusd is not None:
        return group.ceiling_microusd
    return profile.ceiling_for(group.route, group.mode)


def ask(what: str, *, yes: bool) -> None:
    """Say what will happen and what it may cost, and ask where somebody can answer.

    Raises:
        UsageProblem: Nobody can.
    """
    output.tell(what)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageProblem("This needs a yes.", next_step="Add --yes when no terminal is attached.")
    click.confirm("Go on?", abort=True, err=True)


def take(ledger: Ledger) -> None:
    """Carry out what waits in the inbox of an open ledger, and say what it was."""
    for taken in ledger.take_inbox():
        output.tell(f"Inbox: {output.clean(taken.note)}")


def settle(db: Path, profile: Profile) -> None:
    """Bring a ledger that nobody holds up to date: what its last run left in the air is a doubt now.

    Deliveries too: what a person is shown and decides must not overtake evidence that has come.
    """
    with suppress(LedgerBusy), wiring.open_ledger(db, "look", SystemClock(), profile=profile) as ledger:
        ledger.recover()
        take(ledger)


def send(db: Path, kind: str, body: Mapping[str, Any], profile: Profile) -> Outcome | None:
    """Drop a wish and see that it is carried out, by the run that holds the ledger or by ourselves.

    Returns:
        What became of it; None when it still lies in the inbox after 5 s.

    Raises:
        UsageProblem: It was refused; says why.
    """
    from ledger.store import inbox

    item_id = str(uuid.uuid4())
    path = inbox.drop(db, kind, body, item_id=item_id, now=SystemClock().now())
    ends = time.monotonic() + WAIT_S
    try:
        outcome = _see_to(db, path, item_id, ends, profile)
    except LedgerFileProblem:
        inbox.done(path)  # nobody will ever open this one: what was asked is not to come true some day
        raise
    if outcome is not None and outcome.refused:
        raise UsageProblem(f"{kind}: {outcome.outcome}")
    return outcome


def _see_to(db: Path, path: Path, item_id: str, ends: float, profile: Profile) -> Outcome | None:
    from ledger.store.read import Reader

    while True:
        with suppress(LedgerBusy), wiring.open_ledger(db, "inbox", SystemClock(), profile=profile) as ledger:
            ledger.recover()
            while path.exists() and ledger.take_inbox():
                continue
            return ledger.outcome_of(item_id)
        if not path.exists():
            with Reader(db) as reader:
                return reader.outcome_of(item_id)
        if time.monotonic() >= ends:
            return None
        time.sleep(_LOOK_S)
