"""Taking a file in: every row kept as it came, and each row a new lead, a known one, or a rejection.

One file is one transaction: killed half way, nothing of it is there. Rows are matched in chunks against the
keys of the ledger's leads and of the rows before them; identifiers are handed out here, so that a chunk is
two `executemany` calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from ledger import crashpoints
from ledger.clock import to_text
from ledger.model import LEAD_FIELDS, FileFacts, SourceRow
from ledger.store.books import Books
from ledger.store.connect import Connection, transaction
from ledger.store.matching import KEY_COLUMNS, KnownLead, Match

CHUNK: Final = 5000
NOTED_MAX: Final = 1000
"""Rejections, problems and changes spelt out in the report unless told otherwise; the counts are complete."""

_FIELDS: Final = ", ".join(LEAD_FIELDS)
_NEW_LEAD: Final = (
    "INSERT INTO leads (id, source, created_at, extra, suppressed, "
    + ", ".join(KEY_COLUMNS)
    + ", "
    + _FIELDS
    + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?"
    + ", ?" * len(LEAD_FIELDS)
    + ")"
)
_FILL_LEAD: Final = (
    "UPDATE leads SET "
    + ", ".join(name + " = COALESCE(" + name + ", ?)" for name in (*LEAD_FIELDS, *KEY_COLUMNS, "extra"))
    + ", suppressed = MAX(suppressed, ?) WHERE id = ?"
)
_NEW_ROW: Final = (
    "INSERT INTO source_rows (import_id, row_number, raw, lead_id, problem) VALUES (?, ?, ?, ?, ?)"
)
_NEW_IMPORT: Final = """
    INSERT INTO imports (file_name, file_sha256, source, mapping, imported_at) VALUES (?, ?, ?, ?, ?)
"""
_SAME_IMPORT: Final = """
    SELECT id, rows_read, rows_rejected FROM imports
    WHERE file_sha256 = ? AND source = ? AND mapping = ?
