"""`leadledger import`: CRM exports in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock
from ledger.errors import LeadledgerError, LedgerFileProblem, UsageProblem

if TYPE_CHECKING:
    from ledger.intake.file import ImportFile
    from ledger.store.imports import ImportReport

_SHOWN: Final = 10
_LISTED_MAX: Final = 1_000_000
"""Rejections of one file that --json lists; they are in memory then, some 200 MB of them."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file and what became of it."""

    named: Path
    """As on the command line."""
    file: ImportFile
    report: ImportReport


@click.command(
    epilog="Example: leadledger import licences.tsv --map tucson.toml. A map file says "
    'which columns make a field: [fields] street = ["Number", "Street"], and missing = ["NA"].'
)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path, dir_okay=True)
)
@click.option("--map", "map_file", type=click.Path(path_type=Path), help="Which columns make which field.")
@click.option("--encoding", help="The file's encoding, if it is not UTF-8 or UTF-16 (cp1252, …).")
@click.option("--delimiter", help="The sign between cells, if it is not found out (tab, comma, ; …).")
@click.option("--region", default="US", show_default=True, help="Region of phones without a country code.")
@click.option("--dry-run", is_flag=True, help="Read and report; write nothing.")
@options.common
@click.pass_context
def command(
    ctx: click.Context,
    *,
    files: tuple[Path, ...],
    map_file: Path | None,
    encoding: str | None,
    delimiter: str | None,
    region: str,
    dry_run: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Take CRM exports (CSV, TSV) into the ledger.

    Every row is kept as it came. Each becomes a new lead, a known one, or a rejection with its reason:
    rows read = new + known + rejected. The same file again is free: no new lead, no new row. One file is
    one transaction: when one will not do, those before it are in, and that is said.
    """
    del yes
    from ledger.intake.file import open_file

    if Path("-") in files:
        raise UsageProblem(
            "An import cannot read from stdin yet.",
            next_step="Save it to a file first: … > leads.csv && leadledger import leads.csv",
        )
    opened = [
        open_file(file, map_file=map_file, encoding=encoding, delimiter=delimiter, region=region)
        for file in files
    ]
    taken: list[Taken] = []
    problem = None
    try:
        with closing((_rehearsed if dry_run else _imported)(ctx.obj.db, opened, as_json=as_json)) as reports:
            for named, file in zip(files, opened, strict=True):
                taken.append(Taken(named, file, next(reports)))
    except LeadledgerError as error:
        if not taken:
            raise
        problem = error
        problem.money = _half_done(files, len(taken))
    if as_json:
        output.emit_json(_as_json(taken, problem))
    else:
        for one in taken:
            _tell(one, dry_run=dry_run)
    if problem is not None:
        output.error(problem.what, problem.money, problem.next_step, as_json=False)
        ctx.exit(problem.exit_code)


def _imported(db: Path, files: list[ImportFile], *, as_json: bool) -> Generator[ImportReport]:
    """Each file in a transaction of its own, nobody else's write between them."""
    with wiring.open_ledger(db, "import", SystemClock(), create=True) as ledger:
        for file in files:
            yield ledger.import_rows(file.facts, file.rows(), **_noted(as_json=as_json))


def _rehearsed(db: Path, files: list[ImportFile], *, as_json: bool) -> Generator[ImportReport]:
    """On the ledger as it is, rolled back; where there is none yet, on one that is thrown away."""
    import tempfile

    from ledger.store.connect import SCHEMA_VERSION
    from ledger.store.read import Reader

    with tempfile.TemporaryDirectory() as folder:
        new = not db.exists() or db.stat().st_size == 0
        if not new:
            with Reader(db) as reader:
                version = reader.schema_version()
            if version < SCHEMA_VERSION:
                raise LedgerFileProblem(
                    f"{db} is of an earlier version, and a dry run may not bring it up to date.",
                    next_step="The next import or run does, with a backup.",
                )
        path = Path(folder) / "dry.db" if new else db
        with wiring.open_ledger(path, "import --dry-run", SystemClock(), create=new) as ledger:
            rehearsed = ((file.facts, file.rows()) for file in files)
            yield from ledger.rehearse_import(rehearsed, **_noted(as_json=as_json))


def _noted(*, as_json: bool) -> dict[str, int]:
    return {"noted_max": _LISTED_MAX} if as_json else {}


def _half_done(files: tuple[Path, ...], done: int) -> str:
    return (
        f"Taken in before that: {', '.join(map(str, files[:done]))}. Not taken in: "
        f"{', '.join(map(str, files[done:]))}. Nothing was charged."
    )


def _as_json(taken: list[Taken], problem: LeadledgerError | None) -> dict[str, Any]:
    """The contract's object; several files are added up, and each rejection then names its own."""
    mapping: dict[str, Any] = {}
    for one in taken:
        for field, columns in one.file.facts.mapping.items():
            if field == "missing":
                continue  # words for an empty cell, not columns
            mapping[field] = columns[0] if len(columns) == 1 else columns
    reports = [one.report for one in taken]
    rejected = sum(report.rows_rejected for report in reports)
    rejections = [
        {
            **({"file": str(one.named)} if len(taken) > 1 or problem is not None else {}),
            "row": note.row,
            "column": note.column,
            "reason": note.reason,
        }
        for one in taken
        for note in one.report.rejections
    ]
    result = {
        "schema": 1,
        "rows_read": sum(report.rows_read for report in reports),
        "leads_new": sum(report.leads_new for report in reports),
        "leads_known": sum(report.leads_known for report in reports),
        "rows_rejected": rejected,
        "mapping": mapping,
        "rejections": rejections,
    }
    if rejected > len(rejections):
        result["rejections_left_out"] = rejected - len(rejections)
    if problem is not None:
        error = {"what": problem.what, "money": problem.money, "next_step": problem.next_step}
        result |= {"files_taken_in": [str(one.named) for one in taken], "error": error}
    return result


def _tell(taken: Taken, *, dry_run: bool) -> None:
    file, report = taken.file, taken.report
    facts = file.facts
    what = "would take in" if dry_run else "known already, nothing new in" if report.again else "took in"
    output.say(
        f"{output.clean(facts.name)}: {what} {report.rows_read:,} rows = {report.leads_new:,} new leads + "
        f"{report.leads_known:,} of known leads + {report.rows_rejected:,} rejected."
    )
    for guess in file.guesses:
        output.tell(f"  {output.clean(guess)}")
    for field, columns in facts.mapping.items():
        output.tell(f"  {field:11} ← {output.clean(' + '.join(columns))}")
    if facts.unmapped:
        output.tell(f"  not read: {output.clean(', '.join(facts.unmapped))} (kept with each row)")
    _some("rejected", report.rejections, report.rows_rejected, " (--json lists them)")
    exported = "" if dry_run else " (`leadledger export` has them, as ledger_note)"
    _some("noted", report.problems, report.problem_count, exported)
    _some("changed, left as it was", report.changed, report.changed_count)


def _some(title: str, notes: list[Any], count: int, elsewhere: str = "") -> None:
    if not count:
        return
    output.tell(f"  {count:,} {title}:")
    for note in notes[:_SHOWN]:
        where = f"row {note.row}" + (f", column {note.column}" if note.column else "")
        output.tell(f"    {where}: {output.clean(note.reason)}")
    if count > _SHOWN:
        output.tell(f"    … and {count - _SHOWN:,} more{elsewhere}")
