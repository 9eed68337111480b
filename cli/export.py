"""`leadledger export`: results joined back to every source row, in its order, with its columns."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from ledger.cli import files, options, output
from ledger.errors import UsageProblem
from ledger.money import plain_usd

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.store.read import ExportRow, Reader

_OWN: Final = (
    "ledger_lead_id",
    "ledger_job_id",
    "ledger_route",
    "ledger_state",
    "ledger_note",
    "ledger_charged_usd",
    "ledger_held_usd",
    "ledger_same_lead_as_row",
)
_FLAGS: Final = frozenset({"matched", "billed", "cache_hit"})
_COLUMNS_MAX: Final = 200
"""Columns of answers at most, and of cells beyond the header; the rest stays in the ledger."""


@click.command(epilog="Example: leadledger export enriched.csv --import last")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-")
@click.option("--import", "import_name", default="last", show_default=True, metavar="ID|last")
@click.option("--route", type=options.Route(), help="Only this route's answers.  [default: the newest job]")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    file: Path,
    import_name: str,
    route: str | None,
    force: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Write every source row of an import to FILE (CSV, UTF-8; - is stdout), enriched.

    The original columns come first, as they were and in their order, then what the ledger knows
    (`ledger_state`, `ledger_charged_usd`, …), then the answer's own fields (`enriched_…`); where the file
    is an export of ours itself, they take the place of its own. Rows that were rejected are there too, with
    the reason and all their cells. The money of all a lead's jobs stands on its first row, and 0
    on its later ones (`ledger_same_lead_as_row`), so the columns can be summed. Exact for machines: cells
    are not made safe for spreadsheets.
    """
    del yes
    from ledger.store.read import Reader

    if str(file) == "-" and as_json:
        raise UsageProblem("--json and the table cannot both go to stdout.", next_step="Name a FILE.")
    if str(file) != "-":
        files.check_new(file, force=force)
    with Reader(obj.db) as reader:
        import_id = reader.import_id(import_name)
        original, enriched, left_out = _headers(reader.headers(import_id), reader.exported(import_id, route))
        rows = _cells(reader, import_id, route, original, enriched)
        header = [*original, *_OWN, *(f"enriched_{name}" for name in enriched)]
        written = _write(file, header, rows)
    if left_out:
        output.tell(f"{left_out:,} columns more than {_COLUMNS_MAX} are left out; they are in the ledger.")
    if as_json:
        output.emit_json({"schema": 1, "file": str(file), "rows": written, "import_id": import_id})
    else:
        output.tell(f"{written:,} rows of import {import_id} written to {file}.")


def _headers(columns: list[str], rows: Iterable[ExportRow]) -> tuple[list[str], list[str], int]:
    """The original columns in their order, the names of all that the answers say, and how many are left out.

    Cells that the header has no column for stand behind the columns, as `(cell 9)` or `(line)`.
    """
    header = set(columns)
    surplus: dict[str, None] = {}
    enriched: dict[str, None] = {}
    for row in rows:
        surplus.update(dict.fromkeys(name for name in row.raw if name not in header))
        enriched.update(dict.fromkeys(_flat(row.body)))
    left_out = sum(max(0, len(names) - _COLUMNS_MAX) for names in (surplus, enriched))
    said = list(enriched)[:_COLUMNS_MAX]
    ours = {*_OWN, *(f"enriched_{name}" for name in said)}
    original = [name for name in (*columns, *list(surplus)[:_COLUMNS_MAX]) if name not in ours]
    return original, said, left_out


def _flat(body: str | None) -> dict[str, str]:
    """An answer as one row: its own plain fields, and each kind of entity with its values joined."""
    if body is None:
        return {}
    try:
        answer = json.loads(body)
    except ValueError:
        return {"answer": body}
    if not isinstance(answer, dict):
        return {"answer": body}
    return {" ".join(_utf8(name).split()): _utf8(value) for name, value in _fields(answer).items()}


def _utf8(text: str) -> str:
    """Text that a file can hold: half a character, which JSON can spell, stays spelt."""
    return text.encode("utf-8", "backslashreplace").decode()


def _fields(answer: dict[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in answer.items():
        if key == "entities" and isinstance(value, list):
            for kind, values in _entities(value).items():
                flat[kind] = "; ".join(values)
        elif key not in _FLAGS:
            flat[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _entities(entities: list[Any]) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {}
    for entity in entities:
        if isinstance(entity, dict) and isinstance(entity.get("type"), str) and "value" in entity:
            by_kind.setdefault(entity["type"], []).append(str(entity["value"]))
    return by_kind


def _cells(
    reader: Reader, import_id: int, route: str | None, original: list[str], enriched: list[str]
) -> Iterator[list[object]]:
    for row in reader.exported(import_id, route):
        answer = _flat(row.body)
        yield [
            *(row.raw.get(name, "") for name in original),
            row.lead_id,
            row.job_id,
            row.route,
            row.state or ("rejected" if row.lead_id is None else "not asked"),
            row.problem or row.reason,
            plain_usd(0 if row.same_lead_as_row else row.charged_microusd),
            plain_usd(0 if row.same_lead_as_row else row.held_microusd),
            row.same_lead_as_row,
            *(answer.get(name, "") for name in enriched),
        ]


def _write(file: Path, header: list[str], rows: Iterator[list[object]]) -> int:
    """Write the table; a named file appears whole or not at all."""
    if str(file) == "-":
        return _write_rows(sys.stdout, header, rows)
    return files.write_whole(file, lambda stream: _write_rows(stream, header, rows))


def _write_rows(stream: TextIO, header: list[str], rows: Iterator[list[object]]) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    written = 0
    for row in rows:
        writer.writerow(row)
        written += 1
    return written