"""
_COUNT_IMPORT: Final = """
    UPDATE imports SET rows_read = ?, leads_new = ?, leads_known = ?, rows_rejected = ? WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class Noted:
    """One remark on one row. `column` is None when the whole row is meant."""

    row: int
    column: str | None
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What became of a file: rows_read = leads_new + leads_known + rows_rejected, always."""

    import_id: int = 0
    rows_read: int = 0
    leads_new: int = 0
    leads_known: int = 0
    rows_rejected: int = 0
    again: bool = False
    """True when this very file, read the same way, had been taken in before: nothing was written."""
    rejections: list[Noted] = field(default_factory=list)
    problems: list[Noted] = field(default_factory=list)
    changed: list[Noted] = field(default_factory=list)
    problem_count: int = 0
    changed_count: int = 0
    noted_max: int = NOTED_MAX
    """How many of each are spelt out."""

    def note(self, notes: list[Noted], note: Noted) -> None:
        """Spell one out, if there is room."""
        if len(notes) < self.noted_max:
            notes.append(note)


def import_rows(
    books: Books, facts: FileFacts, rows: Iterable[SourceRow], noted_max: int = NOTED_MAX
) -> ImportReport:
    """Take in one file in one transaction.

    The same bytes read the same way (`_reading`) are answered from the first import. A known lead's empty
    fields are filled; fields that say something else are listed as changed and left alone.

    Raises:
        BadInput: `rows` found the file unfit half way; nothing is kept.
        DiskTrouble: It could not be written; nothing is kept.
    """
    again = _same_import(books.connection, facts, noted_max)
    if again is not None:
        return again
    with transaction(books.connection):
        report = _take_in(books, facts, rows, noted_max)
        crashpoints.reach("import_before_commit")
    crashpoints.reach("import_after_commit")
    return report


def rehearse(
    books: Books, files: Iterable[tuple[FileFacts, Iterable[SourceRow]]], noted_max: int = NOTED_MAX
) -> list[ImportReport]:
    """What `import_rows` would report of each file, one after the other. All of it is rolled back.

    Raises:
        BadInput: As `import_rows`.
        DiskTrouble: As `import_rows`: what is rolled back is written first, to the log.
    """
    reports = []
    with suppress(_Rehearsed), transaction(books.connection):
        for facts, rows in files:
            again = _same_import(books.connection, facts, noted_max)
            reports.append(again or _take_in(books, facts, rows, noted_max))
        raise _Rehearsed
    return reports


class _Rehearsed(Exception):
    """Rolls a rehearsal back."""


def _reading(facts: FileFacts) -> str:
    """All that decides what the rows of the same bytes become: other words here make another import."""
    read = {
        "fields": facts.mapping,
        "unmapped": facts.unmapped,
        "headers": facts.headers,
        "encoding": facts.encoding,
        "delimiter": facts.delimiter,
        "region": facts.region,
    }
    return json.dumps(read, ensure_ascii=False)


def headers(connection: Connection, import_id: int) -> list[str]:
    """The columns of an imported file, in its order."""
    query = "SELECT mapping FROM imports WHERE id = ?"
    (reading,) = connection.execute(query, (import_id,)).fetchone()
    return list(json.loads(reading).get("headers", ()))


def _same_import(connection: Connection, facts: FileFacts, noted_max: int) -> ImportReport | None:
    """The report of an import that has taken in the same bytes, read the same way."""
    same = connection.execute(_SAME_IMPORT, (facts.sha256, facts.source, _reading(facts))).fetchone()
    if same is None:
        return None
    import_id, read, rejected = same
    report = ImportReport(import_id, read, 0, read - rejected, rejected, again=True, noted_max=noted_max)
    report.rejections = _stored_rejections(connection, import_id, noted_max)
    return report


def _take_in(books: Books, facts: FileFacts, rows: Iterable[SourceRow], noted_max: int) -> ImportReport:
    cursor = books.connection.execute(
        _NEW_IMPORT, (facts.name, facts.sha256, facts.source, _reading(facts), to_text(books.now))
    )
    report = ImportReport(import_id=cursor.lastrowid or 0, noted_max=noted_max)
    taker = _Taker(books, facts, report)
    source = iter(rows)
    while chunk := list(islice(source, CHUNK)):
        taker.take(chunk)
    books.connection.execute(
        _COUNT_IMPORT,
        (
            report.rows_read,
            report.leads_new,
            report.leads_known,
            report.rows_rejected,
            report.import_id,
        ),
    )
    return report


def _stored_rejections(connection: Connection, import_id: int, noted_max: int) -> list[Noted]:
    found = connection.execute(
        "SELECT row_number, problem FROM source_rows WHERE import_id = ? AND lead_id IS NULL "
        "ORDER BY row_number LIMIT ?",
        (import_id, noted_max),
    )
    columns = headers(connection, import_id)
    return [_parse_note(number, problem, columns) for number, problem in found]


def _note_text(column: str | None, reason: str) -> str:
    return reason if column is None else f"{column}: {reason}"


def _parse_note(row: int, problem: str, columns: list[str]) -> Noted:
    """A reason may have a colon too, so only a column of the file is taken for one."""
    column = max((name for name in columns if problem.startswith(name + ": ")), key=len, default=None)
    return Noted(row, column, problem if column is None else problem[len(column) + 2 :])


class _Taker:
    """Matches chunks of rows with leads and writes both."""

    def __init__(self, books: Books, facts: FileFacts, report: ImportReport) -> None:
        self.connection = books.connection
        self.report = report
        self.source = facts.source
        self.at = to_text(books.now)
        last = self.connection.execute("SELECT COALESCE(MAX(id), 0) FROM leads").fetchone()[0]
        self.next_id = int(last) + 1

    def take(self, chunk: list[SourceRow]) -> None:
        match = Match(self.connection, chunk)
        new_leads: list[tuple[object, ...]] = []
        new_rows: list[tuple[object, ...]] = []
        fills: list[tuple[object, ...]] = []
        for row in chunk:
            problem = row.problem
            if row.rejection is not None:
                lead_id, problem = None, self._reject(row)
            else:
                lead, rival = match.lead_of(row.keys)
                lead_id = self._new(row, new_leads, match) if lead is None else lead.id
                if lead is not None:
                    self._known(row, lead, match, fills)
                if rival is not None:
                    problem = _joined(problem, f"shares a weaker key with lead {rival}, another contact id")
                if problem:
                    self.report.problem_count += 1
                    self.report.note(self.report.problems, Noted(row.number, None, problem))
            new_rows.append((self.report.import_id, row.number, row.raw, lead_id, problem))
        self.connection.executemany(_NEW_LEAD, new_leads)
        self.connection.executemany(_NEW_ROW, new_rows)
        self.connection.executemany(_FILL_LEAD, fills)
        self.report.rows_read += len(chunk)

    def _reject(self, row: SourceRow) -> str:
        column, reason = row.rejection or (None, "")
        self.report.rows_rejected += 1
        self.report.note(self.report.rejections, Noted(row.number, column, reason))
        return _note_text(column, reason)

    def _new(self, row: SourceRow, new_leads: list[tuple[object, ...]], match: Match) -> int:
        lead_id = self.next_id
        self.next_id += 1
        self.report.leads_new += 1
        match.add(lead_id, row)
        new_leads.append(
            (lead_id, self.source, self.at, row.extra, int(row.suppressed), *row.keys, *row.fields)
        )
        return lead_id

    def _known(self, row: SourceRow, lead: KnownLead, match: Match, fills: list[tuple[object, ...]]) -> None:
        self.report.leads_known += 1
        for name, has, value in zip(LEAD_FIELDS, lead.fields, row.fields, strict=True):
            if value is None or has is None or value == has or value.casefold() == has.casefold():
                continue
            self.report.changed_count += 1
            said = f"lead {lead.id} has {has!r}, this row says {value!r}"
            self.report.note(self.report.changed, Noted(row.number, name, said))
        if match.fill(lead, row):
            fills.append((*row.fields, *row.keys, row.extra, int(row.suppressed), lead.id))


def _joined(first: str | None, second: str) -> str:
    return second if first is None else f"{first}; {second}"
