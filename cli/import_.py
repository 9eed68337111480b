"""`leadledger import`: CRM exports in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import options, output, wiring
from ledger.clock import SystemClock

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.intake.file import ImportFile
    from ledger.store.imports import ImportReport

_SHOWN = 10


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
@click.pass_obj
def command(
    obj: Globals,
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
    one transaction.
    """
    del yes
    from ledger.intake.file import open_file

    opened = [
        open_file(file, map_file=map_file, encoding=encoding, delimiter=delimiter, region=region)
        for file in files
    ]
    reports = [(file, _dry(file) if dry_run else _take(obj, file)) for file in opened]
    if as_json:
        output.emit_json(_as_json(reports))
        return
    for file, report in reports:
        _tell(file, report, dry_run=dry_run)


def _take(obj: Globals, file: ImportFile) -> ImportReport:
    with wiring.open_ledger(obj.db, "import", SystemClock(), create=True) as ledger:
        return ledger.import_rows(file.facts, file.rows())


def _dry(file: ImportFile) -> ImportReport:
    """Read everything and write it into a ledger that is thrown away."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dry.db"
        with wiring.open_ledger(path, "import", SystemClock(), create=True) as ledger:
            return ledger.import_rows(file.facts, file.rows())


def _as_json(reports: list[tuple[ImportFile, ImportReport]]) -> dict[str, Any]:
    """The contract's object; several files are added up."""
    mapping: dict[str, Any] = {}
    for file, _ in reports:
        for field, columns in file.facts.mapping.items():
            if field == "missing":
                continue  # words for an empty cell, not columns
            mapping[field] = columns[0] if len(columns) == 1 else columns
    return {
        "schema": 1,
        "rows_read": sum(report.rows_read for _, report in reports),
        "leads_new": sum(report.leads_new for _, report in reports),
        "leads_known": sum(report.leads_known for _, report in reports),
        "rows_rejected": sum(report.rows_rejected for _, report in reports),
        "mapping": mapping,
        "rejections": [
            {"row": note.row, "column": note.column, "reason": note.reason}
            for _, report in reports
            for note in report.rejections
        ],
    }


def _tell(file: ImportFile, report: ImportReport, *, dry_run: bool) -> None:
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
    _some("rejected", report.rejections, report.rows_rejected)
    _some("noted", report.problems, report.problem_count)
    _some("changed, left as it was", report.changed, report.changed_count)


def _some(title: str, notes: list[Any], count: int) -> None:
    if not count:
        return
    output.tell(f"  {count:,} {title}:")
    for note in notes[:_SHOWN]:
        where = f"row {note.row}" + (f", column {note.column}" if note.column else "")
        output.tell(f"    {where}: {output.clean(note.reason)}")
    if count > _SHOWN:
        output.tell(f"    … and {count - _SHOWN:,} more (--json lists them)")
